"""The network devices of a namespace, with their addresses and the routes through them."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Sequence
from contextlib import suppress

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.link import device, route
from cni_netkit.kernel.link.deletion import Deletions
from cni_netkit.kernel.model import Link, LinkSpec, Route
from cni_netkit.kernel.netlink.socket import NetlinkSocket
from cni_netkit.kernel.netns import Netns
from cni_netkit.spec.request import check_ifname

_of_the_host = Deletions()


class Links:
    """Over an rtnetlink socket in the namespace `netns`."""

    def __init__(self, socket: NetlinkSocket, netns: Netns) -> None:
        self._socket = socket
        self._netns = netns

    def get(self, name: str = "", index: int = 0, nsid: int | None = None) -> Link | None:
        """A device by name or index; `nsid`: of the namespace that has this id here.

        None also where no namespace has the id.
        """
        if nsid is None:
            return device.get(self._socket, name=name, index=index)
        with suppress(KernelError):
            return device.get(self._socket, name=name, index=index, nsid=nsid)
        return None

    def all(self) -> list[Link]:
        """Every device."""
        return device.dump(self._socket)

    def of_device(self, identifier: str) -> tuple[str, ...]:
        """The network devices of a device on any bus; a network device's name stands for itself.

        Linux: Documentation/ABI/stable/sysfs-bus. What sysfs shows are the devices of the
        namespace that it was mounted in, so this is for the host.
        """
        pattern = f"/sys/bus/*/devices/{glob.escape(identifier)}/net/*"
        if found := sorted(map(os.path.basename, glob.glob(pattern))):
            return tuple(found)
        is_name = check_ifname(identifier) is None and self.get(name=identifier)
        return (identifier,) if is_name else ()

    def create_pair(self, spec: LinkSpec, container: Netns) -> Link:
        """Create a pair, its peer born in `container`; returns the primary."""
        return device.create_pair(self._socket, spec, container.descriptor)

    def create_single(self, spec: LinkSpec) -> Link:
        """Create a single device here."""
        return device.create_single(self._socket, spec)

    def create_ifb(self, name: str, alias: str, mtu: int) -> Link:
        """Create an ifb device, down. Raises `LackingKind`."""
        return device.create_ifb(self._socket, name, alias, mtu)

    def delete(self, found: Link, nsid: int | None = None) -> None:
        """Delete a device, of this namespace or of the one with id `nsid`."""
        if nsid is None and self._netns.is_own:
            _of_the_host.delete(self._socket, found)
        else:
            device.delete(self._socket, found.index, found.name, nsid)

    def set_alias(self, index: int, name: str, alias: str) -> None:
        """Give a device another alias."""
        self._socket.ask(device.set_alias(name, alias, index))

    def configure(
        self,
        index: int,
        name: str,
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
        batch = [] if link_local else [device.without_link_local(index, name)]
        batch += [device.set_up(index, name)] if up else []
        batch += [
            route.add_address(index, name, address, prefix_route=prefix_route)
            for address, prefix_route in addresses
        ]
        batch += [route.add(index, name, each, exclusive=exclusive) for each in routes]
        if batch:
            tolerated = set() if exclusive else {errno.EEXIST}
            tolerated |= set() if link_local else {errno.EAFNOSUPPORT}
            self._socket.ask(*batch, tolerated=tolerated)

    def addresses(self, index: int) -> list[str]:
        """The addresses of a device."""
        return route.addresses(self._socket, index)

    def routes(self, index: int) -> list[Route]:
        """The routes through a device."""
        return route.routes(self._socket, index)

    def route_towards(self, destination: str) -> tuple[Route, int | None] | None:
        """The route to an address, and the index of its device."""
        return route.towards(self._socket, destination)

    def default(self) -> Link | None:
        """The device that the default route uses."""
        index = route.default_device(self._socket)
        return self.get(index=index) if index else None
