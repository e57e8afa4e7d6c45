"""The command cni-netkit: carries out what the command line says; errors become one line each."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cni_netkit.admin import usage
from cni_netkit.admin.failure import Misuse, Unreadable
from cni_netkit.admin.parser import PROGRAM, parser
from cni_netkit.kernel.errors import KernelError
from cni_netkit.spec.errors import CNIError, Code

if TYPE_CHECKING:
    from cni_netkit import pages

Command = Callable[[argparse.Namespace], int]


def main() -> int:
    """Parse the command line and carry it out; the exit status."""
    arguments = parser().parse_args()
    run = COMMANDS[arguments.name.removeprefix(f"{PROGRAM} ")]
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


def _gc(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import gc

    return gc.main(arguments)


def _conformance(arguments: argparse.Namespace) -> int:
    from cni_netkit.conformance import command

    try:
        return command.main(arguments)
    except command.Misuse as error:
        raise Misuse(*error.args) from None


def _launcher(_arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import launcher

    return launcher.main("launcher", "")


def _install(arguments: argparse.Namespace) -> int:
    from cni_netkit.admin import launcher

    return launcher.main("install", arguments.folder)


def _run_agent(arguments: argparse.Namespace) -> int:
    from cni_netkit.agent import server

    metrics = _address("--metrics", arguments.metrics)
    try:
        return server.run(arguments.socket or server.SOCKET, metrics)
    except server.AgentError as error:
        print(f"cni-netkit agent: {error}", file=sys.stderr)
        return 1


def _run_node(arguments: argparse.Namespace) -> int:
    from cni_netkit.node import process

    health = _address("--health", arguments.health)
    try:
        return process.run(health)
    except process.NodeError as error:
        print(f"cni-netkit node: {error}", file=sys.stderr)
        return 1


def _run_dra(arguments: argparse.Namespace) -> int:
    metrics = _address("--metrics", arguments.metrics)
    try:
        from cni_netkit.dra import process
    except ImportError as error:
        print(
            f"cni-netkit dra: {error}: install the package with its extra dra, cni-netkit[dra]",
            file=sys.stderr,
        )
        return 1
    try:
        return process.run(metrics)
    except process.DRAError as error:
        print(f"cni-netkit dra: {error}", file=sys.stderr)
        return 1


def _address(option: str, given: str | None) -> "pages.Address | None":
    if given is None:
        return None
    from cni_netkit import pages

    try:
        return pages.Address.parse(given)
    except pages.AddressError as error:
        raise Misuse(f"{option}: {error}") from None


COMMANDS: Mapping[str, Command] = {
    "agent": _run_agent,
    "node": _run_node,
    "dra": _run_dra,
    "list": _list,
    "leases": _leases,
    "doctor": _doctor,
    "schema": _schema,
    "nic prepare": _nic_prepare,
    "nic restore": _nic_restore,
    "nic show": _nic_show,
    "lease add": _lease_add,
    "lease remove": _lease_remove,
    "gc": _gc,
    "conformance": _conformance,
    "launcher": _launcher,
    "install": _install,
}


if __name__ == "__main__":
    sys.exit(main())
