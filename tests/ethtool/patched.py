"""A device of the kernel that has, for the program under test, what FakeNic has beside its own.

Put in at the edge: ioctls for the device are FakeNic's; of its netlink messages those about the
feature of rules and about RSS contexts, whose answers are made from the kernel's. All else the
kernel answers.
"""

import socket
from collections.abc import Collection
from typing import Any

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.ethtool.ioctl import EthtoolIoctl
from cni_netkit.kernel.netlink.socket import NetlinkSocket
from tests.ethtool.fake import NTUPLE, FakeNic

FEATURES_GET, FEATURES_SET, RSS_GET = 11, 12, 38
HW, WANTED, ACTIVE, BITS, NAME, VALUE, INDEX = 2, 3, 4, 3, 2, 3, 1
NESTED = 0x8000
NETLINK_GENERIC = 16

Tree = list[tuple[int, Any]]


def put_in(patch: pytest.MonkeyPatch, nic: FakeNic, family: int) -> None:
    """Let `nic` answer for the device of its name; `family` is the number of "ethtool"."""
    ioctl, netlink = EthtoolIoctl.ask, NetlinkSocket.ask

    def ask_ioctl(self: EthtoolIoctl, asked: str, device: str, request: bytes) -> bytes:
        if device != nic.name:
            return ioctl(self, asked, device, request)
        try:
            return nic.ioctl(request)
        except OSError as error:
            raise KernelError(asked, error.errno or 0) from None

    def ask_netlink(
        self: NetlinkSocket, *batch: Any, tolerated: Collection[int] = ()
    ) -> list[list[Any]]:
        message = batch[0].message
        is_ours = (
            self._socket.proto == NETLINK_GENERIC
            and self._socket.family == socket.AF_NETLINK
            and batch[0].type == family
            and nic.name.encode() + b"\0" in message[:40]
        )
        if is_ours and message[0] == RSS_GET:
            return [[_context(number, table) for number, table in sorted(nic.contexts.items())]]
        if is_ours and message[0] == FEATURES_SET and NTUPLE.encode() in message:
            nic.switch_ntuple(_switches_on(message))
            return [[]]
        answers = netlink(self, *batch, tolerated=tolerated)
        if is_ours and message[0] == FEATURES_GET:
            return [[_with_ntuple(answers[0][0], nic)]]
        return answers

    patch.setattr(EthtoolIoctl, "ask", ask_ioctl)
    patch.setattr(NetlinkSocket, "ask", ask_netlink)


def _with_ntuple(answer: bytes, nic: FakeNic) -> bytes:
    """The kernel's answer about features, but for the one of rules."""
    tree = _read(answer[4:])
    for kind, value in tree:
        bits = next((bits for number, bits in value if number == BITS), None)
        if kind == HW and bits is not None:
            for _, bit in bits:
                if (NAME, NTUPLE.encode() + b"\0") in bit and nic.ntuple is not None:
                    bit.append((VALUE, b""))
                    index = dict(bit)[INDEX]
        if kind == ACTIVE and bits is not None and nic.ntuple:
            bits.append((1, [(INDEX, index), (NAME, NTUPLE.encode() + b"\0")]))
    return answer[:4] + _write(tree)


def _switches_on(message: bytes) -> bool:
    wanted = dict(_read(message[4:]))[WANTED]
    ((_, bit),) = dict(wanted)[BITS]
    return VALUE in dict(bit)


def _context(number: int, table: list[int]) -> bytes:
    """ETHTOOL_MSG_RSS_GET_REPLY: the context, the hash function, the table."""
    entries = b"".join(entry.to_bytes(4, "little") for entry in table)
    return bytes((RSS_GET, 1, 0, 0)) + _write(
        [(2, number.to_bytes(4, "little")), (4, entries), (3, (1).to_bytes(4, "little"))]
    )


def _read(data: bytes) -> Tree:
    found: Tree = []
    while data:
        length = int.from_bytes(data[:2], "little")
        kind = int.from_bytes(data[2:4], "little")
        value = data[4:length]
        found.append((kind & ~NESTED, _read(value) if kind & NESTED else value))
        data = data[(length + 3) & ~3 :]
    return found


def _write(tree: Tree) -> bytes:
    data = b""
    for kind, value in tree:
        is_nest = isinstance(value, list)
        body = _write(value) if is_nest else value
        data += (4 + len(body)).to_bytes(2, "little")
        data += (kind | (NESTED if is_nest else 0)).to_bytes(2, "little") + body
        data += bytes(-len(body) % 4)
    return data
