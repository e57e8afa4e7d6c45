"""The form of a step, and what doing it brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from cni_netkit.attachment import bears
from cni_netkit.spec.addresses import ip_interface
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.result import JSON

if TYPE_CHECKING:
    from cni_netkit.context import Context
    from cni_netkit.kernel.model import Link
    from cni_netkit.kernel.namespace import Namespace


@dataclass
class Outcome:
    """What the steps of an attachment brought so far; kept in its record.

    `addresses` are {"address", "gateway"?}, `routes` and `dns` as the specification has them,
    `leases` pairs of the NIC's queue and the device's. An index is 0 until there is a device.
    `flow_context` is the RSS context that the flow rules lead into, 0 for none, and
    `foreign_contexts` those that were there before, None until rules are about to be made.
    `untouched` names steps that failed before they made anything: what is found there in their
    name is not theirs, and not theirs to take back.
    """

    addresses: list[JSON] = field(default_factory=list)
    routes: list[JSON] = field(default_factory=list)
    dns: JSON = field(default_factory=dict)
    host_index: int = 0
    host_mac: str = ""
    container_index: int = 0
    container_mac: str = ""
    container_nsid: int | None = None
    leases: list[list[int]] = field(default_factory=list)
    ifb_index: int = 0
    flow_context: int = 0
    foreign_contexts: list[int] | None = None
    untouched: list[str] = field(default_factory=list)

    def has_version(self, version: int) -> bool:
        """Whether there is an address of that IP version."""
        return any(ip_interface(each["address"]).version == version for each in self.addresses)

    def as_dict(self) -> JSON:
        """For the record."""
        return dict(vars(self))


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
