"""Routes of one routing protocol, the number by which the owner of a route is told (rtm_protocol).

Follows include/uapi/linux/rtnetlink.h; net/ipv4/fib_trie.c, fib_table_insert() and
fib_table_delete(); net/ipv6/ip6_fib.c, fib6_add_rt2node(); net/ipv6/route.c, ip6_route_del().
"""

import errno
import socket as sockets
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cni_netkit.kernel import uapi
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import RT_TABLE_MAIN, NetworkRoute
from cni_netkit.kernel.netlink.message import RTMSG, Attributes, attribute, attributes, ip, u32
from cni_netkit.kernel.netlink.socket import BATCH, Ask, NetlinkSocket
from cni_netkit.kernel.uapi import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RT_SCOPE_UNIVERSE,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTN_UNREACHABLE,
)
from cni_netkit.spec.addresses import ip_network

FAMILIES = {4: sockets.AF_INET, 6: sockets.AF_INET6}
ANYTHING: dict[int, str] = {sockets.AF_INET: "0.0.0.0", sockets.AF_INET6: "::"}  # noqa: S104
RTNEXTHOP = struct.Struct("=HBBi")

METRIC = {4: 0, 6: 1024}
"""As ip-route(8) has it unless told otherwise: so a route that somebody else made is met."""

LAST = 1 << 31
"""Metric of unreachable routes: any other route to the same network goes first."""


T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A route of the protocol. `route` is None for one that is never wanted, such as one to a link.

    `deletion` is what deletes it and no other.
    """

    destination: str
    metric: int
    route: NetworkRoute | None
    deletion: bytes


class ProtocolRoutes:
    """Those of the main table that bear the protocol's number; no others are touched."""

    def __init__(self, socket: NetlinkSocket, protocol: int) -> None:
        self._socket = socket
        self._protocol = protocol

    def all(self) -> list[NetworkRoute]:
        """The routes of the protocol."""
        return [each.route for each in self._found() if each.route]

    def keep(self, wanted: Collection[NetworkRoute]) -> dict[NetworkRoute, KernelError]:
        """Have these routes and no others of the protocol; returns those that the kernel refused.

        It refuses (EEXIST) a route to a network to which there is one of the same metric, whoever
        made it, and one through a gateway that is on no link. Where the gateway of a route changes,
        the new route is there before the old one goes. Raises `KernelError` where it lists or
        deletes none.
        """
        found = list(self._found())
        there = {each.route for each in found}
        kept = {_place(route) for route in wanted if route in there}
        changing = {(each.destination, each.metric) for each in found} - kept
        requests = []
        for route in wanted:
            if route in there:
                continue
            # Beside one of ours it may stand, to replace it; else there must be none.
            flags = NLM_F_APPEND if _place(route) in changing else NLM_F_EXCL
            changing.discard(_place(route))
            requests.append(
                (
                    route,
                    Ask(
                        f"add the route {route}",
                        self._message(route),
                        RTM_NEWROUTE,
                        NLM_F_CREATE | flags,
                    ),
                )
            )
        refused = self._carry_out(requests)
        asked = set(wanted)
        self._delete([each for each in found if each.route not in asked])
        return refused

    def _delete(self, stale: Sequence[Found]) -> None:
        requests = [
            (each, Ask(f"delete the route to {each.destination}", each.deletion, RTM_DELROUTE))
            for each in stale
        ]
        for error in self._carry_out(requests).values():
            if error.errno != errno.ESRCH:
                raise error

    def _carry_out(self, requests: Sequence[tuple[T, Ask]]) -> dict[T, KernelError]:
        """Which of the requests were refused, by what they are for."""
        refused: dict[T, KernelError] = {}
        for start in range(0, len(requests), BATCH):
            some = requests[start : start + BATCH]
            refusals = self._socket.refusals(*(ask for _, ask in some))
            refused |= {some[place][0]: error for place, error in refusals.items()}
        return refused

    def _found(self) -> Iterator[Found]:
        for family in FAMILIES.values():
            request = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, self._protocol, 0, 0, 0)
            # There is no table before there is a route.
            for answer in self._socket.dump(
                "list the routes", request, RTM_GETROUTE, tolerated={errno.ENOENT}
            ):
                yield from self._read(family, answer)

    def _read(self, family: int, answer: bytes) -> Iterator[Found]:
        """What a route is; of one of IPv6 with several next hops each, since each is one route."""
        header = RTMSG.unpack_from(answer)
        found, length, _, _, _, protocol, _, kind, _ = header
        if (found, protocol) != (family, self._protocol):
            return
        told = Attributes(answer[RTMSG.size :])
        destination = f"{_address(family, told.raw(uapi.RTA_DST)) or ANYTHING[family]}/{length}"
        metric = told.number(uapi.RTA_PRIORITY) or 0
        # As it was told, but for the state of its next hop.
        whole = RTMSG.pack(*header[:-1], 0) + answer[RTMSG.size :]
        hops = told.raw(uapi.RTA_MULTIPATH)
        if hops is not None and family == sockets.AF_INET6:
            rest = b"".join(
                attribute(number, value)
                for number, value in attributes(answer[RTMSG.size :])
                if number != uapi.RTA_MULTIPATH
            )
            for hop in _gateways(hops):
                route = NetworkRoute(destination, _address(family, hop))
                deletion = whole[: RTMSG.size] + rest + attribute(uapi.RTA_GATEWAY, hop)
                yield Found(destination, metric, route, deletion)
            return
        gateway = _address(family, told.raw(uapi.RTA_GATEWAY))
        route = NetworkRoute(destination, gateway)
        is_ours = kind == (RTN_UNREACHABLE if gateway is None else RTN_UNICAST)
        is_ours = is_ours and hops is None and _place(route) == (destination, metric)
        yield Found(destination, metric, route if is_ours else None, whole)

    def _message(self, route: NetworkRoute) -> bytes:
        network = ip_network(route.destination)
        _, metric = _place(route)
        header = RTMSG.pack(
            FAMILIES[network.version],
            network.prefixlen,
            0,  # of the source
            0,  # type of service
            RT_TABLE_MAIN,
            self._protocol,
            RT_SCOPE_UNIVERSE,
            RTN_UNREACHABLE if route.gateway is None else RTN_UNICAST,
            0,
        )
        return b"".join(
            (
                header,
                attribute(uapi.RTA_DST, network.network_address.packed),
                ip(uapi.RTA_GATEWAY, route.gateway) if route.gateway else b"",
                u32(uapi.RTA_PRIORITY, metric) if metric else b"",
            )
        )


def _place(route: NetworkRoute) -> tuple[str, int]:
    """Network and metric, of which the kernel has one route, unless it is told otherwise."""
    version = 6 if ":" in route.destination else 4
    return route.destination, LAST if route.gateway is None else METRIC[version]


def _address(family: int, value: bytes | None) -> str | None:
    return None if value is None else sockets.inet_ntop(family, value)


def _gateways(hops: bytes) -> Iterator[bytes]:
    """Those of several next hops (struct rtnexthop, each with its attributes)."""
    while len(hops) >= RTNEXTHOP.size:
        length, *_ = RTNEXTHOP.unpack_from(hops)
        if gateway := Attributes(hops[RTNEXTHOP.size : length]).raw(uapi.RTA_GATEWAY):
            yield gateway
        hops = hops[max((length + 3) & ~3, RTNEXTHOP.size) :]
