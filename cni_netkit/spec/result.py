"""Results in all seven versions (specification section 5, "Success").

Inside the plugin there is one form, that of 1.1.0; `render` and `read` convert at the edges.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cni_netkit.spec import version as versions
from cni_netkit.spec.addresses import ip_address, ip_interface, ip_network
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.words import found, shown

INTERFACE_FIELDS_SINCE_1_0 = ("mtu", "socketPath", "pciID")
"""What containernetworking's conversions leave out below 1.0.0; of a route they keep everything."""

RESULT_KEYS = ("cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6")
INTERFACE_KEYS = ("name", "mac", "mtu", "sandbox", "socketPath", "pciID")
IP_KEYS = ("address", "gateway", "interface", "version", "ip", "routes")
ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
ROUTE_KEYS = ("dst", "gw", *ROUTE_NUMBERS)

JSON = dict[str, Any]
U32 = 2**32 - 1


@dataclass(frozen=True)
class Result:
    """A result: JSON objects as the specification 1.1.0 has them.

    `extensions` are top-level keys of our own, which consumers of the specification pass over.
    """

    interfaces: tuple[JSON, ...] = ()
    ips: tuple[JSON, ...] = ()
    routes: tuple[JSON, ...] = ()
    dns: JSON = field(default_factory=dict)
    extensions: JSON = field(default_factory=dict)

    @property
    def container_addresses(self) -> tuple[str, ...]:
        """The IP addresses, without prefix lengths, that are not the host's."""
        inside = [number for number, each in enumerate(self.interfaces) if each.get("sandbox")]
        return tuple(
            str(ip_interface(ip["address"]).ip)
            for ip in self.ips
            if ip.get("interface") is None or ip["interface"] in inside
        )

    def followed_by(self, other: "Result") -> "Result":
        """Append `other`, as a chain wants it: nothing of this result is changed."""
        offset = len(self.interfaces)
        moved = tuple(
            ip | ({"interface": ip["interface"] + offset} if "interface" in ip else {})
            for ip in other.ips
        )
        return replace(
            self,
            interfaces=self.interfaces + other.interfaces,
            ips=self.ips + moved,
            routes=self.routes + other.routes,
            dns=other.dns or self.dns,
            extensions=self.extensions | other.extensions,
        )


def render(result: Result, version: str) -> JSON:
    """The result as JSON in `version`.

    Before 0.3.0 a result is one address per family; without an address there is no such result,
    which raises error 1.
    """
    if not versions.at_least(version, "0.3.0"):
        return _render_0_2(result, version)
    interfaces: Sequence[JSON] = result.interfaces
    ips: Sequence[JSON] = result.ips
    if not versions.at_least(version, "1.0.0"):
        interfaces = [_without(INTERFACE_FIELDS_SINCE_1_0, each) for each in interfaces]
        ips = [{"version": str(ip_interface(ip["address"]).version), **ip} for ip in ips]
    told = {
        "interfaces": list(interfaces),
        "ips": list(ips),
        "routes": list(result.routes),
        "dns": result.dns,
    }
    return {"cniVersion": version, **result.extensions, **_compact(told)}


def read(raw: Mapping[str, Any], version: str) -> Result:
    """Read a result of another plugin (prevResult, IPAM) in `version` or in the one it names.

    Keys match without regard to case where Go would. Raises error 6 for what is no result.
    """
    try:
        raw = fold(raw, RESULT_KEYS)
        version = versions.negotiate(raw.get("cniVersion") or version)
        if not versions.at_least(version, "0.3.0"):
            return _read_0_2(raw)
        return Result(
            interfaces=tuple(fold(item, INTERFACE_KEYS) for item in _listed(raw, "interfaces")),
            ips=tuple(map(_ip, _listed(raw, "ips"))),
            routes=tuple(map(read_route, _listed(raw, "routes"))),
            dns=_dns(raw),
            extensions={
                key: value
                for key, value in raw.items()
                if "/" in key  # a vendor's, passed on
            },
        )
    except ValueError as error:
        raise CNIError(
            Code.UNDECODABLE,
            f"the previous result cannot be read: {error}",
            f"it is {json.dumps(raw)}",
        ) from None


def read_route(raw: object) -> JSON:
    """Read a route object. Raises ValueError where it is none."""
    route = _compact(fold(raw, ROUTE_KEYS))
    destination = _text(route, "dst", "route")
    if "/" not in destination:
        raise ValueError(f"dst of a route is not of the form 10.1.0.0/16 (found {destination})")
    ip_network(destination)
    if "gw" in route:
        ip_address(_text(route, "gw", "route"))
    for name in ROUTE_NUMBERS:
        value = route.get(name, 0)
        if type(value) is not int or not 0 <= value <= U32:
            raise ValueError(f"{name} of a route must be a whole number (found {found(value)})")
    return route


def _text(item: JSON, key: str, what: str) -> str:
    if key not in item:
        raise ValueError(f"a {what} has no {key}; it is {shown(item)}")
    if not isinstance(item[key], str):
        raise ValueError(f"{key} of a {what} must be a string (found {found(item[key])})")
    return str(item[key])


def _listed(raw: JSON, key: str) -> list[Any]:
    value = raw.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list (found {found(value)})")
    return value


def _dns(raw: JSON) -> JSON:
    return _compact(fold(raw.get("dns") or {}, ()))


def fold(raw: object, names: Sequence[str]) -> JSON:
    """Give keys the case of `names`, as Go's JSON decoder does; an exact match wins."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{found(raw)} is no object")
    known = {name.lower(): name for name in names}
    folded: JSON = {known.get(str(key).lower(), str(key)): value for key, value in raw.items()}
    return folded | {key: value for key, value in raw.items() if key in names}


def _ip(item: object) -> JSON:
    raw = fold(item, IP_KEYS)
    ip_interface(_text(raw, "address", "entry of ips"))
    interface = raw.get("interface")
    if interface is not None and (isinstance(interface, bool) or not isinstance(interface, int)):
        raise ValueError(f"interface of an address is no index (found {found(interface)})")
    return _compact({key: value for key, value in raw.items() if key != "version"})


def _render_0_2(result: Result, version: str) -> JSON:
    by_family: JSON = {}
    for ip in result.ips:
        family = f"ip{ip_interface(ip['address']).version}"
        if family in by_family:
            continue
        routes = [
            _compact({"dst": route["dst"], "gw": route.get("gw")})
            for route in result.routes
            if f"ip{ip_network(route['dst']).version}" == family
        ]
        by_family[family] = _compact(
            {"ip": ip["address"], "gateway": ip.get("gateway"), "routes": routes}
        )
    if not by_family:
        raise CNIError(
            Code.INCOMPATIBLE_VERSION,
            f"a result in CNI version {version} is an IP address, and there is none",
            "configure ipam, or raise cniVersion to 0.3.0 or later",
        )
    return _compact({"cniVersion": version, **by_family, "dns": result.dns})


def _read_0_2(raw: JSON) -> Result:
    ips: list[JSON] = []
    routes: list[JSON] = []
    for family in ("ip4", "ip6"):
        if entry := fold(raw.get(family) or {}, IP_KEYS):
            address = _text(entry, "ip", family)
            ips.append(_ip({"address": address, "gateway": entry.get("gateway")}))
            routes += map(read_route, _listed(entry, "routes"))
    return Result(ips=tuple(ips), routes=tuple(routes), dns=_dns(raw))


def _without(names: Sequence[str], item: JSON) -> JSON:
    return {key: value for key, value in item.items() if key not in names}


def _compact(item: JSON) -> JSON:
    return {key: value for key, value in item.items() if value not in (None, "", [], (), {})}
