"""What preparing a NIC changes: its settings, and what it is prepared for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni_netkit.nics.settings import words
from cni_netkit.spec.lease import ranges

if TYPE_CHECKING:
    from cni_netkit.nics.settings import Setting
    from cni_netkit.spec.nics import Preparation


@dataclass(frozen=True)
class Change:
    """One setting, from what to what."""

    setting: Setting
    found: Any
    wanted: Any

    @property
    def key(self) -> str:
        """The setting's name in records and reports."""
        return self.setting.key

    def __str__(self) -> str:
        found, wanted = (words(self.setting, value) for value in (self.found, self.wanted))
        if self.found == self.wanted:
            found, wanted = f"{found}, perhaps as the driver's default", f"{wanted}, explicitly"
        return f"{self.setting.name}: {found} -> {wanted}"


@dataclass(frozen=True)
class Assignment:
    """A part of what a NIC is prepared for, from what to what; None is nothing.

    It stands in the NIC's record, and no setting of the NIC need follow from it.
    """

    key: str
    name: str
    found: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.name}: {_said(self.found)} -> {_said(self.wanted)}"


def assignments(before: Preparation | None, after: Preparation | None) -> list[Assignment]:
    """What a NIC is prepared for by now and was not before, or no longer is."""
    parts = (
        Assignment("role", "role", before and before.role, after and after.role),
        Assignment("queues", "pool for containers", *map(_pool, (before, after))),
        Assignment("copy", "copying", *(bool(each and each.copies) for each in (before, after))),
    )
    return [each for each in parts if each.found != each.wanted]


def _pool(preparation: Preparation | None) -> list[int] | None:
    return [*preparation.queues] if preparation else None


def _said(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return f"queues {ranges(value)}"
    return str(value)
