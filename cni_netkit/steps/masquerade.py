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
    """The rules that give packets leaving the node its address; `chain` is the attachment's own.

    `excluded` are ranges that the network does not masquerade towards; None where the chain is from
    a release that knew none.
    """

    name: ClassVar[str] = "masquerade"
    chain: str
    comment: str
    excluded: tuple[str, ...] | None

    def do(self, context: Context, outcome: Outcome) -> None:
        """Add the rules."""
        addresses = _addresses(outcome)
        network = context.attachment.network
        try:
            context.host.masquerading.add(
                self.chain, self.comment, addresses, network, self.excluded or ()
            )
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
        network = context.attachment.network
        context.host.masquerading.remove(self.chain, _addresses(outcome), network)

    def check(self, context: Context, outcome: Outcome) -> None:
        """One rule an address, each address sent to them, and each with the exceptions.

        Not what those are: that is the newest configuration's affair, not this one's.
        """
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
        if self.excluded is None:
            return
        excepting = context.host.masquerading.excepting(self.chain, context.attachment.network)
        if excepting != len(addresses):
            raise difference(
                f"masquerade rules in chain {self.chain} of nftables table cni-netkit that look "
                "the network's nonMasqueradeCIDRs up",
                len(addresses),
                excepting,
            )

    def describe(self) -> str:
        """In words."""
        return "masquerade what leaves the node"


def _addresses(outcome: Outcome) -> list[str]:
    return [each["address"] for each in outcome.addresses]
