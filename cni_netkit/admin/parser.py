"""The command line of cni-netkit: which commands there are, what they take, examples of each.

Needs nothing but the standard library: building the package makes the man page and the shells'
completions from it.
"""

import argparse
import os.path
import sys
from collections.abc import Iterator
from typing import Any

from cni_netkit import __version__
from cni_netkit.admin import usage

PROGRAM = "cni-netkit"
WHAT = "what there is on this node, what it can do, and what can be done about it"

EXIT_STATUS = {
    0: "done; doctor: what is needed works here",
    1: "an error, told on standard error; doctor: something needed does not work",
    2: "the command line is wrong, and nothing was done",
}
EXAMPLES = (
    "cni-netkit doctor /etc/cni/net.d/10-netkit.conflist",
    "cni-netkit list",
    "cni-netkit COMMAND --help",
)
HOST_BIN_DIR = "/host/opt/cni/bin"
"""Where a container that installs has the host's folder mounted."""


def parser() -> argparse.ArgumentParser:
    """The parser; what it returns has the whole command as `name`, as errors begin with it."""
    made = usage.Parser(
        prog=PROGRAM,
        description=f"{WHAT[0].upper()}{WHAT[1:]}.",
        epilog=_examples(EXAMPLES) + _last_words(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_reports(commands)
    _add_nic(commands)
    _add_lease(commands)
    _add_gc(commands)
    _add_conformance(commands)
    _add_programs(commands)
    return made


def commands_of(given: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of each command that can be carried out, in the order of --help."""
    groups = [each for each in given._actions if isinstance(each, argparse._SubParsersAction)]
    if not groups:
        yield given
    for group in groups:
        for command in group.choices.values():
            yield from commands_of(command)


def _add_reports(commands: Any) -> None:
    doctor = _shown(
        commands,
        "doctor",
        "what this node can do, and what to do about what it cannot",
        "cni-netkit doctor",
        "cni-netkit doctor /etc/cni/net.d/10-netkit.conflist",
    )
    doctor.add_argument("conflist", nargs="?", help="would its netkit plugins work here?")
    listed = _shown(
        commands,
        "list",
        "every attachment on this node",
        "cni-netkit list",
        "cni-netkit list --json | jq '.attachments[].addresses'",
    )
    listed.add_argument(
        "--wide",
        action="store_true",
        help="all columns, and whole ids; on a terminal that is too narrow a line for each",
    )
    _shown(
        commands,
        "leases",
        "the receive queues of every NIC, and who holds them",
        "cni-netkit leases",
    )
    schema = _command(
        commands,
        "schema",
        "print the JSON Schema of a configuration",
        "cni-netkit schema >netkit.schema.json",
        "cni-netkit schema nics",
        "cni-netkit schema claim",
    )
    schema.add_argument(
        "of",
        nargs="?",
        choices=["configuration", "nics", "claim"],
        default="configuration",
        help="the plugin's (default), of nics.json, or of the parameters of a ResourceClaim",
    )


def _add_programs(commands: Any) -> None:
    """What units and installers call."""
    agent = _command(
        commands,
        "agent",
        "run the resident agent",
        "cni-netkit agent --socket /run/test/agent.sock",
        "cni-netkit agent --metrics 127.0.0.1:19469",
    )
    agent.add_argument("--socket", help="where to listen (default /run/cni-netkit/agent.sock)")
    agent.add_argument(
        "--metrics",
        metavar="ADDRESS",
        help="where /metrics, /healthz and /readyz are: 127.0.0.1:PORT, [::1]:PORT or the path of "
        "a Unix socket (default: nowhere; docs/observability.md)",
    )
    node = _command(
        commands,
        "node",
        "follow a Kubernetes cluster: this node's list, routes to the others",
        "cni-netkit node",
        "cni-netkit node --health 127.0.0.1:19470",
    )
    node.add_argument(
        "--health",
        metavar="ADDRESS",
        help="where /readyz is, as an address of agent --metrics (default: nowhere)",
    )
    dra = _command(
        commands,
        "dra",
        "publish prepared NICs to Kubernetes, and prepare claims for their queues",
        "cni-netkit dra",
        "cni-netkit dra --metrics 127.0.0.1:19471",
    )
    dra.add_argument(
        "--metrics",
        metavar="ADDRESS",
        help="where /metrics and /readyz are, as an address of agent --metrics (default: nowhere)",
    )
    _command(
        commands,
        "launcher",
        "print the path of the compiled launcher",
        "cni-netkit launcher",
    )
    install = _command(
        commands,
        "install",
        "copy the launcher to where runtimes look for it",
        "cni-netkit install /opt/cni/bin",
    )
    install.add_argument(
        "folder",
        nargs="?",
        default=HOST_BIN_DIR,
        help=f"as a container that installs sees it (default {HOST_BIN_DIR})",
    )


def _add_gc(commands: Any) -> None:
    gc = _shown(
        commands,
        "gc",
        "release what containers that are gone left behind",
        "cni-netkit gc --dry-run",
        "cni-netkit gc",
        "crictl pods -q --no-trunc | cni-netkit gc --network pods --valid - --dry-run",
    )
    gc.add_argument("--dry-run", action="store_true", help="only tell what would be released")
    gc.add_argument("--network", metavar="NAME", help="of this network only (default: of all)")
    gc.add_argument(
        "--valid",
        metavar="FILE",
        help="the ids of the network's containers, one a line (- for standard input): all others "
        "are released, dead or alive",
    )


def _add_conformance(commands: Any) -> None:
    conformance = _command(
        commands,
        "conformance",
        "whether a CNI plugin, any, does what the specification says",
        "cni-netkit conformance --plugin /opt/cni/bin/ptp --conf ptp.conflist",
        "cni-netkit conformance --plugin /opt/cni/bin/netkit --conf 10-netkit.conflist "
        "--junit report.xml",
        "cni-netkit conformance --list",
    )
    conformance.add_argument("--plugin", metavar="FILE", help="the executable")
    conformance.add_argument(
        "--conf",
        metavar="FILE",
        help="its network configuration; of a list the entry of its type, else the first",
    )
    conformance.add_argument(
        "--cni-path", metavar="PATH", help="CNI_PATH (default: the folder that the plugin is in)"
    )
    conformance.add_argument(
        "--setup",
        metavar="COMMAND",
        help="for a shell, run before each row, on its fresh host; what the configuration needs",
    )
    conformance.add_argument(
        "--exclusive",
        action="store_true",
        help="the configuration is for one container at a time, as one that names a device is",
    )
    conformance.add_argument(
        "--row", metavar="NAME", action="append", help="only this one; can be given several times"
    )
    conformance.add_argument(
        "--versions", metavar="LIST", help="only these CNI versions, for example 0.4.0,1.0.0"
    )
    conformance.add_argument("--junit", metavar="FILE", help="write the report as JUnit XML, too")
    conformance.add_argument("--list", action="store_true", help="only tell what is examined")


def _add_lease(commands: Any) -> None:
    lease = commands.add_parser("lease", help="lease queues to a container that is running")
    actions = lease.add_subparsers(required=True, metavar="COMMAND", title="commands")
    add = _shown(
        actions,
        "add",
        "attach a single device with leased queues; its name must be free",
        "cni-netkit lease add 3f2a9c51 --device eth0 --count 2 --workload io_uring",
    )
    remove = _shown(
        actions,
        "remove",
        "release what was added",
        "cni-netkit lease remove 3f2a9c51",
    )
    for each in (add, remove):
        each.add_argument(
            "container",
            help="its id, or the first 8 characters of it or more; or its network namespace, by "
            "path or by its name under /run/netns",
        )
        each.add_argument(
            "--ifname", default="rxq0", help="name of the device in the container (default rxq0)"
        )
    add.add_argument("--device", required=True, help="the NIC")
    add.add_argument("--count", type=usage.number, help="how many queues (default 1)")
    add.add_argument("--queues", help="the pool to choose from, for example 8-15 or 8-11,14")
    add.add_argument("--workload", metavar="io_uring|af_xdp", help="what will use the queues")
    add.add_argument("--flows", metavar="address|none", help="what the NIC brings to the queues")


def _add_nic(commands: Any) -> None:
    nic = commands.add_parser("nic", help="prepare NICs for io_uring or AF_XDP")
    actions = nic.add_subparsers(required=True, metavar="COMMAND", title="commands")
    prepare = _shown(
        actions,
        "prepare",
        "give a NIC a role; this can interrupt its traffic",
        "cni-netkit nic prepare eth1 --role io_uring --queues 8-15 --dry-run",
        "cni-netkit nic prepare eth2 --role af_xdp --queues 8-15",
    )
    prepare.add_argument("--role", required=True, metavar="io_uring|af_xdp", help="what it is for")
    prepare.add_argument(
        "--queues", required=True, help="the pool for containers, for example 8-15 or 8-11,14"
    )
    prepare.add_argument("--channels", type=usage.number, help="how many queues the NIC shall have")
    prepare.add_argument(
        "--ring", type=usage.number, help="length of each receive ring, in descriptors"
    )
    prepare.add_argument(
        "--copy", action="store_true", help="AF_XDP also where the driver can only copy"
    )
    prepare.add_argument("--dry-run", action="store_true", help="only show what would change")
    restore = _shown(
        actions,
        "restore",
        "put back what preparing changed, and only that",
        "cni-netkit nic restore eth1",
    )
    show = _shown(
        actions,
        "show",
        "what NICs are like, and what their role wants",
        "cni-netkit nic show",
        "cni-netkit nic show eth1",
    )
    for each in (prepare, restore):
        each.add_argument("device", help="the NIC")
    show.add_argument("device", nargs="?", help="the NIC (default: all)")


def _command(commands: Any, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(name=made.prog)
    return made


def _shown(commands: Any, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    """A command that prints data."""
    made = _command(commands, name, what, *examples)
    made.add_argument(
        "--json", action="store_true", help="for programs; docs/admin.md has the fields"
    )
    return made


def _examples(examples: tuple[str, ...]) -> str:
    return "\n".join(("examples:", *(f"  {each}" for each in examples), ""))


def _last_words() -> str:
    """Exit statuses, and where to read on."""
    statuses = "\n".join(f"  {status}  {meaning}" for status, meaning in EXIT_STATUS.items())
    return f"\nexit status:\n{statuses}\n\ndocumentation:\n  man {PROGRAM}\n  {documents()}\n"


def documents() -> str:
    """The folder with the documents: of the checkout, or installed with the package."""
    checkout = os.path.normpath(f"{__file__}/../../../docs")
    if os.path.isdir(checkout):
        return checkout
    prefix = sys.prefix
    # install.sh's name for the version in use, whichever that is.
    current = os.path.normpath(f"{prefix}/../../current")
    if os.path.realpath(current) == os.path.realpath(prefix):
        prefix = current
    return f"{prefix}/share/cni-netkit/docs"
