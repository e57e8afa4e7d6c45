"""Addresses and routes (rtnetlink; Documentation/netlink/specs/rt-addr.yaml, rt-route.yaml)."""

import errno
import socket as sockets

from cni_netkit.kernel import uapi
from cni_netkit.kernel.model import Route
from cni_netkit.kernel.netlink.message import IFADDRMSG, RTMSG, Attributes, attribute, ip, u32
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import (
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTM_F_FIB_MATCH,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RTPROT_BOOT,
)
from cni_netkit.spec.addresses import ip_interface, ip_network

FAMILIES = {4: sockets.AF_INET, 6: sockets.AF_INET6}
ANYWHERE = ("1.0.0.1", "2000::1")
"""Some address out there, to ask the kernel where it would send it."""

UNREACHABLE = (
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ESRCH,
    errno.EINVAL,  # a route of type blackhole
    errno.EACCES,  # prohibit
)


def add_address(index: int, device: str, address: str, *, prefix_route: bool = True) -> Ask:
    """Request: give `address` ("10.1.0.2/24") to a device, usable at once (IFA_F_NODAD)."""
    interface = ip_interface(address)
    flags = 0 if prefix_route else IFA_F_NOPREFIXROUTE
    if interface.version == 6:
        flags |= IFA_F_NODAD
    packed = interface.ip.packed
    message = b"".join(
        (
            IFADDRMSG.pack(FAMILIES[interface.version], interface.network.prefixlen, 0, 0, index),
            attribute(uapi.IFA_LOCAL, packed),
            attribute(uapi.IFA_ADDRESS, packed),
            u32(uapi.IFA_FLAGS, flags),
        )
    )
    asked = f"give the address {address} to the device {device}"
    return Ask(asked, message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL)


def add(index: int, device: str, route: Route, *, exclusive: bool) -> Ask:
    """Request: add a route; `exclusive`: there must be none to that destination yet."""
    network = ip_network(route.destination)
    attributes = [u32(uapi.RTA_OIF, index), u32(uapi.RTA_TABLE, route.table)]
    if network.prefixlen:
        attributes.append(attribute(uapi.RTA_DST, network.network_address.packed))
    if route.gateway:
        attributes.append(ip(uapi.RTA_GATEWAY, route.gateway))
    if route.source:
        attributes.append(ip(uapi.RTA_PREFSRC, route.source))
    if route.priority:
        attributes.append(u32(uapi.RTA_PRIORITY, route.priority))
    metrics = b"".join(
        u32(kind, value)
        for kind, value in ((uapi.RTAX_MTU, route.mtu), (uapi.RTAX_ADVMSS, route.advmss))
        if value
    )
    if metrics:
        attributes.append(attribute(uapi.RTA_METRICS, metrics))
    header = RTMSG.pack(
        FAMILIES[network.version],
        network.prefixlen,
        0,  # of the source
        0,  # type of service
        route.table if route.table < 256 else 0,
        RTPROT_BOOT,
        _scope(route),
        RTN_UNICAST,
        RTNH_F_ONLINK if route.gateway and route.onlink else 0,
    )
    asked = f"add the route {route} through the device {device}"
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
    return Ask(asked, header + b"".join(attributes), RTM_NEWROUTE, flags)


def addresses(socket: NetlinkSocket, index: int) -> list[str]:
    """The addresses of one device, as "10.1.0.2/24"."""
    found = []
    for answer in socket.dump("list the addresses", IFADDRMSG.pack(0, 0, 0, 0, index), RTM_GETADDR):
        _, prefix_length, _, _, _ = IFADDRMSG.unpack_from(answer)
        attributes = Attributes(answer[IFADDRMSG.size :])
        local = attributes.ip(uapi.IFA_LOCAL) or attributes.ip(uapi.IFA_ADDRESS)
        found.append(f"{local}/{prefix_length}")
    return found


def routes(socket: NetlinkSocket, index: int) -> list[Route]:
    """The unicast routes through one device, of every table."""
    found = []
    for family in FAMILIES.values():
        request = RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + u32(uapi.RTA_OIF, index)
        for answer in socket.dump("list the routes", request, RTM_GETROUTE):
            if RTMSG.unpack_from(answer)[7] == RTN_UNICAST:
                found.append(_read(answer)[0])
    return found


def towards(socket: NetlinkSocket, destination: str) -> tuple[Route, int | None] | None:
    """The routing table's entry for one address, and its device's index; None: unreachable."""
    (answers,) = socket.ask(_lookup(destination), tolerated=UNREACHABLE)
    return _read(answers[0]) if answers else None


def default_device(socket: NetlinkSocket) -> int | None:
    """Index of the device that the default route uses, IPv4 before IPv6; None without one."""
    for answers in socket.ask(*map(_lookup, ANYWHERE), tolerated=UNREACHABLE):
        for route, index in map(_read, answers):
            if index and ip_network(route.destination).prefixlen == 0:
                return index
    return None


def _lookup(destination: str) -> Ask:
    interface = ip_interface(destination)
    family = FAMILIES[interface.version]
    header = RTMSG.pack(family, interface.max_prefixlen, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    request = header + attribute(uapi.RTA_DST, interface.ip.packed)
    return Ask(f"look up the route to {interface.ip}", request, RTM_GETROUTE)


def _scope(route: Route) -> int:
    if route.scope is not None:
        return route.scope
    # A route without gateway is for neighbours (ip-route(8), "SCOPE_VAL"); IPv6 knows no scopes.
    return RT_SCOPE_UNIVERSE if route.gateway else RT_SCOPE_LINK


def _read(answer: bytes) -> tuple[Route, int | None]:
    family, length, _, _, table, _, scope, _, _ = RTMSG.unpack_from(answer)
    attributes = Attributes(answer[RTMSG.size :])
    anything = "0.0.0.0" if family == sockets.AF_INET else "::"  # noqa: S104
    metrics = attributes.nest(uapi.RTA_METRICS)
    route = Route(
        destination=f"{attributes.ip(uapi.RTA_DST) or anything}/{length}",
        gateway=attributes.ip(uapi.RTA_GATEWAY),
        source=attributes.ip(uapi.RTA_PREFSRC),
        mtu=metrics.number(uapi.RTAX_MTU),
        advmss=metrics.number(uapi.RTAX_ADVMSS),
        priority=attributes.number(uapi.RTA_PRIORITY),
        table=attributes.number(uapi.RTA_TABLE) or table,
        scope=scope,
    )
    return route, attributes.number(uapi.RTA_OIF)
