"""A network namespace and what can be asked of it: the kernel as the steps see it.

Queues and masquerading are imported when they are asked for: they need pyroute2, which takes longer
to import than everything else together.
"""

from __future__ import annotations

import errno
import glob
import os
import struct
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.link import device as link
from cni_netkit.kernel.link import route
from cni_netkit.kernel.link.deletion import Deletions
from cni_netkit.kernel.model import Bucket, FoundBucket, Link, LinkSpec, Queue, Route
from cni_netkit.kernel.netlink.message import Attributes, u32
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket, adopt, opened
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import (
    IFLA_NETKIT_PAIRING,
    IFLA_NETKIT_SCRUB,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETNSA_FD,
    NETNSA_NSID,
    RTM_GETNSID,
    RTM_NEWNSID,
)
from cni_netkit.spec.addresses import ip_interface
from cni_netkit.spec.request import check_ifname

if TYPE_CHECKING:
    from cni_netkit.kernel.ethtool.family import Ethtool
    from cni_netkit.kernel.queues import netdev

PROBES = {
    "netkit": None,
    "single": IFLA_NETKIT_PAIRING,
    "scrub": IFLA_NETKIT_SCRUB,
}
NO_ID = 0xFFFFFFFF
NO_QUEUE = 0xFFFFFFFE
SETTING_BYTES = 64
RTGENMSG = struct.Struct("=Bxxx")
TRIAL_DEVICE = LinkSpec(
    kind="netkit",
    pairing="single",
    name="trial",
    alias="cni-netkit trial",
    mtu=1500,
    mode="l3",
    policy="forward",
    peer_policy="forward",
    scrub="default",
    peer_scrub="default",
    headroom=0,
    tailroom=0,
    rx_queues=2,
    mac=None,
    peer_mac=None,
    peer_name="",
)

_of_the_host = Deletions()

_known_features: dict[str, bool] = {}
"""netkit is built in or not at all, so what was found out once holds as long as the kernel runs."""


