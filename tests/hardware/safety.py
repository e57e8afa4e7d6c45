"""Why not to begin, and what is kept apart from the machine meanwhile."""

import argparse
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.hardware import traffic
from tests.hardware.machine import NETWORK, RECORDS, Machine
from tests.kernel import judge

CLONE_NEWNS, MS_REC_PRIVATE = 0x00020000, 0x4000 | 0x40000
NICS_FILE = Path("/etc/cni-netkit/nics.json")
TOOLS = ("ethtool", "ip", "ping", "bash", "setpriv")
OWN = "/run/cni-netkit-hardware"


def faults(arguments: argparse.Namespace) -> Iterator[str]:
    """Why not to begin; only the first counts, for each takes what is before it for granted."""
    device, peer = arguments.device, arguments.peer
    if os.geteuid() != 0:
        yield "network namespaces and NICs need root"
    if lacking := [name for name in TOOLS if not shutil.which(name)]:
        yield f"{', '.join(lacking)} must be installed"
    if device == peer:
        yield "DEVICE2 must be another port than DEVICE"
    for name in filter(None, (device, peer)):
        yield from _faults_of(name, simulated=arguments.simulated)
    if "UP" not in judge.link(device)["flags"]:
        yield f"{device} is down (ip link set {device} up)"
    if peer and any(found["scope"] == "global" for found in _addresses(peer)):
        yield f"{peer} has addresses, which it would lose in another network namespace"
    yield from _faults_in_use(device)


def _faults_of(name: str, *, simulated: bool) -> Iterator[str]:
    link, bus = judge.link(name), Path("/sys/class/net", name, "device/subsystem")
    if link is None or not bus.exists():
        yield f"{name} is no NIC of this network namespace"
    if (bus.resolve().name == "netdevsim") != simulated:
        yield f"{name}: --simulated is for simulated NICs (netdevsim), and only for those"
    routes = [*judge.ip("-4", "route"), *judge.ip("-6", "route")]
    if any(each["dst"] == "default" and each.get("dev") == name for each in routes):
        yield f"the default route goes over {name}"
    if link.get("master"):
        yield f"{name} belongs to {link['master']}"
    if NICS_FILE.exists() and f'"{name}"' in NICS_FILE.read_text():
        yield f"{name} is in {NICS_FILE}: the node's agent would prepare it meanwhile"


def _faults_in_use(device: str) -> Iterator[str]:
    """By others, or by an earlier run that was killed; and what ADD would change for all NICs."""
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0":
        yield (
            "net.ipv4.ip_forward is 0. ADD would turn it on, and the kernel then turns "
            "large-receive-offload off on every NIC: if that may be, sysctl -w net.ipv4.ip_forward=1"
        )
    (shown,) = Machine().cni_netkit("nic", "show", device)["nics"]
    if leases := judge.leases(device):
        yield f"queues of {device} are leased: {sorted(leases)} (cni-netkit leases)"
    if shown["role"]:
        yield f"{device} has the role {shown['role']} (cni-netkit nic restore {device})"
    # What they tell of went with the namespaces of that run.
    if any((RECORDS / NETWORK).glob("*.json")):
        yield f"there are records of an earlier run (rm -r {RECORDS / NETWORK})"
    if any(found["local"] == traffic.NIC_ADDRESS for found in _addresses(device)):
        yield f"{device} has {traffic.NIC_ADDRESS} (ip addr del {traffic.NIC_ADDRESS}/24 dev {device})"


def _addresses(name: str) -> list[dict[str, str]]:
    (found,) = judge.ip("addr", "show", name)
    return list(found["addr_info"])


def hide_what_others_use() -> None:
    """Have a /run and an empty /etc/cni-netkit of our own: namespaces, sockets, an agent apart.

    The records stay the machine's: what to restore is found there after a kill, too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    mounts = [target for target in ("/run", str(NICS_FILE.parent)) if Path(target).is_dir()]
    failed = libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None)
    for target in mounts:
        failed = failed or libc.mount(b"tmpfs", target.encode(), b"tmpfs", 0, None)
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for folder in ("/run/netns", OWN):
        os.mkdir(folder)
    os.environ["TMPDIR"] = OWN
