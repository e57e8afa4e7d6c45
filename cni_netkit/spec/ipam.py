"""The "ipam" objects of the types that are built in, as the reference plugins read them.

What a plugin that is executed makes of its own is none of our business.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from cni_netkit.spec import faults
from cni_netkit.spec.addresses import Interface, Network, ip_address, ip_interface, ip_network
from cni_netkit.spec.dns import DNS
from cni_netkit.spec.model import Form, Shared
from cni_netkit.spec.result import JSON

Address = IPv4Address | IPv6Address
Parsed = TypeVar("Parsed")

DATA_DIR = "/var/lib/cni/networks"
U32 = 2**32 - 1


def canonical(text: object) -> Address:
    """Read an address; an IPv4 one in IPv6 clothes becomes IPv4. Raises ValueError."""
    address = ip_address(str(text))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _parsed(parse: Callable[[str], Parsed], value: object, needs: str = "") -> Parsed:
    """Raises ValueError without a text: what the value must be says enough."""
    if not isinstance(value, str) or needs not in value:
        raise ValueError
    try:
        return parse(value)
    except ValueError:
        raise ValueError from None


def _network(value: object) -> Network:
    return _parsed(ip_network, value, "/")


def _subnet(value: object) -> Network:
    network = _network(value)
    if str(network.network_address) != str(ip_address(str(value).partition("/")[0])):
        raise ValueError(f"has host bits set, the subnet is {network}")
    if getattr(network.network_address, "ipv4_mapped", None):
        raise ValueError("is an IPv4 subnet, write it as one")
    return network


def _address(value: object) -> Address | None:
    """An empty one is none, as in Go."""
    return None if value == "" else _parsed(canonical, value)


def _interface(value: object) -> Interface:
    return _parsed(_canonical_interface, value, "/")


def _canonical_interface(text: str) -> Interface:
    address, _, prefix = text.partition("/")
    ip_interface(text)
    mapped = canonical(address)
    if str(mapped) != str(ip_address(address)):  # IPv4 in IPv6 clothes
        prefix = str(int(prefix) - 96)
    return ip_interface(f"{mapped}/{prefix}")


def _destination(value: object) -> str:
    _network(value)
    return str(value)


TEXT = {"type": "string"}
ANY_ADDRESS = Form("an IP address, for example 10.1.0.1", _address, TEXT, reads=True)
SUBNET = Form("a subnet of the form 10.1.0.0/16", _subnet, TEXT, reads=True)
OLD_SUBNET = Form(
    SUBNET.words, lambda value: None if value == "" else _subnet(value), TEXT, reads=True
)
INTERFACE = Form(
    "an address with its prefix length, of the form 10.1.0.2/24", _interface, TEXT, reads=True
)
DESTINATION = Form("a destination of the form 10.1.0.0/16", _destination, TEXT, reads=True)
OptionalAddress = Annotated[Address | None, ANY_ADDRESS]
Number = Annotated[int, Field(strict=True, ge=0, le=U32)]


class Route(Shared):
    """A route in the container, as results have it (specification section 5)."""

    dst: Annotated[str, DESTINATION]
    """Where to."""

    gw: OptionalAddress = None
    """Through whom. Without it the gateway of the addresses of the same IP version."""

    mtu: Number | None = None
    """Packets of this size at most, in bytes."""

    advmss: Number | None = None
    """Maximum segment size to tell TCP's other end, in bytes."""

    priority: Number | None = None
    """The lower goes first."""

    table: Number | None = None
    """Routing table; `main` (254) without it."""

    scope: Annotated[int, Field(strict=True, ge=0, le=255)] | None = None
    """`rt_scope` of ip-route(8) as a number. Without it `link` (253) where there is no gateway,
    else `global` (0).
    """

    def as_json(self) -> JSON:
        """As a result has it."""
        return self.model_dump(mode="json", exclude_none=True)


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


