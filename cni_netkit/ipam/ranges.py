"""The configuration of host-local: sets of ranges from which addresses are given."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from cni_netkit.ipam.base import Address, canonical
from cni_netkit.spec.addresses import ip_address, ip_network
from cni_netkit.spec.model import Foreign, fold_keys
from cni_netkit.spec.result import JSON, read_route

DATA_DIR = "/var/lib/cni/networks"


class Range(Foreign):
    """Part of a subnet from which addresses are given."""

    subnet: Any
    range_start: Any = None
    range_end: Any = None
    gateway: Any = None

    @model_validator(mode="before")
    @classmethod
    def _any_case(cls, given: object) -> object:
        return fold_keys(cls, given) if isinstance(given, dict) else given

    @field_validator("subnet")
    @classmethod
    def _network(cls, value: object) -> IPv4Network | IPv6Network:
        if not isinstance(value, str) or "/" not in value:
            raise ValueError(f"{value!r} is not of the form 10.1.0.0/16")
        network = ip_network(value)
        if str(network.network_address) != str(ip_address(value.partition("/")[0])):
            raise ValueError(f"{value} has host bits set, the subnet is {network}")
        if getattr(network.network_address, "ipv4_mapped", None):
            raise ValueError(f"{value} is an IPv4 subnet, write it as one")
        return network

    @field_validator("range_start", "range_end", "gateway")
    @classmethod
    def _address(cls, value: object) -> Address | None:
        return canonical(value) if value not in (None, "") else None

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
            return self.range_end  # type: ignore[no-any-return]
        end: Address = self.subnet.broadcast_address
        return end - 1 if self.subnet.version == 4 else end

    @property
    def router(self) -> Address:
        """The gateway; the first address of the subnet if none is configured."""
        return self.gateway or self._second

    @property
    def _second(self) -> Address:
        return self.subnet.network_address + 1  # type: ignore[no-any-return]

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


class Config(Foreign):
    """The "ipam" object of type host-local."""

    ranges: tuple[tuple[Range, ...], ...] = ()
    ip_ranges: tuple[tuple[Range, ...], ...] = ()
    subnet: Any = None
    range_start: Any = None
    range_end: Any = None
    gateway: Any = None
    routes: tuple[JSON, ...] = ()
    data_dir: str = Field(DATA_DIR)
    resolv_conf: str = ""

    @field_validator("routes")
    @classmethod
    def _readable(cls, value: tuple[JSON, ...]) -> tuple[JSON, ...]:
        return tuple(map(read_route, value))

    @field_validator("ranges", "ip_ranges")
    @classmethod
    def _not_empty(cls, value: tuple[tuple[Range, ...], ...]) -> tuple[tuple[Range, ...], ...]:
        for number, range_set in enumerate(value):
            if not range_set:
                raise ValueError(f"range set {number} is empty")
            if len({each.subnet.version for each in range_set}) > 1:
                raise ValueError(f"range set {number} mixes IPv4 and IPv6")
        return value

    @model_validator(mode="after")
    def _disjoint(self) -> "Config":
        every = [(number, each) for number, range_set in enumerate(self.sets) for each in range_set]
        if not every:
            raise ValueError("no IP ranges are specified: name a subnet or ranges")
        for position, (number, one) in enumerate(every):
            for other_number, other in every[position + 1 :]:
                if one.overlaps(other):
                    raise ValueError(f"range set {number} overlaps with {other_number}")
        return self

    @property
    def sets(self) -> tuple[tuple[Range, ...], ...]:
        """Every range set: the runtime's, then a single range in the old style, then the others."""
        single = ((self._single(),),) if self.subnet else ()
        return self.ip_ranges + single + self.ranges

    def _single(self) -> Range:
        names = ("subnet", "range_start", "range_end", "gateway")
        return Range.model_validate({to_camel(name): getattr(self, name) for name in names})
