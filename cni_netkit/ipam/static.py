"""The static IPAM: addresses as configured, or as the request asks (cf. the reference plugin)."""

from collections.abc import Collection, Sequence

from pydantic import field_validator

from cni_netkit.ipam.base import (
    Invocation,
    canonical,
    capability,
    one_per_family,
    requested,
    validate,
)
from cni_netkit.spec.addresses import ip_address, ip_interface
from cni_netkit.spec.config import DNS
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.model import Foreign
from cni_netkit.spec.result import JSON, Result, read_route


class Address(Foreign):
    """An address with its prefix length, and its gateway."""

    address: str
    gateway: str | None = None

    @field_validator("address")
    @classmethod
    def _with_prefix(cls, value: str) -> str:
        if "/" not in value:
            raise ValueError(f"{value!r} has no prefix length, for example /24")
        address, _, prefix = value.partition("/")
        ip_interface(value)
        mapped = canonical(address)
        if str(mapped) != str(ip_address(address)):  # IPv4 in IPv6 clothes
            prefix = str(int(prefix) - 96)
        return str(ip_interface(f"{mapped}/{prefix}"))

    @field_validator("gateway")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        return str(canonical(value)) if value else None


class Config(Foreign):
    """The "ipam" object of type static."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[JSON, ...] = ()
    dns: DNS = DNS()

    @field_validator("routes")
    @classmethod
    def _readable(cls, value: tuple[JSON, ...]) -> tuple[JSON, ...]:
        return tuple(map(read_route, value))


class Static:
    """static for one request; it keeps no state."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._config = validate(Config, invocation.config["ipam"])

    def add(self) -> Result:
        """The addresses of the ips capability, else of args.cni.ips, else configured and IP=."""
        asked = capability(self._invocation, "ips") or requested(self._invocation)
        if asked:
            ips = [_entry(_checked(text), None) for text in asked]
        else:
            ips = [_entry(each.address, each.gateway) for each in self._config.addresses]
            ips += self._of_arguments()
        one_per_family(self._invocation, [ip_interface(ip["address"]).version for ip in ips])
        if not ips:
            raise CNIError(
                Code.NO_ADDRESS,
                f"no address is configured for network {self._invocation.network}",
                "name one in ipam.addresses, or let the runtime pass one",
            )
        return Result(
            ips=tuple(ips),
            routes=self._config.routes,
            dns=self._config.dns.model_dump(exclude_defaults=True, mode="json"),
        )

    def delete(self, known: Sequence[str] = ()) -> None:
        """Nothing was reserved."""

    def check(self, known: Sequence[str] = ()) -> None:
        """Nothing was reserved."""

    def status(self) -> None:
        """Always ready."""

    def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """Nothing was reserved."""

    def _of_arguments(self) -> list[JSON]:
        """IP and GATEWAY of CNI_ARGS; a gateway belongs to the addresses in whose subnet it is."""
        ips = [
            _entry(_checked(text.strip()), None)
            for text in self._invocation.arguments.get("IP", "").split(",")
            if text.strip()
        ]
        for text in filter(None, self._invocation.arguments.get("GATEWAY", "").split(",")):
            try:
                gateway = canonical(text.strip())
            except ValueError:
                raise CNIError(
                    Code.INVALID_ENVIRONMENT, f"CNI_ARGS: GATEWAY {text!r} is no address"
                ) from None
            for entry in ips:
                if gateway in ip_interface(entry["address"]).network:
                    entry["gateway"] = str(gateway)
        return ips


def _entry(address: str, gateway: str | None) -> JSON:
    return {"address": address} | ({"gateway": gateway} if gateway else {})


def _checked(text: object) -> str:
    try:
        return Address.model_validate({"address": text}).address
    except ValueError:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"the requested address {text!r} is not of the form 10.1.0.2/24",
        ) from None
