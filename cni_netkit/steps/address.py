"""Addresses and routes, in the container and on the host."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import RT_TABLE_MAIN, Route
from cni_netkit.outcome import Outcome
from cni_netkit.spec.addresses import ip_address, ip_interface, ip_network
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.result import JSON
from cni_netkit.steps import collision
from cni_netkit.steps.base import difference, existing

if TYPE_CHECKING:
    from cni_netkit.context import Context


@dataclass(frozen=True)
class ContainerAddresses:
    """The addresses on the container's device, and the routes through it.

    `neighbours`: the device resolves neighbours (l2, veth). Then only the gateway is one, as with
    ptp: every other address of the subnet is reached through it. An l3 device sends what it is
    given to the host, there is nobody to ask.
    """

    name: ClassVar[str] = "container-addresses"
    device: str
    neighbours: bool

    def do(self, context: Context, outcome: Outcome) -> None:
        """Give the device its addresses and routes."""
        if outcome.has_version(6):
            _enable_ipv6(context, self.device)
        context.inside.links.configure(
            outcome.container_index,
            self.device,
            up=True,
            addresses=[
                (each["address"], not self._through_gateway(each)) for each in outcome.addresses
            ],
            routes=self._routes(outcome),
        )

    def undo(self, context: Context, outcome: Outcome) -> None:
        """They go with the device."""

    def check(self, context: Context, outcome: Outcome) -> None:
        """Every address and every route must be there; others may."""
        where = f"device {self.device} in the container"
        link = existing(context.inside, self.device, where)
        found = context.inside.links.addresses(link.index)
        for each in outcome.addresses:
            if str(ip_interface(each["address"])) not in found:
                raise difference(f"address of {where}", each["address"], found)
        routes = {_key(route) for route in context.inside.links.routes(link.index)}
        # A later plugin may have moved ours to a table of its own, as sbr does.
        routes |= {(destination, gateway, RT_TABLE_MAIN) for destination, gateway, _ in routes}
        for route in self._routes(outcome):
            if _key(route) not in routes:
                destinations = {str(ip_network(key[0])) for key in routes}
                raise difference(
                    f"route in the container through {self.device}", route, destinations
                )

    def describe(self) -> str:
        """In words."""
        return f"give addresses and routes to {self.device}"

    def _through_gateway(self, address: JSON) -> bool:
        return self.neighbours and "gateway" in address

    def _routes(self, outcome: Outcome) -> list[Route]:
        routes = []
        for each in outcome.addresses:
            interface = ip_interface(each["address"])
            if not self._through_gateway(each):
                continue
            source, gateway = str(interface.ip), each["gateway"]
            routes.append(Route(_host_network(gateway), source=source))
            if interface.network.num_addresses > 1:
                routes.append(Route(str(interface.network), gateway=gateway, source=source))
        return routes + [self._route(entry, outcome) for entry in outcome.routes]

    def _route(self, entry: JSON, outcome: Outcome) -> Route:
        network = ip_network(entry["dst"])
        gateway: str | None = entry.get("gw") or next(
            (
                each["gateway"]
                for each in outcome.addresses
                if "gateway" in each and ip_address(each["gateway"]).version == network.version
            ),
            None,
        )
        known = [ip_interface(each["address"]).network for each in outcome.addresses]
        return Route(
            str(network),
            gateway=gateway,
            # A gateway outside every subnet is on the link all the same: it is the host.
            onlink=gateway is not None and not any(ip_address(gateway) in each for each in known),
            mtu=entry.get("mtu"),
            advmss=entry.get("advmss"),
            priority=entry.get("priority"),
            table=entry.get("table") or RT_TABLE_MAIN,
            scope=entry.get("scope"),
        )


@dataclass(frozen=True)
class HostRoutes:
    """The gateway's addresses on the host's end, and a route to each address of the container."""

    name: ClassVar[str] = "host-routes"
    device: str

    def do(self, context: Context, outcome: Outcome) -> None:
        """Let the host forward, answer as the gateway, and find the container."""
        if outcome.has_version(4):
            context.host.set({"ipv4/ip_forward": "1"})
        if outcome.has_version(6):
            context.host.set({"ipv6/conf/all/forwarding": "1"})
        try:
            context.host.links.configure(
                outcome.host_index,
                self.device,
                up=True,
                # It would open the host's services to the container where nobody speaks IPv6, and
                # each is three more routes for the kernel to walk when the next device comes up.
                link_local=outcome.has_version(6),
                addresses=[(address, True) for address in self._gateways(outcome)],
                routes=self._routes(outcome),
                exclusive=True,
            )
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            raise self._taken(context, outcome, error) from None

    def undo(self, context: Context, outcome: Outcome) -> None:
        """They go with the device. Forwarding stays enabled: others may rely on it by now."""

    def check(self, context: Context, outcome: Outcome) -> None:
        """The gateway's addresses are there, and each container address is routed to the device."""
        where = f"device {self.device} on the host"
        link = existing(context.host, self.device, where)
        found = context.host.links.addresses(link.index)
        for address in self._gateways(outcome):
            if address not in found:
                raise difference(f"address of {where}", address, found)
        for route in self._routes(outcome):
            entry = context.host.links.route_towards(route.destination)
            if entry is None or entry[1] != link.index or _key(entry[0])[0] != _key(route)[0]:
                through = context.host.links.get(index=entry[1]) if entry and entry[1] else None
                text = f"{entry[0]} through {through.name}" if entry and through else None
                raise difference(
                    "route on the host", f"{route.destination} through {self.device}", text
                )

    def describe(self) -> str:
        """In words."""
        return f"route to the container through {self.device}"

    def _taken(self, context: Context, outcome: Outcome, refusal: KernelError) -> CNIError:
        """Which of the addresses the host has a route to already, and through which device."""
        links = context.host.links
        first, *_ = routes = self._routes(outcome)
        for route in routes:
            found = links.route_towards(route.destination)
            index = found[1] if found and _key(found[0])[0] == _key(route)[0] else None
            if index and index != outcome.host_index:
                device = links.get(index=index)
                return collision.by_device(context, refusal, _address(route), device)
        return collision.by_device(context, refusal, _address(first), None)

    def _gateways(self, outcome: Outcome) -> list[str]:
        gateways = (each["gateway"] for each in outcome.addresses if "gateway" in each)
        return list(dict.fromkeys(map(_host_network, gateways)))

    def _routes(self, outcome: Outcome) -> list[Route]:
        return [
            Route(_host_network(str(ip_interface(each["address"]).ip)))
            for each in outcome.addresses
        ]


def _enable_ipv6(context: Context, device: str) -> None:
    """As the reference plugins do after IPAM: a container image may have switched IPv6 off."""
    own = f"ipv6/conf/{device}"
    context.inside.set(
        {
            "ipv6/conf/lo/disable_ipv6": "0",
            f"{own}/disable_ipv6": "0",
            f"{own}/keep_addr_on_down": "1",
        },
        optional=True,
    )


def _host_network(address: str) -> str:
    return str(ip_interface(address))


def _address(host_route: Route) -> str:
    return str(ip_interface(host_route.destination).ip)


def _key(route: Route) -> tuple[str, str | None, int]:
    """What makes two routes the same: where to, through whom, in which table."""
    gateway = str(ip_address(route.gateway)) if route.gateway else None
    return str(ip_network(route.destination)), gateway, route.table
