"""Receive queues and their leases (generic netlink family "netdev").

Follows include/uapi/linux/netdev.h, net/core/netdev-genl.c, and the netlink spec netdev.yaml.
"""

import errno
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import NLA_F_NESTED, ctrlmsg, genlmsg, nla

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Queue
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import (
    CTRL_CMD_GETFAMILY,
    GENL_ID_CTRL,
    NETDEV_CMD_DEV_GET,
    NETDEV_CMD_QUEUE_CREATE,
    NETDEV_CMD_QUEUE_GET,
    NETDEV_QUEUE_TYPE_RX,
)


class queue_message(genlmsg):
    """Message of family "netdev" about a queue: include/uapi/linux/netdev.h, NETDEV_A_QUEUE_*."""

    prefix = "NETDEV_A_QUEUE_"
    nla_map = (
        ("NETDEV_A_QUEUE_UNSPEC", "none"),
        ("NETDEV_A_QUEUE_ID", "uint32"),
        ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
        ("NETDEV_A_QUEUE_TYPE", "uint32"),
        ("NETDEV_A_QUEUE_NAPI_ID", "uint32"),
        ("NETDEV_A_QUEUE_DMABUF", "uint32"),
        ("NETDEV_A_QUEUE_IO_URING", "hex"),
        ("NETDEV_A_QUEUE_XSK", "hex"),
        ("NETDEV_A_QUEUE_LEASE", "lease"),
    )

    class lease(nla):
        """NETDEV_A_LEASE_*."""

        # The kernel parses this nest strictly: without the bit it answers EINVAL.
        nla_flags = NLA_F_NESTED
        prefix = "NETDEV_A_LEASE_"
        nla_map = (
            ("NETDEV_A_LEASE_UNSPEC", "none"),
            ("NETDEV_A_LEASE_IFINDEX", "uint32"),
            ("NETDEV_A_LEASE_QUEUE", "queue"),
            ("NETDEV_A_LEASE_NETNS_ID", "int32"),
        )

        class queue(nla):
            """NETDEV_A_QUEUE_ID and NETDEV_A_QUEUE_TYPE of the other side's queue."""

            nla_flags = NLA_F_NESTED
            prefix = "NETDEV_A_QUEUE_"
            nla_map = (
                ("NETDEV_A_QUEUE_UNSPEC", "none"),
                ("NETDEV_A_QUEUE_ID", "uint32"),
                ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
                ("NETDEV_A_QUEUE_TYPE", "uint32"),
            )


class device_message(genlmsg):
    """Message of family "netdev" about a device: NETDEV_A_DEV_*."""

    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


XDP_FEATURES = (
    "basic",
    "redirect",
    "ndo-xmit",
    "xsk-zerocopy",
    "hw-offload",
    "rx-sg",
    "ndo-xmit-sg",
)
"""The bits of enum netdev_xdp_act, from the lowest, by their names in netdev.yaml."""


@dataclass(frozen=True)
class Family:
    """The family as this kernel has it: its number, and the commands it knows."""

    number: int
    commands: frozenset[int]


def family(socket: NetlinkSocket) -> Family | None:
    """Look the family up; None on a kernel without it."""
    message = ctrlmsg()
    message["cmd"] = CTRL_CMD_GETFAMILY
    message["version"] = 1
    message["attrs"] = [("CTRL_ATTR_FAMILY_NAME", "netdev")]
    try:
        ((answer,),) = socket.ask(Ask("look up the family netdev", message, GENL_ID_CTRL))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    commands = answer.get_attr("CTRL_ATTR_OPS") or ()
    return Family(
        answer.get_attr("CTRL_ATTR_FAMILY_ID"),
        frozenset(command.get_attr("CTRL_ATTR_OP_ID") for command in commands),
    )


def can_create_queues(found: Family | None) -> bool:
    """Whether the kernel has queue-create (queue leasing, since 7.1)."""
    return found is not None and NETDEV_CMD_QUEUE_CREATE in found.commands


def queues(socket: NetlinkSocket, number: int, index: int) -> list[Queue]:
    """The receive queues of a device that is up; a device that is down shows none."""
    message = queue_message()
    message["cmd"] = NETDEV_CMD_QUEUE_GET
    message["version"] = 1
    message["attrs"] = [("NETDEV_A_QUEUE_IFINDEX", index)]
    answers = socket.dump("list the receive queues", message, number)
    return [
        _read(answer)
        for answer in answers
        if answer.get_attr("NETDEV_A_QUEUE_TYPE") == NETDEV_QUEUE_TYPE_RX
    ]


def xdp_features(socket: NetlinkSocket, number: int, index: int) -> frozenset[str]:
    """What a device's driver can do with XDP, by the names in `XDP_FEATURES`."""
    message = device_message()
    message["cmd"] = NETDEV_CMD_DEV_GET
    message["version"] = 1
    message["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
    ((answer,),) = socket.ask(Ask("look up the XDP features of a device", message, number))
    bits = answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0
    return frozenset(name for bit, name in enumerate(XDP_FEATURES) if bits & (1 << bit))


def create(
    socket: NetlinkSocket,
    number: int,
    asked: str,
    device: int,
    nic: int,
    queue: int,
    nic_netns: int,
) -> int:
    """Lease `queue` of `nic` to `device`; returns the number of the device's new queue.

    `device` is looked up in the socket's namespace, `nic` in the one whose id, as seen from there,
    is `nic_netns`.
    """
    message = queue_message()
    message["cmd"] = NETDEV_CMD_QUEUE_CREATE
    message["version"] = 1
    lessor: list[tuple[str, Any]] = [
        ("NETDEV_A_LEASE_IFINDEX", nic),
        (
            "NETDEV_A_LEASE_QUEUE",
            {
                "attrs": [
                    ("NETDEV_A_QUEUE_ID", queue),
                    ("NETDEV_A_QUEUE_TYPE", NETDEV_QUEUE_TYPE_RX),
                ]
            },
        ),
        ("NETDEV_A_LEASE_NETNS_ID", nic_netns),
    ]
    message["attrs"] = [
        ("NETDEV_A_QUEUE_IFINDEX", device),
        ("NETDEV_A_QUEUE_TYPE", NETDEV_QUEUE_TYPE_RX),
        ("NETDEV_A_QUEUE_LEASE", {"attrs": lessor}),
    ]
    ((answer,),) = socket.ask(Ask(asked, message, number))
    return int(answer.get_attr("NETDEV_A_QUEUE_ID"))


def _read(answer: Any) -> Queue:
    lease = answer.get_attr("NETDEV_A_QUEUE_LEASE")
    users = (
        ("AF_XDP", "NETDEV_A_QUEUE_XSK"),
        ("io_uring", "NETDEV_A_QUEUE_IO_URING"),
        ("a dma-buf", "NETDEV_A_QUEUE_DMABUF"),
    )
    held = [who for who, attribute in users if answer.get_attr(attribute) is not None]
    if lease is None:
        return Queue(answer.get_attr("NETDEV_A_QUEUE_ID"), user=held[0] if held else None)
    other = lease.get_attr("NETDEV_A_LEASE_QUEUE")
    return Queue(
        answer.get_attr("NETDEV_A_QUEUE_ID"),
        leased_index=lease.get_attr("NETDEV_A_LEASE_IFINDEX"),
        leased_queue=other.get_attr("NETDEV_A_QUEUE_ID") if other else None,
        netns_id=lease.get_attr("NETDEV_A_LEASE_NETNS_ID"),
        user=held[0] if held else None,
    )
