"""The floor: what the kernel alone takes for the same requests, encoded beforehand.

Three batches over plain sockets, no process, no configuration, no IPAM, no record: host, container,
host. Numbers from include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from tests.bench.node import Container, socket_inside

Interface = IPv4Interface | IPv6Interface

RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 17, 19, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 3, 4, 18, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
PEER_INFO = 1
"""VETH_INFO_PEER and IFLA_NETKIT_PEER_INFO."""

IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC = 1, 4, 5, 7
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
IFF_UP = 1
FIRST_ADDRESS = 0x8000
"""Of the containers in their network: beyond those that host-local gives out."""

FIRST_INDEX = 100_000
"""Of the devices: beyond those that the kernel chooses."""


class Floor:
    """ADD and DEL of a pair, of kind "veth" or "netkit".

    `number` names the network, as that of a `Plugin`: in a crowd it is the crowd's, since an address
    that many devices have, as their gateway's, costs the kernel more.
    """

    label = "floor: the kernel alone"
    verbs: Sequence[str] = ("ADD", "DEL")

    def __init__(self, kind: str, number: int = 5, *, dual: bool = False) -> None:
        self._kind = kind
        self._number = number
        self._dual = dual

    def measure(self, verb: str, container: Container) -> float:
        """Milliseconds for one verb."""
        return self._add(container) if verb == "ADD" else self._delete(container)

    def _add(self, container: Container) -> float:
        namespace = os.open(container.path, os.O_RDONLY | os.O_CLOEXEC)
        index = FIRST_INDEX + container.number
        first = self._creation(container, index, namespace)
        inside, outside = (
            self._container_batch(container, index),
            self._host_batch(container, index),
        )
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, namespace)
            began = time.perf_counter()
            host = stack.enter_context(_socket())
            _ask(host, first)
            _ask(stack.enter_context(socket_inside(namespace)), inside)
            _ask(host, outside)
            return (time.perf_counter() - began) * 1e3

    def _delete(self, container: Container) -> float:
        batch = [_message(RTM_DELLINK, 0, _link(FIRST_INDEX + container.number))]
        began = time.perf_counter()
        with _socket() as host:
            _ask(host, batch)
            return (time.perf_counter() - began) * 1e3

    def _creation(self, container: Container, index: int, namespace: int) -> list[bytes]:
        name = _attribute(IFLA_IFNAME, f"floor{container.number}".encode() + b"\0")
        mtu = _attribute(IFLA_MTU, struct.pack("=I", 1500))
        peer = (
            _link(index)
            + _attribute(IFLA_IFNAME, b"eth0\0")
            + mtu
            + _attribute(IFLA_NET_NS_FD, struct.pack("=I", namespace))
        )
        information = _attribute(IFLA_INFO_KIND, self._kind.encode()) + _attribute(
            IFLA_INFO_DATA | NLA_F_NESTED, _attribute(PEER_INFO | NLA_F_NESTED, peer)
        )
        body = (
            _link(index, up=self._kind == "netkit")
            + name
            + mtu
            + _attribute(IFLA_LINKINFO | NLA_F_NESTED, information)
        )
        alias = _attribute(IFLA_IFALIAS, f"floor {container.name} eth0".encode())
        return [
            _message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body),
            _message(RTM_SETLINK, 0, _link(index) + alias),
        ]

    def _container_batch(self, container: Container, index: int) -> list[bytes]:
        """As ptp leaves it, where there are neighbours; else straight to the device."""
        neighbours = self._kind == "veth"
        addresses, routes = [], []
        for address, gateway in self._addresses(container):
            addresses.append(_address(index, address, prefix_route=not neighbours))
            if neighbours:
                routes.append(_route(index, ip_interface(gateway.ip), source=address))
                routes.append(
                    _route(index, ip_interface(address.network), gateway=gateway, source=address)
                )
            anywhere = ip_interface("0.0.0.0/0" if address.version == 4 else "::/0")
            routes.append(_route(index, anywhere, gateway=gateway))
        return [_message(RTM_SETLINK, 0, _link(index, up=True)), *addresses, *routes]

    def _host_batch(self, container: Container, index: int) -> list[bytes]:
        up = [] if self._kind == "netkit" else [_message(RTM_SETLINK, 0, _link(index, up=True))]
        pairs = self._addresses(container)
        return [
            *up,
            *(_address(index, ip_interface(gateway.ip)) for _, gateway in pairs),
            *(_route(index, ip_interface(address.ip)) for address, _ in pairs),
        ]

    def _addresses(self, container: Container) -> list[tuple[Interface, Interface]]:
        """Each address with its gateway."""
        networks = [f"10.{self._number}.0.0/16"]
        if self._dual:
            networks.append(f"fd00:{self._number}::/64")
        bases = [ip_interface(network) for network in networks]
        return [
            (
                ip_interface(
                    f"{base.ip + FIRST_ADDRESS + container.number}/{base.network.prefixlen}"
                ),
                ip_interface(f"{base.ip + 1}/{base.network.prefixlen}"),
            )
            for base in bases
        ]


def _socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _ask(netlink: socket.socket, batch: Sequence[bytes]) -> None:
    netlink.send(b"".join(batch))
    answered = 0
    while answered < len(batch):
        data = netlink.recv(1 << 16)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            (code,) = struct.unpack_from("=i", data, 16)
            if kind == NLMSG_ERROR and code:
                raise OSError(-code, f"request {answered} of the floor: {os.strerror(-code)}")
            answered += 1
            data = data[(length + 3) & ~3 :]


def _message(kind: int, flags: int, body: bytes) -> bytes:
    flags |= NLM_F_REQUEST | NLM_F_ACK
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _link(index: int, *, up: bool = False) -> bytes:
    flags = IFF_UP if up else 0
    return struct.pack("=BxHiII", 0, 0, index, flags, flags)


def _family(interface: Interface) -> int:
    return socket.AF_INET if interface.version == 4 else socket.AF_INET6


def _address(index: int, address: Interface, *, prefix_route: bool = True) -> bytes:
    flags = (0 if prefix_route else IFA_F_NOPREFIXROUTE) | (
        IFA_F_NODAD if address.version == 6 else 0
    )
    body = struct.pack("=BBBBI", _family(address), address.network.prefixlen, 0, 0, index)
    body += _attribute(IFA_LOCAL, address.ip.packed) + _attribute(IFA_ADDRESS, address.ip.packed)
    body += _attribute(IFA_FLAGS, struct.pack("=I", flags))
    return _message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def _route(
    index: int,
    destination: Interface,
    *,
    gateway: Interface | None = None,
    source: Interface | None = None,
) -> bytes:
    scope = RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK
    length = destination.network.prefixlen
    body = struct.pack(
        "=BBBBBBBBI", _family(destination), length, 0, 0,
        RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0,
    )  # fmt: skip
    body += _attribute(RTA_OIF, struct.pack("=I", index))
    if length:
        body += _attribute(RTA_DST, destination.network.network_address.packed)
    if gateway:
        body += _attribute(RTA_GATEWAY, gateway.ip.packed)
    if source:
        body += _attribute(RTA_PREFSRC, source.ip.packed)
    return _message(RTM_NEWROUTE, NLM_F_CREATE, body)
