"""Who holds a queue, where the lab's NIC cannot show it.

netdevsim has no AF_XDP zero-copy, and no test attaches a memory provider to it, so that the kernel's
EBUSY for these two is not caused there. The answers are encoded as net/core/netdev-genl.c does it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.context import Context
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Queue
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.kernel.queues import netdev
from cni_netkit.state import Store
from cni_netkit.steps.lease import Leases, refused


def answer(*attributes: tuple[str, Any]) -> Any:
    """A queue as the kernel describes it."""
    sent = netdev.queue_message()
    sent["cmd"] = 10
    sent["attrs"] = [("NETDEV_A_QUEUE_ID", 5), ("NETDEV_A_QUEUE_TYPE", 0), *attributes]
    sent.encode()
    received = netdev.queue_message(bytes(sent.data))
    received.decode()
    return received


@dataclass
class Queues:
    """These queues."""

    found: list[Queue]

    def all(self, index: int) -> list[Queue]:
        """Those of the only NIC."""
        assert index == 1
        return self.found


@dataclass
class Host:
    """A namespace with queues."""

    queues: Queues


@pytest.mark.parametrize(
    ("attribute", "user"),
    [
        (("NETDEV_A_QUEUE_XSK", ""), "AF_XDP"),
        (("NETDEV_A_QUEUE_IO_URING", "08:00:01:00:00:10:00:00"), "io_uring"),
        (("NETDEV_A_QUEUE_DMABUF", 3), "a dma-buf"),
    ],
)
def test_other_users_of_a_queue_are_named(
    attribute: tuple[str, Any], user: str, tmp_path: Path
) -> None:
    """The queue counts as taken, and error 101 says by whom."""
    queue = netdev._read(answer(attribute))
    assert queue == Queue(5, user=user)
    assert not queue.free
    context = Context(
        attachment=Attachment("net", "c", "eth0"),
        host=cast(Namespace, Host(Queues([queue, Queue(6)]))),
        container=None,
        ipam=None,
        store=Store(tmp_path),
        record=None,
    )
    error = Leases("eth0", "eth0", 2, (6, 5)).exhausted(context, 1)
    assert error.code == 101
    assert error.details == f"queue 5 is held by {user}"


def test_queue_without_user_is_free() -> None:
    """Neither leased nor used."""
    assert netdev._read(answer()).free


@pytest.mark.parametrize(
    ("number", "text", "code"),
    [
        (19, "", 102),
        (34, "", 102),
        (22, "Lease device is a virtual device", 102),
        (22, "Lease device has been removed from the system", 102),
        (22, "Lease device does not support queue management operations", 102),
        (22, "Device is not a virtual device", 104),
        (1, "", 104),
        (64, "", 104),
        (95, "Leasing queues from different devices not supported", 104),
    ],
)
def test_refusals_say_whose_fault_it_is(number: int, text: str, code: int) -> None:
    """102 where it is the NIC's, 104 else; the kernel's words are in the text."""
    error = refused(KernelError("lease queue 5 of eth0 to eth0", number, text), "eth0")
    assert error.code == code
    assert text in error.message
    assert "lease queue 5 of eth0 to eth0" in error.message
