"""cni-netkit: the agent, and the launcher."""

import argparse
import sys

from cni_netkit import __version__
from cni_netkit.admin import launcher


def main() -> int:
    """Parse the command line and carry it out; the exit status."""
    parser = argparse.ArgumentParser(prog="cni-netkit", description=__doc__)
    parser.add_argument("--version", action="version", version=f"cni-netkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    agent = commands.add_parser("agent", help="run the resident agent")
    agent.add_argument("--socket", help="where to listen (default /run/cni-netkit/agent.sock)")
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
    return launcher.main(arguments.command, getattr(arguments, "folder", ""))


def _run_agent(socket: str | None) -> int:
    from cni_netkit.agent import server

    try:
        return server.run(socket or server.SOCKET)
    except server.AgentError as error:
        print(f"cni-netkit agent: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
