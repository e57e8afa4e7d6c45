"""Masquerading of what leaves the node."""

from dataclasses import dataclass
from typing import ClassVar

from cni_netkit.steps.base import Outcome, World, difference


@dataclass(frozen=True)
class Masquerade:
    """The rules that give packets leaving the node its address; `chain` is the attachment's own."""

    name: ClassVar[str] = "masquerade"
    chain: str
    comment: str

    def do(self, world: World, outcome: Outcome) -> None:
        """Add the rules."""
        world.host.masquerade(self.chain, self.comment, _addresses(outcome))

    def undo(self, world: World, outcome: Outcome) -> None:
        """Remove them."""
        world.host.unmasquerade(self.chain, _addresses(outcome))

    def check(self, world: World, outcome: Outcome) -> None:
        """One rule an address, and each address sent to them."""
        addresses = _addresses(outcome)
        rules, reached = world.host.masqueraded(self.chain, addresses)
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
