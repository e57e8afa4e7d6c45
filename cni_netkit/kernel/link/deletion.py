"""Deleting devices of the host together.

Unregistering waits for every RCU callback there is (rcu_barrier()), 15 ms and more: one by one,
thirty deletions take thirty times that. Those that are waiting at the same time are put into one
link group and deleted by group (RTM_DELLINK with IFLA_GROUP), which costs a single wait. Who comes
first deletes at once; who comes meanwhile is collected for the next round.
"""

import errno
import secrets
import threading

from cni_netkit import turns
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.link import device as link
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.netlink import message
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import IFLA_GROUP, RTM_DELLINK, RTM_SETLINK

GROUP_BITS = 31
"""A group is picked at random for each round: nobody else's devices are in it."""


class _Job:
    """One deletion, and the thread that waits for it: until it is done, or is to lead a round."""

    def __init__(self, device: Link) -> None:
        self.device = device
        self.called = threading.Event()
        self.done = False
        self.error: Exception | None = None


class Deletions:
    """The deletions of one namespace. A process has one for its host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._at_work = False

    def delete(self, socket: NetlinkSocket, device: Link) -> None:
        """Delete a device; one that is gone counts as deleted. Raises `KernelError`."""
        job = _Job(device)
        with self._lock:
            self._waiting.append(job)
            leads = not self._at_work
            self._at_work = True
        with turns.yielded():
            if not leads:
                job.called.wait()
            if not job.done:
                self._lead_a_round(socket)
        if job.error:
            raise job.error

    def _lead_a_round(self, socket: NetlinkSocket) -> None:
        """Delete what waits, and hand the lead to who came meanwhile: nobody does two rounds."""
        with self._lock:
            jobs, self._waiting = self._waiting, []
        try:
            _delete_all(socket, jobs)
        except Exception as error:
            for job in jobs:
                job.error = job.error or error
        finally:
            for job in jobs:
                job.done = True
                job.called.set()
            with self._lock:
                self._at_work = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].called.set()


def _delete_all(socket: NetlinkSocket, jobs: list[_Job]) -> None:
    together = jobs if len(jobs) > 1 and _delete_group(socket, jobs) else []
    for job in jobs:
        if job in together:
            continue
        try:
            link.delete(socket, job.device.index, job.device.name)
        except KernelError as error:
            job.error = error


def _delete_group(socket: NetlinkSocket, jobs: list[_Job]) -> bool:
    """Delete in one request; False if the kernel did not, then each is to be tried alone."""
    group = 1 + secrets.randbits(GROUP_BITS)
    members = [_join(job.device, group) for job in jobs]
    request = message.link(message.u32(IFLA_GROUP, group))
    names = ", ".join(job.device.name for job in jobs)
    try:
        # A member that is gone already is no obstacle for the others.
        socket.ask(*members, tolerated=(errno.ENODEV,))
        socket.ask(Ask(f"delete the devices {names}", request, RTM_DELLINK))
    except KernelError as error:
        return error.errno == errno.ENODEV  # all of them are gone
    return True


def _join(device: Link, group: int) -> Ask:
    request = message.link(message.u32(IFLA_GROUP, group), index=device.index)
    return Ask(f"put the device {device.name} into a link group", request, RTM_SETLINK)
