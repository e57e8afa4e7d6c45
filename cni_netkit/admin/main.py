"""cni-netkit: the agent, and where the launcher is."""

import argparse
import sys
from pathlib import Path

from cni_netkit import __version__

LAUNCHER = Path(__file__).parent.parent / "agent" / "launcher" / "netkit"


def main() -> int:
    """Parse the command line and carry it out; the exit status."""
    parser = argparse.ArgumentParser(prog="cni-netkit", description=__doc__)
    parser.add_argument("--version", action="version", version=f"cni-netkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    agent = commands.add_parser("agent", help="run the resident agent")
    agent.add_argument("--socket", help="where to listen (default /run/cni-netkit/agent.sock)")
    commands.add_parser("launcher", help="print the path of the compiled launcher")
    arguments = parser.parse_args()
    if arguments.command == "agent":
        return _run_agent(arguments.socket)
    return _print_launcher()


def _run_agent(socket: str | None) -> int:
    from cni_netkit.agent import server

    try:
        return server.run(socket or server.SOCKET)
    except server.AgentError as error:
        print(f"cni-netkit agent: {error}", file=sys.stderr)
        return 1


def _print_launcher() -> int:
    if not LAUNCHER.exists():
        print(
            "cni-netkit launcher: this installation has none, since there was no C compiler when "
            "it was built; the Python entry point netkit does the same, more slowly",
            file=sys.stderr,
        )
        return 1
    print(LAUNCHER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
