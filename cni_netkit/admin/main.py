"""cni-netkit: the agent, the launcher, and what there is on this node."""

import argparse
import errno
import os
import sys

from cni_netkit import __version__
from cni_netkit.admin import launcher
from cni_netkit.admin.failure import Unreadable
from cni_netkit.kernel.errors import KernelError

SHOWN = {
    "list": "every attachment on this node",
    "leases": "the receive queues of every NIC, and who holds them",
    "doctor": "what this node can do, and what to do about what it cannot",
}


def main() -> int:
    """Parse the command line and carry it out; the exit status."""
    parser = argparse.ArgumentParser(prog="cni-netkit", description=__doc__)
    parser.add_argument("--version", action="version", version=f"cni-netkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    agent = commands.add_parser("agent", help="run the resident agent")
    agent.add_argument("--socket", help="where to listen (default /run/cni-netkit/agent.sock)")
    for name, what in SHOWN.items():
        shown = commands.add_parser(name, help=what)
        shown.add_argument(
            "--json", action="store_true", help="for programs, as docs/admin.md describes it"
        )
        if name == "doctor":
            shown.add_argument("conflist", nargs="?", help="would its netkit plugins work here?")
    commands.add_parser("schema", help="print the JSON Schema of the plugin's configuration")
    commands.add_parser("launcher", help="print the path of the compiled launcher")
    install = commands.add_parser("install", help="copy the launcher to where runtimes look for it")
    install.add_argument(
        "folder",
        nargs="?",
        default=launcher.HOST_BIN_DIR,
        help=f"as a container that installs sees it (default {launcher.HOST_BIN_DIR})",
    )
    arguments = parser.parse_args()
    if arguments.command == "agent":
        return _run_agent(arguments.socket)
    if arguments.command in ("launcher", "install"):
        return launcher.main(arguments.command, getattr(arguments, "folder", ""))
    try:
        status = _show(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read it, such as head(1), has enough; nor is the interpreter's end to complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KernelError, Unreadable) as error:
        said = str(error)
        advice = "; run it as root" if error.errno in (errno.EPERM, errno.EACCES) else ""
    print(f"cni-netkit {arguments.command}: {said}{advice}", file=sys.stderr)
    return 1


def _show(arguments: argparse.Namespace) -> int:
    # Imported when asked for: the agent needs neither tables nor schemas.
    if arguments.command == "schema":
        from cni_netkit.admin import schema

        return schema.main()
    if arguments.command == "doctor":
        from cni_netkit.admin import doctor

        return doctor.main(as_json=arguments.json, conflist=arguments.conflist)
    if arguments.command == "leases":
        from cni_netkit.admin import leases

        return leases.main(as_json=arguments.json)
    from cni_netkit.admin import list as attachments

    return attachments.main(as_json=arguments.json)


def _run_agent(socket: str | None) -> int:
    from cni_netkit.agent import server

    try:
        return server.run(socket or server.SOCKET)
    except server.AgentError as error:
        print(f"cni-netkit agent: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
