"""The "ipam" objects of the types that are built in, as the reference plugins read them.

What a plugin that is executed makes of its own is none of our business.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from cni_netkit.spec import faults
from cni_netkit.spec.addresses import Network
from cni_netkit.spec.forms import OLD_SUBNET, OptionalAddress
from cni_netkit.spec.model import PATH, Shared
from cni_netkit.spec.ranges import Range, RangeSet, check_disjoint, check_families
from cni_netkit.spec.routes import Route

DATA_DIR = "/var/lib/cni/networks"


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

    data_dir: Annotated[str, PATH] = Field(DATA_DIR)
    """Folder for the addresses that are taken, in a folder of the network's name."""

    resolv_conf: Annotated[str, PATH] = ""
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


Conf = TypeVar("Conf", bound=BaseModel)

BUILT_IN = ("host-local", "static")
"""ipam.type of those that are not executed."""


def model_of(kind: str) -> type[BaseModel]:
    """The model of a type that is built in."""
    if kind == "host-local":
        return HostLocalConf
    from cni_netkit.spec.static import StaticConf  # few have it, and every call would pay

    return StaticConf


def find_faults(ipam: object) -> Iterator[faults.Fault]:
    """What is wrong with the "ipam" of a configuration, as far as it is ours to say."""
    kind = ipam.get("type") if isinstance(ipam, Mapping) else None
    if kind not in BUILT_IN:
        return
    model = model_of(kind)
    try:
        _read(json.dumps(ipam), model)
    except ValidationError as error:
        yield from faults.read(error, model, "ipam")


@lru_cache(16)
def host_local(ipam: str, ip_ranges: str) -> tuple[HostLocalConf, tuple[RangeSet, ...]]:
    """The object, and all range sets: first those of the capability ipRanges; both as JSON.

    Raises error 2 or 7 with every fault.
    """
    conf = believed(ipam, HostLocalConf)
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


def believed(ipam: str, model: type[Conf]) -> Conf:
    """The object, which is given as JSON. Raises error 2 or 7 with every fault."""
    try:
        return _read(ipam, model)  # type: ignore[return-value]
    except ValidationError as error:
        raise faults.refusal([*faults.read(error, model, "ipam")]) from None


@lru_cache(16)
def _read(ipam: str, model: type[BaseModel]) -> BaseModel:
    """A node has few, and an agent is asked over and over."""
    return model.model_validate(json.loads(ipam))
