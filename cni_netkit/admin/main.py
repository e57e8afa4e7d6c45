"""cni-netkit: the agent, the launcher, what there is on this node, NICs, and leases at run time."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from cni_netkit import __version__
from cni_netkit.admin import launcher, usage
from cni_netkit.admin.failure import Misuse, Unreadable
from cni_netkit.kernel.errors import KernelError
from cni_netkit.spec.errors import CNIError, Code

Command = Callable[[argparse.Namespace], int]


def main() -> int:
    """Parse the command line and carry it out; the exit status."""
    arguments = _parser().parse_args()
    run: Command = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read it, such as head(1), has enough; nor is the interpreter's end to complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Misuse as error:
        usage.complain(arguments.name, *error.args)
    except CNIError as error:
        if error.code == Code.INTERNAL:
            raise  # a report of the fault needs the traceback
        said = "; ".join(filter(None, (error.message, error.details)))
        said, advice = f"error {int(error.code)}: {said}", ""
    except (KernelError, Unreadable) as error:
        said = str(error)
        advice = "; run it as root" if error.errno in (errno.EPERM, errno.EACCES) else ""
    print(f"{arguments.name}: {said}{advice}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = usage.Parser(prog="cni-netkit", description=__doc__)
    parser.add_argument("--version", action="version", version=f"cni-netkit {__version__}")
    commands = parser.add_subparsers(required=True)
    agent = _command(commands, "agent", _run_agent, "run the resident agent")
    agent.add_argument("--socket", help="where to listen (default /run/cni-netkit/agent.sock)")
    listed = _shown(commands, "list", _list, "every attachment on this node")
    listed.add_argument(
        "--wide",
        action="store_true",
        help="all columns, and whole ids, in lines as long as it takes",
    )
    _shown(commands, "leases", _leases, "the receive queues of every NIC, and who holds them")
    doctor = _shown(
        commands, "doctor", _doctor, "what this node can do, and what to do about what it cannot"
    )
    doctor.add_argument("conflist", nargs="?", help="would its netkit plugins work here?")
    schema = _command(commands, "schema", _schema, "print the JSON Schema of a configuration")
    schema.add_argument(
        "of",
        nargs="?",
        choices=["configuration", "nics"],
        default="configuration",
        help="the plugin's (default), or nics.json",
    )
    _add_nic(commands)
    _add_lease(commands)
    _command(commands, "launcher", _launcher, "print the path of the compiled launcher")
    install = _command(
        commands, "install", _install, "copy the launcher to where runtimes look for it"
    )
    install.add_argument(
        "folder",
        nargs="?",
        default=launcher.HOST_BIN_DIR,
        help=f"as a container that installs sees it (default {launcher.HOST_BIN_DIR})",
    )
    return parser


def _add_lease(commands: Any) -> None:
    lease = commands.add_parser("lease", help="lease queues to a container that is running")
    actions = lease.add_subparsers(required=True)
    add = _shown(
        actions,
        "add",
        _lease_add,
        "attach a single device with leased queues; its name must be free",
    )
    remove = _shown(actions, "remove", _lease_remove, "release what was added")
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
    actions = nic.add_subparsers(required=True)
    prepare = _shown(
        actions, "prepare", _nic_prepare, "give a NIC a role; this can interrupt its traffic"
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
        actions, "restore", _nic_restore, "put back what preparing changed, and only that"
    )
    show = _shown(actions, "show", _nic_show, "what NICs are like, and what their role wants")
    for each in (prepare, restore):
        each.add_argument("device", help="the NIC")
    show.add_argument("device", nargs="?", help="the NIC (default: all)")


def _command(commands: Any, name: str, run: Command, what: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    made.set_defaults(run=run, name=made.prog)
    return made


def _shown(commands: Any, name: str, run: Command, what: str) -> argparse.ArgumentParser:
    """A command that prints data."""
    made = _command(commands, name, run, what)
    made.add_argument(
        "--json", action="store_true", help="for programs, as docs/admin.md describes it"
    )
    return made


# Imported when asked for: the agent needs neither tables nor schemas.


def _list(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import list as attachments

    return attachments.main(as_json=arguments.json, wide=arguments.wide)


def _leases(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import leases

    return leases.main(as_json=arguments.json)


def _doctor(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import doctor

    return doctor.main(as_json=arguments.json, conflist=arguments.conflist)


def _schema(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import schema

    return schema.main(arguments.of)


def _nic_prepare(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import nic

    return nic.main(nic.prepare, arguments)


def _nic_restore(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import nic

    return nic.main(nic.restore, arguments)


def _nic_show(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import nic

    return nic.main(nic.show, arguments)


def _lease_add(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import lease

    return lease.main(lease.add, arguments)


def _lease_remove(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import lease

    return lease.main(lease.remove, arguments)


def _launcher(_arguments: argparse.Namespace) -> int:
    return launcher.main("launcher", "")


def _install(arguments: argparse.Namespace) -> int:
    return launcher.main("install", arguments.folder)


def _run_agent(arguments: argparse.Namespace) -> int:
    from cni_netkit.agent import server

    try:
        return server.run(arguments.socket or server.SOCKET)
    except server.AgentError as error:
        print(f"cni-netkit agent: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
