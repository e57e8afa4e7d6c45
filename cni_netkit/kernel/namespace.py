"""A network namespace: its sockets, its lifetime, and the doors to what can be asked of it.

What needs pyroute2 is imported when it is asked for: that takes longer to import than everything
else together.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from cni_netkit.kernel import features, loading, sysctl
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.link.links import Links
from cni_netkit.kernel.netlink.message import Attributes, u32
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket, adopt, opened
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import (
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETNSA_FD,
    NETNSA_NSID,
    RTM_GETNSID,
    RTM_NEWNSID,
)

if TYPE_CHECKING:
    from cni_netkit.kernel.bpf.xdp import Xdp
    from cni_netkit.kernel.ethtool.family import Ethtool
    from cni_netkit.kernel.link.protocol import ProtocolRoutes
    from cni_netkit.kernel.link.shaping import Shaping
    from cni_netkit.kernel.nft.masquerade import Masquerading
    from cni_netkit.kernel.queues.queues import Queues

NO_ID = 0xFFFFFFFF
RTGENMSG = struct.Struct("=Bxxx")


class Namespace:
    """Sockets are opened in the namespace when first needed; closing closes all."""

    def __init__(self, netns: Netns) -> None:
        self.netns = netns
        self._sockets: dict[int, NetlinkSocket] = {}

    @classmethod
    def current(cls) -> Namespace:
        """The host: the namespace this process is in."""
        return cls(Netns.current())

    @classmethod
    def at(cls, path: str) -> Namespace:
        """A container's, by path. Raises `NoNamespace`."""
        return cls(Netns.open(path))

    @classmethod
    def behind(cls, descriptor: int, path: str, route: int | None = None) -> Namespace:
        """A container's, opened by somebody else; `path` is its name. Raises `NoNamespace`.

        `route` is an rtnetlink socket in it, so that the namespace need not be entered for one.
        """
        namespace = cls(Netns.behind(descriptor, path))
        if route is not None and (adopted := adopt(namespace.netns, NETLINK_ROUTE, route)):
            namespace._sockets[NETLINK_ROUTE] = adopted
        return namespace

    def close(self) -> None:
        """Close every socket and let go of the namespace."""
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()
        if "ethtool" in vars(self):
            self.ethtool.close()
        self.netns.close()

    @cached_property
    def links(self) -> Links:
        """Devices, their addresses and routes."""
        return Links(self._socket(NETLINK_ROUTE), self.netns)

    def routes_of(self, protocol: int) -> ProtocolRoutes:
        """What a routing protocol, by its number, has in the main table."""
        from cni_netkit.kernel.link.protocol import ProtocolRoutes

        return ProtocolRoutes(self._socket(NETLINK_ROUTE), protocol)

    @cached_property
    def queues(self) -> Queues:
        """Receive queues and their leases."""
        with loading.alone:
            from cni_netkit.kernel.queues.queues import Queues

        return Queues(self, self._socket(NETLINK_GENERIC))

    @cached_property
    def ethtool(self) -> Ethtool:
        """NICs: rings, channels, features, RSS, flow rules."""
        with loading.alone:
            from cni_netkit.kernel.ethtool.family import Ethtool
            from cni_netkit.kernel.ethtool.ioctl import EthtoolIoctl

        return Ethtool(self._socket(NETLINK_GENERIC), EthtoolIoctl(self.netns))

    @cached_property
    def shaping(self) -> Shaping:
        """Token buckets, and the redirection to a device that has one."""
        with loading.alone:
            from cni_netkit.kernel.link.shaping import Shaping

        return Shaping(self._socket(NETLINK_ROUTE))

    @cached_property
    def masquerading(self) -> Masquerading:
        """What leaves with the host's address."""
        with loading.alone:
            from cni_netkit.kernel.nft.masquerade import Masquerading

        return Masquerading(self._socket(NETLINK_NETFILTER))

    @cached_property
    def xdp(self) -> Xdp:
        """Our XDP program on NICs of the host."""
        with loading.alone:
            from cni_netkit.kernel.bpf.xdp import Xdp

        return Xdp(self._socket(NETLINK_ROUTE))

    def features(self, wanted: Iterable[str]) -> frozenset[str]:
        """Which of these the kernel has; the names are those of `kernel.features`."""
        return features.present(wanted, self.netns, self._socket)

    def set(self, values: Mapping[str, str], *, optional: bool = False) -> None:
        """Write settings under /proc/sys/net where they differ; `optional`: if they exist."""
        sysctl.write(self.netns, values, optional=optional)

    def id_of(self, other: Namespace) -> int:
        """The id by which this namespace knows another (ip-netns(8)), assigned if it has none."""
        found = self.known_id_of(other)
        if found is None:
            request = _nsid_request(other) + u32(NETNSA_NSID, NO_ID)
            try:
                self._socket(NETLINK_ROUTE).ask(Ask(_asked_for_id(other), request, RTM_NEWNSID))
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
            found = self.known_id_of(other)
        if found is None:
            raise KernelError(_asked_for_id(other), errno.ENONET)
        return found

    def known_id_of(self, other: Namespace) -> int | None:
        """The id by which this namespace knows another already."""
        request = Ask(_asked_for_id(other), _nsid_request(other), RTM_GETNSID)
        ((answer,),) = self._socket(NETLINK_ROUTE).ask(request)
        found = Attributes(answer[RTGENMSG.size :]).number(NETNSA_NSID)
        return None if found in (None, NO_ID) else found

    def _socket(self, protocol: int) -> NetlinkSocket:
        if protocol not in self._sockets:
            self._sockets[protocol] = opened(self.netns, protocol)
        return self._sockets[protocol]


def _asked_for_id(other: Namespace) -> str:
    return f"look up the id of the network namespace {other.netns.path}"


def _nsid_request(other: Namespace) -> bytes:
    return RTGENMSG.pack(0) + u32(NETNSA_FD, other.netns.descriptor)
