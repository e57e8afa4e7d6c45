"""The command line of cni-netkit: which commands there are, and what they take.

Needs nothing but the standard library: building the package makes the man page and the shells'
completions from it.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from cni_netkit import __version__

PROGRAM = "cni-netkit"

HOST_BIN_DIR = "/host/opt/cni/bin"
"""Where a container that installs has the host's folder mounted."""


def parser() -> argparse.ArgumentParser:
    """The parser; what it returns has the whole command as `name`, as errors begin with it."""
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="What there is on this node, what it can do, and what can be done about it.",
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = made.add_subparsers(required=True)
    agent = _command(commands, "agent", "run the resident agent")
    agent.add_argument("--socket", help="where to listen (default /run/cni-netkit/agent.sock)")
    _shown(commands, "list", "every attachment on this node")
    _shown(commands, "leases", "the receive queues of every NIC, and who holds them")
    doctor = _shown(
        commands, "doctor", "what this node can do, and what to do about what it cannot"
    )
    doctor.add_argument("conflist", nargs="?", help="would its netkit plugins work here?")
    schema = _command(commands, "schema", "print the JSON Schema of a configuration")
    schema.add_argument(
        "of",
        nargs="?",
        choices=["configuration", "nics"],
        default="configuration",
        help="the plugin's (default), or nics.json",
    )
    _add_nic(commands)
    _add_lease(commands)
    gc = _shown(commands, "gc", "release what containers that are gone left behind")
    gc.add_argument("--dry-run", action="store_true", help="only tell what would be released")
    gc.add_argument("--network", metavar="NAME", help="of this network only (default: of all)")
    gc.add_argument(
        "--valid",
        metavar="FILE",
        help="the ids of the network's containers, one a line (- for standard input): all others "
        "are released, dead or alive",
    )
    _command(commands, "launcher", "print the path of the compiled launcher")
    install = _command(commands, "install", "copy the launcher to where runtimes look for it")
    install.add_argument(
        "folder",
        nargs="?",
        default=HOST_BIN_DIR,
        help=f"as a container that installs sees it (default {HOST_BIN_DIR})",
    )
    return made


def commands_of(given: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of each command that can be carried out, in the order of --help."""
    groups = [each for each in given._actions if isinstance(each, argparse._SubParsersAction)]
    if not groups:
        yield given
    for group in groups:
        for command in group.choices.values():
            yield from commands_of(command)


def _add_lease(commands: Any) -> None:
    lease = commands.add_parser("lease", help="lease queues to a container that is running")
    actions = lease.add_subparsers(required=True)
    add = _shown(
        actions,
        "add",
        "attach a single device with leased queues; its name must be free",
    )
    remove = _shown(actions, "remove", "release what was added")
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
    add.add_argument("--count", type=int, help="how many queues (default 1)")
    add.add_argument("--queues", help="the pool to choose from, for example 8-15 or 8-11,14")
    add.add_argument("--workload", metavar="io_uring|af_xdp", help="what will use the queues")
    add.add_argument("--flows", metavar="address|none", help="what the NIC brings to the queues")


def _add_nic(commands: Any) -> None:
    nic = commands.add_parser("nic", help="prepare NICs for io_uring or AF_XDP")
    actions = nic.add_subparsers(required=True)
    prepare = _shown(actions, "prepare", "give a NIC a role; this can interrupt its traffic")
    prepare.add_argument("--role", required=True, metavar="io_uring|af_xdp", help="what it is for")
    prepare.add_argument(
        "--queues", required=True, help="the pool for containers, for example 8-15 or 8-11,14"
    )
    prepare.add_argument("--channels", type=int, help="how many queues the NIC shall have")
    prepare.add_argument("--ring", type=int, help="length of each receive ring, in descriptors")
    prepare.add_argument(
        "--copy", action="store_true", help="AF_XDP also where the driver can only copy"
    )
    prepare.add_argument("--dry-run", action="store_true", help="only show what would change")
    restore = _shown(actions, "restore", "put back what preparing changed, and only that")
    show = _shown(actions, "show", "what NICs are like, and what their role wants")
    for each in (prepare, restore):
        each.add_argument("device", help="the NIC")
    show.add_argument("device", nargs="?", help="the NIC (default: all)")


def _command(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    made.set_defaults(name=made.prog)
    return made


def _shown(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    """A command that prints data."""
    made = _command(commands, name, what)
    made.add_argument(
        "--json", action="store_true", help="for programs, as docs/admin.md describes it"
    )
    return made
