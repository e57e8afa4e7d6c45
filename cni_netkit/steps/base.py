"""The form of a step, and what steps have in common."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Protocol

from cni_netkit.attachment import bears
from cni_netkit.kernel.errors import KernelError
from cni_netkit.spec.errors import CNIError, Code

if TYPE_CHECKING:
    from cni_netkit.context import Context
    from cni_netkit.kernel.model import Link
    from cni_netkit.kernel.namespace import Namespace
    from cni_netkit.outcome import Outcome


def ours(namespace: Namespace, alias: str, name: str, index: int) -> Link | None:
    """The device that bears our alias: by index where that is known, by name else."""
    found = namespace.links.get(index=index) if index else namespace.links.get(name=name)
    return found if found is not None and bears(found.alias, alias) else None


def existing(namespace: Namespace, name: str, where: str) -> Link:
    """The device of that name, for CHECK. Raises error 105 where there is none; `where` says so."""
    found = namespace.links.get(name=name)
    if found is None:
        raise difference(where, "a device", None)
    return found


class Step(Protocol):
    """One thing that an attachment is made of.

    `do` raises `CNIError` and may leave things half done; `undo` takes back whatever is there, and
    finding nothing is success; `check` raises error 105 with the first difference.
    """

    name: ClassVar[str]

    def do(self, context: Context, outcome: Outcome) -> None:
        """Make it."""

    def undo(self, context: Context, outcome: Outcome) -> None:
        """Take it back."""

    def check(self, context: Context, outcome: Outcome) -> None:
        """Compare it with what the kernel says."""

    def describe(self) -> str:
        """Say in a few words what it makes."""


def difference(what: str, expected: object, found: object) -> CNIError:
    """Error 105: what differs, expected and found."""
    return CNIError(
        Code.CHECK_DIFFERENCE, f"{what}: expected {_words(expected)}, found {_words(found)}"
    )


@contextmanager
def undoing_on_nic() -> Iterator[None]:
    """What was made of a NIC that goes meanwhile goes with it: that is undone."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise


@contextmanager
def checking_nic(name: str) -> Iterator[None]:
    """A NIC that goes meanwhile is one that is not there: error 105."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        raise difference(f"NIC {name}", "a device", None) from None


def missing_nic(name: str) -> CNIError:
    """Error 102: no such NIC."""
    return CNIError(
        Code.UNUSABLE_NIC,
        f"lease.device: there is no device {name} on the host",
        "ip link shows the devices there are",
    )


def _words(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(sorted(map(str, value))) or "none"
    return str(value)
