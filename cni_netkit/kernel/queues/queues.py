"""The receive queues of a namespace's devices: what they are, leasing them, who may lend."""

from __future__ import annotations

import errno
from collections.abc import Collection
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Link, LinkSpec, Queue
from cni_netkit.kernel.netlink.socket import NetlinkSocket
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.queues import netdev, xsk

if TYPE_CHECKING:
    from cni_netkit.kernel.namespace import Namespace

NO_QUEUE = 0xFFFFFFFE
TRIAL_DEVICE = LinkSpec(
    kind="netkit", pairing="single", name="trial", alias="cni-netkit trial", mtu=1500, rx_queues=2
)


class Queues:
    """Over a generic netlink socket in the namespace. Raises `KernelError`."""

    def __init__(self, namespace: Namespace, socket: NetlinkSocket) -> None:
        self._namespace = namespace
        self._socket = socket

    def all(self, index: int) -> list[Queue]:
        """The receive queues of a device."""
        return netdev.queues(self._socket, self._family.number, index)

    def lease(self, asked: str, device: int, nic: int, queue: int, nic_netns: int) -> int:
        """Lease a NIC's queue to a device of this namespace; returns the new queue's number."""
        number = self._family.number
        return netdev.create(self._socket, number, asked, device, nic, queue, nic_netns)

    def xdp_features(self, nic: Link) -> frozenset[str]:
        """What a NIC's driver can do with XDP, by the kernel's names: "basic", "xsk-zerocopy"."""
        return netdev.xdp_features(self._socket, self._family.number, nic.index)

    def are_left_by_sockets(self, nic: Link, queues: Collection[int], holder: Netns) -> bool:
        """Whether no AF_XDP socket that is closed still has one of a NIC's leased queues.

        `holder`: the namespace of the device that holds the leases.
        """
        occupied = {
            xsk.Bound(queue.leased_index or 0, queue.leased_queue or 0)
            for queue in self.all(nic.index)
            if queue.number in queues and queue.user == "AF_XDP"
        }
        return not occupied or occupied <= {bound for _, bound in xsk.sockets(holder)}

    def refusal_to_lend(self, nic: Link) -> KernelError | None:
        """Why a NIC of this namespace cannot lend queues, whichever and to whomever; None: it can.

        There is no flag to read. So a single device in a namespace of its own asks for a queue that
        no NIC has: one that could lend refuses it for that reason (ERANGE).
        """
        with closing(type(self._namespace)(Netns.temporary())) as trial:
            try:
                made = trial.links.create_single(TRIAL_DEVICE)
                nsid = trial.id_of(self._namespace)
                asked = f"see whether {nic.name} lends queues"
                trial.queues.lease(asked, made.index, nic.index, NO_QUEUE, nsid)
            except KernelError as error:
                return None if error.errno == errno.ERANGE else error
        return None

    @cached_property
    def _family(self) -> netdev.Family:
        found = netdev.family(self._socket)
        if found is None:
            raise KernelError("look up the generic netlink family netdev", errno.ENOENT)
        return found
