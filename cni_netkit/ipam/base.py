"""What every IPAM can do, and what it is told."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cni_netkit.spec import version as versions
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.result import Result
from cni_netkit.spec.words import found


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


def requested(invocation: Invocation) -> list[str]:
    """Addresses that the request asks for: args.cni.ips, then the ips capability."""
    asked: list[str] = []
    arguments = invocation.config.get("args")
    cni = arguments.get("cni") if isinstance(arguments, dict) else None
    if isinstance(cni, dict):
        asked += _strings("args.cni.ips", cni.get("ips"))
    return asked + capability_ips(invocation)


def capability_ips(invocation: Invocation) -> list[str]:
    """The capability ips: addresses to ask for."""
    return _strings("runtimeConfig.ips", _capability(invocation, "ips"))


def capability_ranges(invocation: Invocation) -> list[Any]:
    """The capability ipRanges: range sets, which nobody has looked at yet."""
    ranges = _capability(invocation, "ipRanges")
    return _listed("runtimeConfig.ipRanges", ranges, "lists of objects")


def _capability(invocation: Invocation, name: str) -> object:
    """What runtimeConfig has under a key, which is matched without regard to case."""
    runtime = invocation.config.get("runtimeConfig")
    for key, value in runtime.items() if isinstance(runtime, dict) else ():
        if key.lower() == name.lower():
            return value
    return None


def _strings(path: str, value: object) -> list[str]:
    listed = _listed(path, value, "strings")
    for number, each in enumerate(listed):
        if not isinstance(each, str):
            raise CNIError(
                Code.INVALID_CONFIGURATION,
                f"{path}.{number}: must be a string (found {found(each)})",
            )
    return listed


def _listed(path: str, value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise CNIError(
            Code.INVALID_CONFIGURATION, f"{path}: must be a list of {what} (found {found(value)})"
        )
    return value


def one_per_family(invocation: Invocation, families: Sequence[int]) -> None:
    """Raises error 7 where the version of the request cannot tell of so many addresses."""
    if len(set(families)) < len(families) and not versions.at_least(invocation.version, "0.3.0"):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"ipam: CNI version {invocation.version} has no more than one address of a family",
            "configure fewer, or raise cniVersion to 0.3.0 or later",
        )