class Namespace:
    """Sockets are opened in the namespace when first needed; closing closes all."""

    def __init__(self, netns: Netns) -> None:
        self.netns = netns
        self._sockets: dict[int, NetlinkSocket] = {}
        self._family: netdev.Family | None = None
        self._ethtool: Ethtool | None = None

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
        if self._ethtool is not None:
            self._ethtool.close()
            self._ethtool = None
        self.netns.close()

    # Devices

    def features(self, wanted: Iterable[str]) -> frozenset[str]:
        """Which of the features the kernel has: those of `PROBES`, "queue-create", "xsk-diag"."""
        for name in wanted:
            if name not in _known_features:
                _known_features[name] = self._has(name)
        return frozenset(name for name in wanted if _known_features[name])

    def link(self, name: str = "", index: int = 0) -> Link | None:
        """A device by name or index."""
        return link.get(self._rtnl, name=name, index=index)

    def links(self) -> list[Link]:
        """Every device."""
        return link.dump(self._rtnl)

    def devices_of(self, identifier: str) -> tuple[str, ...]:
        """The network devices of a device on any bus; a network device's name stands for itself.

        Linux: Documentation/ABI/stable/sysfs-bus. What sysfs shows are the devices of the
        namespace that it was mounted in, so this is for the host.
        """
        pattern = f"/sys/bus/*/devices/{glob.escape(identifier)}/net/*"
        if found := sorted(map(os.path.basename, glob.glob(pattern))):
            return tuple(found)
        is_name = check_ifname(identifier) is None and self.link(name=identifier)
        return (identifier,) if is_name else ()

    def create_pair(self, wanted: LinkSpec, container: Namespace) -> Link:
        """Create a pair, its peer born in `container`; returns the primary."""
        return link.create_pair(self._rtnl, wanted, container.netns.descriptor)

    def create_single(self, wanted: LinkSpec) -> Link:
        """Create a single device here."""
        return link.create_single(self._rtnl, wanted)

    def delete_link(self, found: Link, nsid: int | None = None) -> None:
        """Delete a device, of this namespace or of the one with id `nsid`."""
        if nsid is None and self.netns.is_own:
            _of_the_host.delete(self._rtnl, found)
        else:
            link.delete(self._rtnl, found.index, found.name, nsid)

    def link_in(self, nsid: int, name: str, index: int = 0) -> Link | None:
        """A device of another namespace, by that one's id; None also if there is no such id."""
        with suppress(KernelError):
            return link.get(self._rtnl, name=name, index=index, nsid=nsid)
        return None

    def mark(self, index: int, device: str, alias: str) -> None:
        """Give a device another alias."""
        self._rtnl.ask(link.mark(device, alias, index))

    def configure(
        self,
        index: int,
        device: str,
        *,
        up: bool = False,
        link_local: bool = True,
        addresses: Sequence[tuple[str, bool]] = (),
        routes: Sequence[Route] = (),
        exclusive: bool = False,
    ) -> None:
        """Bring a device up, give it addresses (with or without prefix route), then routes.

        All in one request. A route that exists to the letter is no error, except if `exclusive`:
        then any other route to the same destination is one, too. `link_local`: whether it may have
        an IPv6 address of its own accord.
        """
        batch = [] if link_local else [link.without_link_local(index, device)]
        batch += [link.set_up(index, device)] if up else []
        batch += [
            route.add_address(index, device, address, prefix_route=prefix_route)
            for address, prefix_route in addresses
        ]
        batch += [route.add(index, device, each, exclusive=exclusive) for each in routes]
        if batch:
            tolerated = set() if exclusive else {errno.EEXIST}
            tolerated |= set() if link_local else {errno.EAFNOSUPPORT}
            self._rtnl.ask(*batch, tolerated=tolerated)

    def addresses(self, index: int) -> list[str]:
        """The addresses of a device."""
        return route.addresses(self._rtnl, index)

    def routes(self, index: int) -> list[Route]:
        """The routes through a device."""
        return route.routes(self._rtnl, index)

    def route_towards(self, destination: str) -> tuple[Route, int | None] | None:
        """The route to an address, and the index of its device."""
        return route.towards(self._rtnl, destination)

    def default_device(self) -> Link | None:
        """The device that the default route uses."""
        index = route.default_device(self._rtnl)
        return self.link(index=index) if index else None

    # Namespaces

    def id_of(self, other: Namespace) -> int:
        """The id by which this namespace knows another (ip-netns(8)), assigned if it has none."""
        asked = f"look up the id of the network namespace {other.netns.path}"
        found = self._nsid(asked, other)
        if found is None:
            request = _nsid_request(other) + u32(NETNSA_NSID, NO_ID)
            try:
                self._rtnl.ask(Ask(asked, request, RTM_NEWNSID))
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
            found = self._nsid(asked, other)
        if found is None:
            raise KernelError(asked, errno.ENONET)
        return found

    def known_id_of(self, other: Namespace) -> int | None:
        """The id by which this namespace knows another already."""
        return self._nsid(f"look up the id of the network namespace {other.netns.path}", other)

    # Queues

    def queues(self, index: int) -> list[Queue]:
        """The receive queues of a device."""
        from cni_netkit.kernel.queues import netdev

        return netdev.queues(self._genl, self._netdev.number, index)

    def is_closing_xsks(self, nic: Link, queues: Collection[int], holder: Namespace) -> bool:
        """Whether AF_XDP sockets on leased queues of a NIC are closed, but not quite gone yet.

        `holder`: where the device is that holds the leases.
        """
        from cni_netkit.kernel.queues import xsk

        occupied = {
            xsk.Bound(queue.leased_index or 0, queue.leased_queue or 0)
            for queue in self.queues(nic.index)
            if queue.number in queues and queue.user == "AF_XDP"
        }
        return bool(occupied) and not occupied <= {seat for _, seat in xsk.sockets(holder.netns)}

    def lease(self, asked: str, device: int, nic: int, queue: int, nic_netns: int) -> int:
        """Lease a NIC's queue to a device of this namespace; returns the new queue's number."""
        from cni_netkit.kernel.queues import netdev

        number = self._netdev.number
        return netdev.create(self._genl, number, asked, device, nic, queue, nic_netns)

    def refuses_to_lend(self, nic: Link) -> KernelError | None:
        """Why a NIC of this namespace cannot lend queues, whichever and to whomever; None: it can.

        There is no flag to read. So a single device in a namespace of its own asks for a queue that
        no NIC has: one that could lend refuses it for that reason (ERANGE).
        """
        trial = Namespace(Netns.temporary())
        try:
            made = trial.create_single(TRIAL_DEVICE)
            asked = f"see whether {nic.name} lends queues"
            trial.lease(asked, made.index, nic.index, NO_QUEUE, trial.id_of(self))
        except KernelError as error:
            return None if error.errno == errno.ERANGE else error
        finally:
            trial.close()
        return None

    @property
    def ethtool(self) -> Ethtool:
        """The NICs of this namespace: rings, channels, features, RSS, flow rules."""
        if self._ethtool is None:
            from cni_netkit.kernel.ethtool.family import Ethtool
            from cni_netkit.kernel.ethtool.ioctl import EthtoolIoctl

            self._ethtool = Ethtool(self._genl, EthtoolIoctl(self.netns))
        return self._ethtool

    def xdp_features(self, nic: Link) -> frozenset[str]:
        """What a NIC's driver can do with XDP, by the kernel's names: "basic", "xsk-zerocopy"."""
        from cni_netkit.kernel.queues import netdev

        return netdev.xdp_features(self._genl, self._netdev.number, nic.index)

    # The XDP program for AF_XDP, on NICs of the host

    def attach_our_xdp(self, nic: Link, *, copy: bool = False) -> None:
        """Have a NIC run our XDP program; see `bpf.attach`."""
        from cni_netkit.kernel.bpf import xdp as bpf

        bpf.attach(nic, copy=copy)

    def detach_our_xdp(self, name: str) -> None:
        """Take `attach_our_xdp` back."""
        from cni_netkit.kernel.bpf import xdp as bpf

        bpf.detach(name)

    def runs_our_xdp(self, nic: Link) -> bool:
        """Whether a NIC runs our XDP program."""
        from cni_netkit.kernel.bpf import xdp as bpf

        return bpf.is_attached(nic)

    # Shaping

    def create_ifb(self, name: str, alias: str, mtu: int) -> Link:
        """Create an ifb device, down."""
        return link.create_ifb(self._rtnl, name, alias, mtu)

    def shape(self, index: int, device: str, bucket: Bucket) -> None:
        """Let what a device sends pass a token bucket. Raises `LackingKind`."""
        from cni_netkit.kernel.link import shaping

        shaping.shape(self._rtnl, index, device, bucket)

    def redirect(self, index: int, device: str, target: Link) -> None:
        """Let another device send all that one receives. Raises `LackingKind`."""
        from cni_netkit.kernel.link import shaping

        shaping.redirect(self._rtnl, index, device, target)

    def bucket(self, index: int) -> FoundBucket | None:
        """The token bucket on what a device sends."""
        from cni_netkit.kernel.link import shaping

        return shaping.bucket(self._rtnl, index)

    def redirected(self, index: int) -> int | None:
        """Index of the device that sends all that this one receives."""
        from cni_netkit.kernel.link import shaping

        return shaping.redirected(self._rtnl, index)

    # Masquerading

    def masquerade(self, chain: str, comment: str, addresses: Sequence[str]) -> None:
        """Masquerade what leaves from `addresses`."""
        from cni_netkit.kernel.nft import masquerade as nft

        nft.masquerade(self._nft, chain, comment, addresses)

    def unmasquerade(self, chain: str, addresses: Iterable[str]) -> None:
        """Take `masquerade` back."""
        from cni_netkit.kernel.nft import masquerade as nft

        nft.unmasquerade(self._nft, chain, addresses)

    def masqueraded(self, chain: str, addresses: Sequence[str]) -> tuple[int, list[str]]:
        """How many rules masquerade, and which of `addresses` are sent to them."""
        from cni_netkit.kernel.nft import masquerade as nft

        reached = [
            address
            for address in addresses
            if nft.element_chain(self._nft, ip_interface(address)) == chain
        ]
        return nft.masqueraded(self._nft, chain), reached

    def masquerades(self) -> dict[str, str]:
        """The chain of every attachment, with its comment."""
        from cni_netkit.kernel.nft import masquerade as nft

        return nft.chains(self._nft)

    # Settings under /proc/sys/net

    def set(self, values: dict[str, str], *, optional: bool = False) -> None:
        """Write settings ("ipv4/ip_forward": "1") where they differ; `optional`: if they exist."""

        def write() -> None:
            for name, value in values.items():
                path = f"/proc/sys/net/{name}"
                try:
                    _set(path, value.encode())
                except OSError as error:
                    if error.errno != errno.ENOENT or not optional:
                        raise KernelError(f"set {path} to {value}", error.errno or 0) from None

        self.netns.run(write)

    def _has(self, feature: str) -> bool:
        if feature == "queue-create":
            from cni_netkit.kernel.queues import netdev

            return netdev.can_create_queues(netdev.family(self._genl))
        if feature == "xsk-diag":
            from cni_netkit.kernel.queues import xsk

            return xsk.can_list(self.netns)
        return link.knows(self._rtnl, PROBES[feature])

    def _nsid(self, asked: str, other: Namespace) -> int | None:
        ((answer,),) = self._rtnl.ask(Ask(asked, _nsid_request(other), RTM_GETNSID))
        found = Attributes(answer[RTGENMSG.size :]).number(NETNSA_NSID)
        return None if found in (None, NO_ID) else found

    def _socket(self, protocol: int) -> NetlinkSocket:
        if protocol not in self._sockets:
            self._sockets[protocol] = opened(self.netns, protocol)
        return self._sockets[protocol]

    @property
    def _rtnl(self) -> NetlinkSocket:
        return self._socket(NETLINK_ROUTE)

    @property
    def _genl(self) -> NetlinkSocket:
        return self._socket(NETLINK_GENERIC)

    @property
    def _nft(self) -> NetlinkSocket:
        return self._socket(NETLINK_NETFILTER)

    @property
    def _netdev(self) -> netdev.Family:
        if self._family is None:
            from cni_netkit.kernel.queues import netdev

            self._family = netdev.family(self._genl)
        if self._family is None:
            raise KernelError("look up the generic netlink family netdev", errno.ENOENT)
        return self._family


def _set(path: str, value: bytes) -> None:
    # Where /proc/sys may only be read, what is right already must be no failure.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.read(descriptor, SETTING_BYTES).strip() == value:
            return
    finally:
        os.close(descriptor)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def _nsid_request(other: Namespace) -> bytes:
    return RTGENMSG.pack(0) + u32(NETNSA_FD, other.netns.descriptor)
