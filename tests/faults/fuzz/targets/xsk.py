"""Messages at xsk.sock, the one that strangers may use: a byte for the descriptors, then the data."""

import os
import socket
from collections.abc import Callable

from cni_netkit.agent import xsk
from tests.faults.fuzz import cell, oracle

KINDS: list[Callable[[], int]] = [
    lambda: os.open(cell.NETNS, os.O_RDONLY),
    lambda: os.open("/", os.O_RDONLY),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach(),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).detach(),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    lambda: socket.socket(44, socket.SOCK_RAW).detach(),  # AF_XDP
    lambda: os.memfd_create("planted"),
]


def one(data: bytes) -> None:
    """Told no, and why; or nothing at all where nothing came. No descriptor stays."""
    first, rest = (data[0], data[1:]) if data else (0, b"")
    before = set(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, oracle.silent():
        with theirs:
            _send(ours, rest, first)
            theirs.settimeout(xsk.SECONDS)
            xsk._answer(theirs)
        answer = ours.recv(1 << 16)
    if answer:
        document = oracle.strict(answer)
        assert document["ok"] is False, document
        assert document["reason"], document
    for left in set(os.listdir("/proc/self/fd")) - before:
        if os.path.exists(f"/proc/self/fd/{left}"):
            raise AssertionError(f"left open: {os.readlink(f'/proc/self/fd/{left}')}")


def _send(connection: socket.socket, data: bytes, first: int) -> None:
    """Up to three descriptors: their number in two bits, of a kind in three, and the kinds after it."""
    descriptors: list[int] = []
    for number in range(first & 3):
        try:
            descriptors.append(KINDS[(first // 4 + number) % len(KINDS)]())
        except OSError:
            continue  # this kernel has no such sockets
    try:
        socket.send_fds(connection, [data], descriptors)
    finally:
        for each in descriptors:
            os.close(each)
    connection.shutdown(socket.SHUT_WR)
