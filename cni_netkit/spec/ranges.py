"""Ranges from which host-local gives addresses."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import model_validator
from pydantic.alias_generators import to_camel

from cni_netkit.spec.addresses import Network
from cni_netkit.spec.forms import SUBNET, Address, OptionalAddress
from cni_netkit.spec.model import Shared


class Range(Shared):
    """Part of a subnet from which addresses are given."""

    subnet: Annotated[Network, SUBNET]
    """The subnet; its prefix length is that of the addresses."""

    range_start: OptionalAddress = None
    """The first address to give; without it the second of the subnet."""

    range_end: OptionalAddress = None
    """The last address to give; without it the last of the subnet, before an IPv4 broadcast."""

    gateway: OptionalAddress = None
    """The gateway, which is never given; without it the first address of the subnet."""

    @model_validator(mode="after")
    def _inside(self) -> "Range":
        if self.subnet.prefixlen > self.subnet.max_prefixlen - 2:
            raise ValueError(f"the subnet {self.subnet} is too small to allocate from")
        for name in ("range_start", "range_end"):
            address = getattr(self, name)
            if address is not None and address not in self.subnet:
                raise ValueError(f"{to_camel(name)} {address} is not in {self.subnet}")
        # It may lie outside the subnet, for example be a link-local one.
        if self.router.version != self.subnet.version:
            raise ValueError(f"gateway {self.router} is of another family than {self.subnet}")
        if int(self.first) > int(self.last):
            raise ValueError(f"the range {self.first} to {self.last} runs backwards")
        return self

    @property
    def first(self) -> Address:
        """First address, inclusive."""
        return self.range_start or self._second

    @property
    def last(self) -> Address:
        """Last address, inclusive; without rangeEnd all of the subnet but an IPv4 broadcast."""
        if self.range_end:
            return self.range_end
        end: Address = self.subnet.broadcast_address
        return end - 1 if self.subnet.version == 4 else end

    @property
    def router(self) -> Address:
        """The gateway; the first address of the subnet if none is configured."""
        return self.gateway or self._second

    @property
    def _second(self) -> Address:
        return self.subnet.network_address + 1

    def has(self, address: Address) -> bool:
        """Whether the address can be given from this range."""
        return address.version == self.subnet.version and int(self.first) <= int(address) <= int(
            self.last
        )

    def overlaps(self, other: "Range") -> bool:
        """Whether an address could come from both."""
        return self.subnet.version == other.subnet.version and (
            int(self.first) <= int(other.last) and int(other.first) <= int(self.last)
        )


RangeSet = tuple[Range, ...]


def check_families(sets: tuple[RangeSet, ...]) -> tuple[RangeSet, ...]:
    """Pass range sets on. Raises ValueError where one is empty, or has both IPv4 and IPv6."""
    for number, range_set in enumerate(sets):
        if not range_set:
            raise ValueError(f"range set {number} is empty")
        if len({each.subnet.version for each in range_set}) > 1:
            raise ValueError(f"range set {number} mixes IPv4 and IPv6")
    return sets


def check_disjoint(sets: Sequence[RangeSet]) -> None:
    """Raises ValueError where an address could come from two ranges."""
    every = [(number, each) for number, range_set in enumerate(sets) for each in range_set]
    for position, (number, one) in enumerate(every):
        for other_number, other in every[position + 1 :]:
            if one.overlaps(other):
                raise ValueError(f"range set {number} overlaps with {other_number}")
