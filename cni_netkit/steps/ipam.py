"""Addresses from IPAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cni_netkit.ipam.base import LeftBehind
from cni_netkit.outcome import Outcome
from cni_netkit.spec.errors import CNIError, Code

if TYPE_CHECKING:
    from cni_netkit.context import Context


@dataclass(frozen=True)
class Reservation:
    """The addresses that IPAM reserves for the attachment."""

    name: ClassVar[str] = "reservation"
    ipam: str

    def do(self, context: Context, outcome: Outcome) -> None:
        """Ask IPAM; it must give at least one address."""
        assert context.ipam is not None
        try:
            result = context.ipam.add()
        except LeftBehind:
            raise  # undoing tries once more
        except CNIError:
            outcome.untouched.append(self.name)
            raise
        if not result.ips:
            raise CNIError(
                Code.INVALID_CONFIGURATION,
                f"the IPAM plugin {self.ipam} gave no address to {context.attachment}",
                "leave ipam out of the configuration if no address is wanted",
            )
        outcome.addresses = [
            {key: ip[key] for key in ("address", "gateway") if key in ip} for ip in result.ips
        ]
        outcome.routes = list(result.routes)
        outcome.dns = result.dns

    def undo(self, context: Context, outcome: Outcome) -> None:
        """Give the addresses back."""
        if context.ipam is not None and self.name not in outcome.untouched:
            context.ipam.delete(_known(outcome))

    def check(self, context: Context, outcome: Outcome) -> None:
        """Ask IPAM whether they are still reserved."""
        if context.ipam is not None:
            context.ipam.check(_known(outcome))

    def describe(self) -> str:
        """In words."""
        return f"reserve addresses with {self.ipam}"


def _known(outcome: Outcome) -> list[str]:
    return [each["address"] for each in outcome.addresses]
