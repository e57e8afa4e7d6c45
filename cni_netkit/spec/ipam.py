"""The "ipam" objects of the types that are built in, as the reference plugins read them.

What a plugin that is executed makes of its own is none of our business.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from cni_netkit.spec import faults
from cni_netkit.spec.addresses import Interface, Network
from cni_netkit.spec.dns import DNS
from cni_netkit.spec.forms import DESTINATION, INTERFACE, OLD_SUBNET, OptionalAddress
from cni_netkit.spec.model import Shared
from cni_netkit.spec.ranges import Range, RangeSet, check_disjoint, check_families
from cni_netkit.spec.result import JSON, U32

DATA_DIR = "/var/lib/cni/networks"

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
