"""What every IPAM can do, and what it is told."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from cni_netkit.spec import version as versions
from cni_netkit.spec.addresses import ip_address
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.model import Foreign, fold_keys
from cni_netkit.spec.result import Result

Address = IPv4Address | IPv6Address
Model = TypeVar("Model", bound=Foreign)


@dataclass(frozen=True)
class Invocation:
    """The request as far as it concerns IPAM. `config` is raw: the whole network configuration.

    `ifname` is the device's name in the container, `environment` the plugin's own.
    """

    config: Mapping[str, Any]
    version: str
    network: str
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    path: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class LeftBehind(CNIError):
    """Addresses could not be reserved, and some that had been could not be given back."""


class Ipam(Protocol):
    """One IPAM for one request. All methods raise `CNIError`."""

    def add(self) -> Result:
        """Reserve addresses for the attachment."""

    def delete(self, known: Sequence[str] = ()) -> None:
        """Release them; having none is no error. `known` are those that `add` gave, if recorded."""

    def check(self, known: Sequence[str] = ()) -> None:
        """Verify that they are still reserved."""

    def status(self) -> None:
        """Verify that addresses could be reserved, as far as the set-up goes."""

    def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """Release what belongs to none of the `valid` (container id, interface name)."""


def canonical(text: object) -> Address:
    """Read an address; an IPv4 one in IPv6 clothes becomes IPv4. Raises ValueError."""
    address = ip_address(str(text))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def requested(invocation: Invocation) -> list[str]:
    """Addresses that the request asks for: args.cni.ips, then the ips capability."""
    found: list[str] = []
    arguments = invocation.config.get("args")
    cni = arguments.get("cni") if isinstance(arguments, dict) else None
    if isinstance(cni, dict):
        found += _listed("args.cni.ips", cni.get("ips"))
    return found + capability(invocation, "ips")


def capability(invocation: Invocation, name: str) -> list[Any]:
    """A list from runtimeConfig, its key matched without regard to case."""
    runtime = invocation.config.get("runtimeConfig")
    for key, value in runtime.items() if isinstance(runtime, dict) else ():
        if key.lower() == name.lower():
            return _listed(f"runtimeConfig.{name}", value)
    return []


def _listed(path: str, value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise CNIError(Code.INVALID_CONFIGURATION, f"{path}: {value!r} is no list")
    return value


def one_per_family(invocation: Invocation, families: Sequence[int]) -> None:
    """Raises error 7 where the version of the request cannot tell of so many addresses."""
    if len(set(families)) < len(families) and not versions.at_least(invocation.version, "0.3.0"):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"ipam: CNI version {invocation.version} has no more than one address of a family",
            "configure fewer, or raise cniVersion to 0.3.0 or later",
        )


def validate(model: type[Model], ipam: Mapping[str, Any]) -> Model:
    """Check an "ipam" object. Raises error 7 naming every fault with its path."""
    try:
        return model.model_validate(fold_keys(model, ipam))
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            path = ".".join(["ipam", *map(str, fault["loc"])])
            faults.append(f"{path}: {fault['msg'].removeprefix('Value error, ')}")
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"the network configuration is not valid: {'; '.join(faults)}",
        ) from None
