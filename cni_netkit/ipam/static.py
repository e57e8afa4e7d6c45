"""The static IPAM: addresses as configured, or as the request asks (cf. the reference plugin)."""

import json
from collections.abc import Collection, Sequence

from pydantic import ValidationError

from cni_netkit.ipam.base import Invocation, capability_ips, one_per_family, requested
from cni_netkit.spec.addresses import ip_interface
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.forms import canonical
from cni_netkit.spec.ipam import believed
from cni_netkit.spec.result import JSON, Result
from cni_netkit.spec.static import StaticAddress, StaticConf
from cni_netkit.spec.words import shown


class Static:
    """static for one request; it keeps no state."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._config = believed(json.dumps(invocation.config["ipam"]), StaticConf)

    def add(self) -> Result:
        """The addresses of the ips capability, else of args.cni.ips, else configured and IP=."""
        asked = capability_ips(self._invocation) or requested(self._invocation)
        if asked:
            ips = [_entry(_checked(text)) for text in asked]
        else:
            ips = [
                _entry(str(each.address), str(each.gateway or ""))
                for each in self._config.addresses
            ]
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
            routes=tuple(route.as_json() for route in self._config.routes),
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
            _entry(_checked(text.strip()))
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


def _entry(address: str, gateway: str = "") -> JSON:
    return {"address": address} | ({"gateway": gateway} if gateway else {})


def _checked(text: object) -> str:
    try:
        return str(StaticAddress.model_validate({"address": text}).address)
    except ValidationError:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"the requested address {shown(text)} is not of the form 10.1.0.2/24",
        ) from None
