"""Masquerading of what leaves the node."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cni_netkit.kernel.errors import KernelError
from cni_netkit.outcome import Outcome
from cni_netkit.steps import collision
from cni_netkit.steps.base import difference

if TYPE_CHECKING:
    from cni_netkit.context import Context


@dataclass(frozen=True)
class Masquerade:
    """The rules that give packets leaving the node its address; `chain` is the attachment's own."""

    name: ClassVar[str] = "masquerade"
    chain: str
    comment: str

    def do(self, context: Context, outcome: Outcome) -> None:
        """Add the rules."""
        addresses = _addresses(outcome)
        try:
            context.host.masquerading.add(self.chain, self.comment, addresses)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            owners = context.host.masquerading.owners(addresses)
            if not owners:
                raise
            (address, alias), *_ = owners.items()
            raise collision.by_alias(context, error, address, alias) from None

    def undo(self, context: Context, outcome: Outcome) -> None:
        """Remove them."""
        context.host.masquerading.remove(self.chain, _addresses(outcome))

    def check(self, context: Context, outcome: Outcome) -> None:
        """One rule an address, and each address sent to them."""
        addresses = _addresses(outcome)
        rules, reached = context.host.masquerading.found(self.chain, addresses)
        if rules != len(addresses):
            raise difference(
                f"masquerade rules in chain {self.chain} of nftables table cni-netkit",
                len(addresses),
                rules,
            )
        if reached != addresses:
            raise difference(
                f"addresses that nftables table cni-netkit sends to chain {self.chain}",
                addresses,
                reached,
            )

    def describe(self) -> str:
        """In words."""
        return "masquerade what leaves the node"


def _addresses(outcome: Outcome) -> list[str]:
    return [each["address"] for each in outcome.addresses]
