"""The doctor's verdicts: whether something works here, and for a "no" why, and what to do."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cni_netkit.admin import launcher, networks
from cni_netkit.admin.output import JSON
from cni_netkit.agent import wire
from cni_netkit.agent.server import SOCKET
from cni_netkit.errors import as_cni_error
from cni_netkit.facts import Facts, Nic, gather_status_facts
from cni_netkit.formats import Newer
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics.prepare import unable
from cni_netkit.nics.state import NicState
from cni_netkit.node import status
from cni_netkit.plan import check_prerequisites
from cni_netkit.spec import version as versions
from cni_netkit.spec.config import validate
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.nics import Role

AGENT_SECONDS = 10.0
"""To connect and to answer; systemd may have to start it first."""

NODE_SECONDS = 3 * status.RESYNC_SECONDS
START_NODE = "look at the log of the DaemonSet's container node, which writes it"

VERSION = wire.WireRequest({"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.1.0"}')

KERNEL_COMMAND = 'uname -r; grep CONFIG_NETKIT "/boot/config-$(uname -r)"'
USES: tuple[tuple[str, JSON], ...] = (("pair (l3, l2)", {}), ("single", {"pairing": "single"}))


WORKLOADS: tuple[tuple[Role, str], ...] = (("io_uring", "pair"), ("af_xdp", "single"))


def verdict(
    about: str, *, needed: bool = False, reason: str = "", remedy: str = "", command: str = ""
) -> JSON:
    """A verdict; without a reason it is a yes. The exit status hangs on what is `needed`."""
    return {
        "about": about,
        "ok": not reason,
        "needed": needed,
        "reason": reason or None,
        "remedy": remedy or None,
        "command": command or None,
    }


def of_uses(features: frozenset[str], nics: Sequence[Nic], *, needed: bool) -> Iterator[JSON]:
    """What attachments this node can have; `needed`: whether it must have pairs."""
    for about, keys in USES:
        error = _refusal(keys, Facts(features, 0))
        yield _refused(about, error, needed=needed and not keys)
    for nic in nics:
        name = nic.link.name
        about = f"queues of {name}"
        if error := _refusal({"lease": {"device": name}}, Facts(features, 0, nic)):
            yield _refused(about, error, nic)
        elif not any(queue.free for queue in nic.queues if queue.number):
            yield verdict(
                about,
                reason=f"of {len(nic.queues)} receive queues of {name} none is free but queue 0",
                remedy="end what holds them, or give the NIC more queues (ethtool -L)",
                command="cni-netkit leases",
            )
        else:
            yield verdict(about)


def of_workloads(features: frozenset[str], nic: Nic, state: NicState) -> Iterator[JSON]:
    """Whether containers could use queues of a NIC for each workload, by a lease of their own."""
    for role, pairing in WORKLOADS:
        lease = {"device": nic.link.name, "workload": role, "flows": "none"}
        lends = _refusal({"lease": {"device": nic.link.name}}, Facts(features, 0, nic))
        copies = nic.preparation is not None and nic.preparation.copies
        error = (
            lends
            or unable(role, state, copies=copies)
            or _refusal({"pairing": pairing, "lease": lease}, Facts(features, 0, nic))
        )
        yield _refused(f"{role} on {nic.link.name}", error, nic)


def of_configuration(host: Namespace, path: str | None) -> Iterator[JSON]:
    """Whether each netkit plugin of a configuration file would work here; IPAM is not asked."""
    if path is None:
        return
    try:
        plugins = [*_of_netkit(networks.plugins(Path(path).read_bytes()))]
    except OSError as error:
        yield verdict(path, needed=True, reason=f"read {path}: {error.strerror}")
        return
    except ValueError as error:
        yield verdict(path, needed=True, reason=f"{path} is no network configuration: {error}")
        return
    if not plugins:
        yield verdict(path, needed=True, reason=f"{path} has no plugin of type netkit")
    for number, plugin in plugins:
        try:
            versions.negotiate(plugin.get("cniVersion") or versions.SUPPORTED[0])
            conf = validate(plugin)
            check_prerequisites(conf, gather_status_facts(host, conf))
            failure = None
        except (CNIError, KernelError) as error:
            failure = as_cni_error(error)
        yield _refused(f"{path}: plugin {number}", failure, needed=True)
        if not plugin.get("cniVersion"):
            yield verdict(
                f"{path}: cniVersion",
                reason="it is missing, so 0.1.0 holds, whose results have no interfaces, which "
                "containerd and CRI-O need",
                remedy='add "cniVersion": "1.0.0", in a list beside "plugins"',
            )


def of_networks(path: str | None) -> Iterator[JSON]:
    """Whether networks of this node, and of a file to be installed, give the same addresses."""
    given = [*networks.known(Path(path) if path else None)]
    shared = [*networks.overlaps(given)]
    for one, other, addresses in shared:
        yield verdict(
            f"addresses of networks {one.name} and {other.name}",
            reason=f"{one} and {other} both give {addresses}; the host can reach one of two "
            "containers with one address, and the second ADD fails (error 103)",
            remedy="give each network ranges of its own (ipam); one that no runtime uses need "
            f"not be in {networks.FOLDER}",
        )
    if given and not shared:
        yield verdict("addresses of networks")


def of_agent() -> JSON:
    """Whether the agent answers where the launcher calls, to a question that leaves no trace."""
    path = os.environ.get("CNI_NETKIT_SOCKET", SOCKET)
    until = time.monotonic() + AGENT_SECONDS
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(AGENT_SECONDS)
        try:
            connection.connect(path)
        except OSError as error:
            return verdict(
                "agent",
                reason=f"connect to {path}: {error.strerror or error}",
                remedy="start it; without it each request starts Python, which takes longer",
                command="systemctl start cni-netkit-agent.socket",
            )
        try:
            # A refusal may have come before.
            with contextlib.suppress(wire.WireError):
                wire.send_request(connection, VERSION, until)
            answer = wire.receive_answer(connection, until)
        except wire.WireError as error:
            return _silent_agent(f"ask the agent at {path}: {error}")
    if answer.status:
        return _silent_agent(f"the agent at {path} refuses: {json.loads(answer.output)['msg']}")
    return verdict("agent")


def _silent_agent(reason: str) -> JSON:
    return verdict(
        "agent",
        reason=reason,
        remedy="look at its log, and start it again",
        command="journalctl -u cni-netkit-agent.service",
    )


def of_node() -> Iterator[JSON]:
    """What `cni-netkit node` says of this node's place in its cluster, where there is one."""
    about = "cluster"
    try:
        found = status.Status.load(status.FILE)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield verdict(about, reason=f"read {status.FILE}: {error}", remedy=START_NODE)
        return
    except Newer as newer:
        yield verdict(
            about,
            reason=f"{status.FILE} is of a newer release: it has format {newer.found}, this "
            f"release knows formats up to {newer.known}",
            remedy="ask that release's doctor",
        )
        return
    silent = time.time() - found.written
    if silent > NODE_SECONDS:
        yield verdict(
            about,
            reason=f"the container node has said nothing for {silent / 60:.0f} minutes",
            remedy=START_NODE,
            command="kubectl -n kube-system logs ds/cni-netkit -c node",
        )
    for each in found.problems:
        yield verdict(f"{about}: {each.reason}", reason=each.text, remedy=each.remedy)
    if silent <= NODE_SECONDS and not found.problems:
        yield verdict(about)


