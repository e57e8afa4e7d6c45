"""Leased receive queues."""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cni_netkit import deadline, turns
from cni_netkit.attachment import bears
from cni_netkit.kernel.errors import KernelError, NoNamespace
from cni_netkit.outcome import Outcome
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.steps.base import checking_nic, difference, missing_nic, undoing_on_nic

if TYPE_CHECKING:
    from cni_netkit.context import Context
    from cni_netkit.kernel.model import Link

CLOSING_SECONDS = 1.0
"""For the kernel to be done with AF_XDP sockets that are closed; it takes less than a millisecond
where nobody has its rtnl lock."""


@dataclass(frozen=True)
class Leases:
    """`count` queues of `pool` (NIC queue numbers, best first) for the container's device."""

    name: ClassVar[str] = "leases"
    nic: str
    device: str
    count: int
    pool: tuple[int, ...]

    def do(self, context: Context, outcome: Outcome) -> None:
        """Take them, trying the next where somebody else was faster; all or an error."""
        nic = context.host.links.get(name=self.nic)
        if nic is None:
            raise missing_nic(self.nic)
        nsid = context.inside.id_of(context.host)
        # One at a time: else two that want two queues each could get one each, and both fail.
        with context.lock(f"NIC {self.nic}"):
            for queue in self.pool:
                if len(outcome.leases) == self.count:
                    break
                asked = f"lease queue {queue} of {self.nic} to {self.device} in the container"
                try:
                    number = context.inside.queues.lease(
                        asked, outcome.container_index, nic.index, queue, nsid
                    )
                except KernelError as error:
                    if error.errno != errno.EBUSY:
                        raise refused(error, self.nic) from None
                else:
                    outcome.leases.append([queue, number])
        if len(outcome.leases) < self.count:
            raise self.exhausted(context, nic.index)
        context.inside.links.set_alias(
            outcome.container_index, self.device, self._alias(context, outcome)
        )

    def undo(self, context: Context, outcome: Outcome) -> None:
        """The kernel gives them back with the device; there is no other way.

        An AF_XDP socket that was closed just now has its queue until a work queue comes to it, and
        for ever if the lease is gone by then (xp_release_deferred(), Linux 7.3). So that is waited
        for; one that is open the kernel takes care of.
        """
        nic = (
            context.host.links.get(name=self.nic) if context.container and outcome.leases else None
        )
        if nic is None or context.container is None:
            return
        if not outcome.host_index:
            with undoing_on_nic():
                self._end_disguised(context, outcome, nic)
        queues, holder = [queue for queue, _ in outcome.leases], context.container.netns
        until = time.monotonic() + CLOSING_SECONDS
        # A release goes on whatever there may be in the way of looking.
        with suppress(KernelError, NoNamespace):
            while time.monotonic() < until:
                if context.host.queues.are_left_by_sockets(nic, queues, holder):
                    return
                with turns.yielded():
                    time.sleep(deadline.PAUSE)

    def _end_disguised(self, context: Context, outcome: Outcome, nic: Link) -> None:
        """Delete a single device that does not look like ours any more, or is elsewhere.

        A container that may do so takes our mark off its device, or moves it. Leases it can neither
        make nor change: the one that is at our device's index in our container is ours.
        """
        place = outcome.container_index, context.host.known_id_of(context.inside)
        holders = {
            (queue.leased_index or 0, queue.netns_id)
            for queue in context.host.queues.all(nic.index)
            if [queue.number, queue.leased_queue] in outcome.leases
        }
        for index, where in holders:
            found = context.host.links.get(index=index, nsid=where)
            if found and ((index, where) == place) != bears(found.alias, context.attachment.alias):
                context.host.links.delete(found, where)

    def check(self, context: Context, outcome: Outcome) -> None:
        """From both sides: the NIC's queue points at ours, and ours exists; the alias says so."""
        nic = context.host.links.get(name=self.nic)
        if nic is None:
            raise difference(f"NIC {self.nic}", "a device", None)
        if not nic.up:
            raise difference(f"state of NIC {self.nic}", "up", "down")
        link = context.inside.links.get(name=self.device)
        if link is None:
            raise difference(f"device {self.device} in the container", "a device", None)
        nsid = context.host.id_of(context.inside)
        with checking_nic(self.nic):
            lent = {queue.number: queue for queue in context.host.queues.all(nic.index)}
        own = {queue.number for queue in context.inside.queues.all(link.index)}
        for nic_queue, number in outcome.leases:
            expected = f"leased to queue {number} of {self.device} in the container"
            queue = lent.get(nic_queue)
            what = f"queue {nic_queue} of {self.nic}"
            if queue is None or queue.leased_index is None:
                raise difference(what, expected, "not leased" if queue else None)
            if (queue.leased_index, queue.leased_queue, queue.netns_id) != (
                link.index,
                number,
                nsid,
            ):
                raise difference(
                    what,
                    expected,
                    f"leased to queue {queue.leased_queue} of the device with index "
                    f"{queue.leased_index} in the namespace with id {queue.netns_id}",
                )
            if number not in own:
                raise difference(f"queues of {self.device} in the container", number, own)
        if link.alias != (alias := self._alias(context, outcome)):
            raise difference(f"alias of device {self.device} in the container", alias, link.alias)

    def describe(self) -> str:
        """In words."""
        return f"lease {self.count} of the queues of {self.nic} to {self.device}"

    def exhausted(self, context: Context, nic_index: int) -> CNIError:
        """Error 101: which queues there are, and who holds them."""
        holders = context.holders(self.nic)
        taken = []
        for queue in context.host.queues.all(nic_index):
            if queue.number in self.pool and not queue.free:
                holder = (
                    holders.get(queue.number)
                    or queue.user
                    or (
                        f"the device with index {queue.leased_index} "
                        f"in the namespace with id {queue.netns_id}"
                    )
                )
                taken.append(f"queue {queue.number} is held by {holder}")
        return CNIError(
            Code.NO_FREE_QUEUE,
            f"{context.attachment} asks for {self.count} of the queues "
            f"{','.join(map(str, sorted(self.pool)))} of {self.nic}, and fewer are free",
            "; ".join(taken),
        )

    def _alias(self, context: Context, outcome: Outcome) -> str:
        return context.attachment.alias_with(self.nic, [queue for queue, _ in outcome.leases])


def refused(error: KernelError, nic: str) -> CNIError:
    """Give a refused queue-create the code that says whose fault it is."""
    said = error.text.lower()
    about_the_nic = (
        error.errno in (errno.ENODEV, errno.ERANGE)
        or "lease device" in said  # virtual, removed, or without queue management
    )
    if about_the_nic:
        return CNIError(
            Code.UNUSABLE_NIC,
            str(error),
            f"{nic} must be a physical NIC that is up, whose driver supports queue management "
            "(mlx5, bnxt, gve, fbnic), with that many receive queues (ethtool -l)",
        )
    return CNIError(Code.KERNEL_REFUSED, str(error), ADVICE.get(error.errno, ""))


ADVICE = {
    errno.EPERM: "leasing needs CAP_NET_ADMIN in the initial user namespace",
    errno.EOPNOTSUPP: "all leases of one device come from one NIC; in a pair the peer leases",
    errno.ENONET: "the namespace of the NIC has no id in that of the container",
}
