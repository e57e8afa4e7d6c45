"""Try cni-netkit on a real NIC: prepare it, lease its queues, use them, and put everything back.

Prints each step as ok, failed, or not run, and a verdict that follows from them; writes the same to a
file, with all outputs in a second one (FILE.json), to be attached to a report. Exit status: 0 works, 1
failed, 2 nothing was done, 3 incomplete (nothing failed, something was not run). Needs root, ethtool,
and a kernel with netkit that leases queues.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from tests.hardware.machine import Machine
from tests.hardware.runner import FAILED, INCOMPLETE, WORKS, Outcome, Runner, Step, verdict
from tests.hardware.steps import numbers, plan
from tests.kernel import judge

ROOT = Path(__file__).parents[2]
REFUSED = 2
STATUS = {WORKS: 0, FAILED: 1, INCOMPLETE: 3}
SIMULATED = "A SIMULATED NIC: this verdict says nothing about any hardware."
CLONE_NEWNS, MS_REC_PRIVATE = 0x00020000, 0x4000 | 0x40000
OWN = "/run/cni-netkit-hardware"


def main() -> int:
    """Parse, refuse or tell what will be done, do it, report."""
    arguments = _arguments()
    if fault := _fault(arguments):
        print(f"hardware: {fault}; nothing was done", file=sys.stderr)
        return REFUSED
    machine = Machine()
    steps = plan(arguments, machine)
    print(_announcement(arguments, steps), flush=True)
    if not arguments.yes:
        print("Nothing was done. To do it: the same command with --yes.")
        return REFUSED
    with ExitStack() as files:
        # Opened before anything is done: that they can be written, and where this process sees them.
        path = arguments.report
        text, raw = (files.enter_context(open(each, "w")) for each in (path, f"{path}.json"))
        _hide_what_others_use()
        outcomes = Runner(machine.commands, _say).run(steps)
        return _report(arguments, outcomes, text, raw)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/hardware/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("device", metavar="DEVICE", help="the port to try; its traffic is interrupted")
    add("--peer", metavar="DEVICE2", help="a port cabled to it, which sends; without addresses")
    add("--queues", default="8-15", help="the pool to lease from (default 8-15)")
    add("--channels", type=int, help="how many queues DEVICE shall have meanwhile")
    add("--role", choices=["io_uring", "af_xdp", "both"], default="both")
    add("--copy", action="store_true", help="af_xdp by copying: the driver has no zero copy")
    add("--report", metavar="FILE", help="default: hardware-DEVICE.txt in this folder")
    add("--simulated", action="store_true", help="DEVICE is a netdevsim; the report says so")
    add("--yes", action="store_true", help="do it; without, only say what would be done")
    arguments = parser.parse_args()
    arguments.report = arguments.report or f"hardware-{arguments.device}.txt"
    try:
        numbers(arguments.queues)
    except ValueError:
        parser.error(f"--queues {arguments.queues}: not of the form 8-11,14")
    return arguments


def _fault(arguments: argparse.Namespace) -> str:
    """Why not to begin; empty if nothing speaks against it."""
    if os.geteuid() != 0:
        return "network namespaces and NICs need root"
    devices = [each for each in (arguments.device, arguments.peer) if each]
    if len(set(devices)) < len(devices):
        return "DEVICE2 must be another port than DEVICE"
    for name in devices:
        if fault := _fault_of(name, arguments.simulated):
            return f"{name} {fault}"
    device, peer = arguments.device, arguments.peer
    if "UP" not in (judge.link(device) or {})["flags"]:
        return f"{device} is down (ip link set {device} up)"
    if peer and any(each["scope"] == "global" for each in judge.ip("addr", "show", peer)[0]["addr_info"]):
        return f"{peer} has addresses, which a move to another namespace would lose"
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0":
        return (
            "net.ipv4.ip_forward is 0. ADD would turn it on, and the kernel then turns off "
            "large-receive-offload on every NIC: to have that, sysctl -w net.ipv4.ip_forward=1"
        )
    (shown,) = Machine().cni_netkit("nic", "show", device)["nics"]
    if shown["role"] or judge.leases(device):
        return f"{device} is in use: it has the role {shown['role']}, or leased queues"
    return ""


def _fault_of(name: str, simulated: bool) -> str:
    link = judge.link(name)
    bus = Path("/sys/class/net", name, "device/subsystem")
    if link is None or not bus.exists():
        return "is no NIC of this network namespace"
    if (bus.resolve().name == "netdevsim") != simulated:
        return "is simulated (netdevsim): --simulated is for those, and only for those"
    routes = [*judge.ip("-4", "route"), *judge.ip("-6", "route")]
    if link.get("master") or any(each["dst"] == "default" and each.get("dev") == name for each in routes):
        return "carries the default route, or belongs to a bridge or bond"
    file = Path("/etc/cni-netkit/nics.json")
    if file.exists() and f'"{name}"' in file.read_text():
        return f"is in {file}: the agent would prepare it meanwhile"
    return ""


def _announcement(arguments: argparse.Namespace, steps: Sequence[Step]) -> str:
    peer = arguments.peer and (
        f" {arguments.peer} moves into a network namespace of this run, and comes back at the end."
    )
    said = (
        f"This interrupts the traffic of {arguments.device}: its channels, rings, header-data split, "
        "RSS table, ntuple filters, flow rules and XDP program change, and are put back at the end."
        f"{peer or ''} If it is killed (not interrupted), `cni-netkit nic restore {arguments.device}` "
        "puts the NIC back. Steps: " + "; ".join(step.name for step in steps) + "."
    )
    return textwrap.fill(said, 100) + (f"\n{SIMULATED}" if arguments.simulated else "")


def _hide_what_others_use() -> None:
    """Have a /run and an empty /etc/cni-netkit of our own: namespaces, sockets and an agent apart.

    The records stay the machine's: what to restore is found there after a kill, too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    mounts = [target for target in ("/run", "/etc/cni-netkit") if Path(target).is_dir()]
    failed = libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None)
    for target in mounts:
        failed = failed or libc.mount(b"tmpfs", target.encode(), b"tmpfs", 0, None)
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for folder in ("/run/netns", OWN):
        os.mkdir(folder)
    os.environ["TMPDIR"] = OWN


def _say(outcome: Outcome) -> None:
    print(f"{outcome.result:8}{outcome.name}: {outcome.text}", flush=True)


def _report(
    arguments: argparse.Namespace, outcomes: Sequence[Outcome], text: TextIO, raw: TextIO
) -> int:
    found = verdict(outcomes)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    version = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    head = {
        "what": "cni-netkit on a NIC",
        "commit": version or "unknown",
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "arguments": " ".join(sys.argv[1:]),
        "simulated": arguments.simulated,
        "verdict": found,
    }
    width = max(len(each.name) for each in outcomes)
    count = {
        word: sum(each.result == word for each in outcomes) for word in ("ok", "failed", "not run")
    }
    last = f"verdict: {found} ({', '.join(f'{number} {word}' for word, number in count.items())})"
    last += f"\n{SIMULATED}" if arguments.simulated else ""
    lines = [f"{name}: {value}" for name, value in head.items() if name != "verdict"]
    lines += ["", f"{'step':{width}}  result   found"]
    lines += [f"{each.name:{width}}  {each.result:7}  {each.text}" for each in outcomes]
    text.write("\n".join([*lines, "", last, ""]))
    json.dump({**head, "steps": [vars(each) for each in outcomes]}, raw, indent=1)
    print(f"{last}\nreport: {arguments.report}, with all outputs in {arguments.report}.json")
    return STATUS[found]


if __name__ == "__main__":
    sys.exit(main())