class HostLocalConf(Shared):
    """The "ipam" object of type host-local."""

    type: str = "host-local"
    """`host-local`."""

    name: str = ""
    """Of no meaning: files are named by the network. The reference plugin reads it."""

    ranges: tuple[RangeSet, ...] = ()
    """A list of range sets. The container gets one address of each set."""

    subnet: Annotated[Network | None, OLD_SUBNET] = None
    """A single range in the old style, before `ranges`, with the three keys that follow."""

    range_start: OptionalAddress = None
    """As in a range."""

    range_end: OptionalAddress = None
    """As in a range."""

    gateway: OptionalAddress = None
    """As in a range."""

    routes: tuple[Route, ...] = ()
    """Routes in the container."""

    data_dir: str = Field(DATA_DIR)
    """Folder for the addresses that are taken, in a folder of the network's name."""

    resolv_conf: str = ""
    """A resolv.conf(5) to take the result's `dns` from."""

    @field_validator("ranges")
    @classmethod
    def _of_one_family(cls, value: tuple[RangeSet, ...]) -> tuple[RangeSet, ...]:
        return check_families(value)

    @model_validator(mode="after")
    def _disjoint(self) -> "HostLocalConf":
        check_disjoint(self.sets)
        return self

    @property
    def sets(self) -> tuple[RangeSet, ...]:
        """Every range set: first a single range in the old style."""
        return (((self._single(),),) if self.subnet else ()) + self.ranges

    def _single(self) -> Range:
        names = ("subnet", "range_start", "range_end", "gateway")
        given = {to_camel(name): getattr(self, name) for name in names}
        return Range.model_validate({key: str(each) for key, each in given.items() if each})


class StaticAddress(Shared):
    """An address with its prefix length, and its gateway."""

    address: Annotated[Interface, INTERFACE]
    """The address."""

    gateway: OptionalAddress = None
    """The gateway."""

    version: str = ""
    """Of no meaning: the address tells it. The reference plugin reads it."""


class StaticDNS(Shared, DNS):
    """Of the result; `dns` beside `ipam` overrides it."""

    model_config = ConfigDict(extra="forbid")


class StaticConf(Shared):
    """The "ipam" object of type static."""

    type: str = "static"
    """`static`."""

    name: str = ""
    """Of no meaning; the reference plugin reads it."""

    addresses: tuple[StaticAddress, ...] = ()
    """The container's addresses, unless the request asks for others."""

    routes: tuple[Route, ...] = ()
    """Routes in the container."""

    dns: StaticDNS = StaticDNS()
    """Name servers for the result."""


Conf = TypeVar("Conf", bound=BaseModel)

BUILT_IN: dict[str, type[BaseModel]] = {
    "host-local": HostLocalConf,
    "static": StaticConf,
}
"""By ipam.type."""


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


def find_faults(ipam: object) -> Iterator[faults.Fault]:
    """What is wrong with the "ipam" of a configuration, as far as it is ours to say."""
    model = BUILT_IN.get(str(ipam.get("type"))) if isinstance(ipam, Mapping) else None
    if model is None:
        return
    try:
        _read(json.dumps(ipam), model)
    except ValidationError as error:
        yield from faults.read(error, model, "ipam")


@lru_cache(16)
def host_local(ipam: str, ip_ranges: str) -> tuple[HostLocalConf, tuple[RangeSet, ...]]:
    """The object, and all range sets: first those of the capability ipRanges; both as JSON.

    Raises error 2 or 7 with every fault.
    """
    conf = _believed(ipam, HostLocalConf)
    sets = _capability(json.loads(ip_ranges)) + conf.sets
    try:
        if not sets:
            raise ValueError("no IP ranges are specified: name a subnet or ranges")
        check_disjoint(sets)
    except ValueError as error:
        raise faults.refusal([faults.Fault("ipam", str(error))]) from None
    return conf, sets


def _capability(ip_ranges: list[object]) -> tuple[RangeSet, ...]:
    if not ip_ranges:
        return ()
    from cni_netkit.spec.ip_ranges import IPRanges  # few runtimes pass any

    try:
        return IPRanges.model_validate({"ipRanges": ip_ranges}).ip_ranges
    except ValidationError as error:
        raise faults.refusal([*faults.read(error, IPRanges, "runtimeConfig")]) from None


def static(ipam: str) -> StaticConf:
    """The object, which is given as JSON. Raises error 2 or 7 with every fault."""
    return _believed(ipam, StaticConf)


def _believed(ipam: str, model: type[Conf]) -> Conf:
    try:
        return _read(ipam, model)  # type: ignore[return-value]
    except ValidationError as error:
        raise faults.refusal([*faults.read(error, model, "ipam")]) from None


@lru_cache(16)
def _read(ipam: str, model: type[BaseModel]) -> BaseModel:
    """A node has few, and an agent is asked over and over."""
    return model.model_validate(json.loads(ipam))
