"""Results in all seven versions (specification section 5, "Success").

Inside the plugin there is one form, that of 1.1.0; `render` and `read` convert at the edges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from typing import Any

from cni_netkit.spec import version as versions
from cni_netkit.spec.errors import CNIError, Code

ONLY_SINCE_1_1 = ("mtu", "socketPath", "pciID")
ROUTE_FIELDS_SINCE_1_1 = ("mtu", "advmss", "priority", "table", "scope")

JSON = dict[str, Any]


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
    routes: Sequence[JSON] = result.routes
    if not versions.at_least(version, "1.1.0"):
        interfaces = [_without(ONLY_SINCE_1_1, interface) for interface in interfaces]
        routes = [_without(ROUTE_FIELDS_SINCE_1_1, route) for route in routes]
    if not versions.at_least(version, "1.0.0"):
        ips = [{"version": str(ip_interface(ip["address"]).version), **ip} for ip in ips]
    return _compact(
        {
            "cniVersion": version,
            **result.extensions,
            "interfaces": list(interfaces),
            "ips": list(ips),
            "routes": list(routes),
            "dns": result.dns,
        }
    )


def read(raw: Mapping[str, Any], version: str) -> Result:
    """Read a result of another plugin (prevResult, IPAM) in `version` or in the one it names.

    Keys match without regard to case where Go would. Raises error 6 for what is no result.
    """
    try:
        version = versions.negotiate(raw.get("cniVersion") or version)
        if not versions.at_least(version, "0.3.0"):
            return _read_0_2(raw)
        return Result(
            interfaces=tuple(dict(item) for item in raw.get("interfaces") or ()),
            ips=tuple(_ip(item) for item in raw.get("ips") or ()),
            routes=tuple(_route(item) for item in raw.get("routes") or ()),
            dns=_compact(dict(raw.get("dns") or {})),
            extensions={
                key: value
                for key, value in raw.items()
                if "/" in key  # a vendor's, passed on
            },
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CNIError(
            Code.UNDECODABLE, f"the previous result cannot be read: {error}", f"it is {dict(raw)!r}"
        ) from None


def _ip(raw: Mapping[str, Any]) -> JSON:
    ip_interface(raw["address"])
    interface = raw.get("interface")
    if interface is not None and (isinstance(interface, bool) or not isinstance(interface, int)):
        raise ValueError(f"interface {interface!r} is no index")
    return _compact({key: value for key, value in raw.items() if key != "version"})


def _route(raw: Mapping[str, Any]) -> JSON:
    ip_network(raw["dst"], strict=False)
    return _compact(dict(raw))


def _render_0_2(result: Result, version: str) -> JSON:
    by_family: JSON = {}
    for ip in result.ips:
        family = f"ip{ip_interface(ip['address']).version}"
        if family in by_family:
            continue
        routes = [
            _compact({"dst": route["dst"], "gw": route.get("gw")})
            for route in result.routes
            if f"ip{ip_network(route['dst'], strict=False).version}" == family
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


def _read_0_2(raw: Mapping[str, Any]) -> Result:
    ips: list[JSON] = []
    routes: list[JSON] = []
    for family in ("ip4", "ip6"):
        if entry := raw.get(family):
            ips.append(_ip({"address": entry["ip"], "gateway": entry.get("gateway")}))
            routes += [_route(route) for route in entry.get("routes") or ()]
    return Result(ips=tuple(ips), routes=tuple(routes), dns=_compact(dict(raw.get("dns") or {})))


def _without(names: Sequence[str], item: JSON) -> JSON:
    return {key: value for key, value in item.items() if key not in names}


def _compact(item: JSON) -> JSON:
    return {key: value for key, value in item.items() if value not in (None, "", [], (), {})}