def of_launcher() -> JSON:
    """Whether this installation has one."""
    try:
        launcher.path()
    except launcher.LauncherError as error:
        return verdict(
            "launcher",
            reason=str(error),
            remedy="install a wheel that was built where there is a C compiler",
        )
    return verdict("launcher")


def _of_netkit(plugins: Sequence[JSON]) -> Iterator[tuple[int, JSON]]:
    """Those of type netkit, numbered from 0."""
    return ((number, each) for number, each in enumerate(plugins) if each.get("type") == "netkit")


def _refusal(keys: JSON, facts: Facts) -> CNIError | None:
    try:
        check_prerequisites(validate({"name": "doctor", **keys}), facts)
    except CNIError as error:
        return error
    return None


def _refused(
    about: str, error: CNIError | None, nic: Nic | None = None, *, needed: bool = False
) -> JSON:
    if error is None:
        return verdict(about, needed=needed)
    command = ""
    if error.details.startswith("cni-netkit nic prepare"):
        remedy = "prepare the NIC for one role, once; this can interrupt its traffic for a moment"
        return verdict(
            about, needed=needed, reason=error.message, remedy=remedy, command=error.details
        )
    if error.code == Code.KERNEL_LACKS_FEATURE:
        command = KERNEL_COMMAND
    elif nic is not None:
        name = nic.link.name
        command = f"ethtool -i {name}" if nic.link.up else f"ip link set {name} up"
    remedy = "bring it up" if error.details == command else error.details
    return verdict(about, needed=needed, reason=error.message, remedy=remedy, command=command)
