"""The static IPAM: addresses as configured, or as the request asks (cf. the reference plugin)."""

from collections.abc import Collection
from ipaddress import ip_interface, ip_network

from pydantic import field_validator

from cni_netkit.ipam.base import Context, believe, canonical, requested
from cni_netkit.spec.config import DNS, Foreign
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.result import JSON, Result


class Address(Foreign):
    """An address with its prefix length, and its gateway."""

    address: str
    gateway: str | None = None

    @field_validator("address")
    @classmethod
    def _with_prefix(cls, value: str) -> str:
        if "/" not in value:
            raise ValueError(f"{value!r} has no prefix length, for example /24")
        ip_interface(value)
        return value

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
    def _destinations(cls, value: tuple[JSON, ...]) -> tuple[JSON, ...]:
        for route in value:
            ip_network(route.get("dst", ""), strict=False)
        return value


class Static:
    """static for one request; it keeps no state."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = believe(Config, context)

    def add(self) -> Result:
        """The addresses of args.cni.ips or the ips capability, else the configured ones and IP=."""
        ips = [_entry(each.address, each.gateway) for each in self._config.addresses]
        if asked := requested(self._context):
            ips = [_entry(_checked(text), None) for text in asked]
        else:
            ips += [
                _entry(_checked(text.strip()), None)
                for text in self._context.arguments.get("IP", "").split(",")
                if text.strip()
            ]
        self._apply_gateways(ips)
        if not ips:
            raise CNIError(
                Code.NO_ADDRESS,
                f"no address is configured for network {self._context.network}",
                "name one in ipam.addresses, or let the runtime pass one",
            )
        return Result(
            ips=tuple(ips),
            routes=self._config.routes,
            dns=self._config.dns.model_dump(exclude_defaults=True, mode="json"),
        )

    def delete(self) -> None:
        """Nothing was reserved."""

    def check(self) -> None:
        """Nothing was reserved."""

    def status(self) -> None:
        """Always ready."""

    def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """Nothing was reserved."""

    def _apply_gateways(self, ips: list[JSON]) -> None:
        for text in filter(None, self._context.arguments.get("GATEWAY", "").split(",")):
            try:
                gateway = canonical(text.strip())
            except ValueError:
                raise CNIError(
                    Code.INVALID_ENVIRONMENT, f"CNI_ARGS: GATEWAY {text!r} is no address"
                ) from None
            for entry in ips:
                if gateway in ip_interface(entry["address"]).network:
                    entry["gateway"] = str(gateway)


def _entry(address: str, gateway: str | None) -> JSON:
    return {"address": address} | ({"gateway": gateway} if gateway else {})


def _checked(text: str) -> str:
    try:
        return Address(address=text).address
    except ValueError:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"the requested address {text!r} is not of the form 10.1.0.2/24",
        ) from None
