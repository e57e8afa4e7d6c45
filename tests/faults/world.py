"""The same as `judge.world`, in milliseconds: what the kernel's netlink says, compared as it comes.

After each of thousands of faults; `judge.world` has the last word where the two worlds differ, and in
the end.
"""

import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.kernel import judge
from tests.kernel.judge import _answers, _attributes, _message

GETLINK, GETADDR, GETROUTE, GETQDISC = 18, 22, 26, 38
GETTABLE, GETCHAIN, GETRULE, GETSET, GETELEMENT = 1, 4, 7, 10, 13
NETFILTER, NFTABLES = 12, 10
DUMP = 0x301
LATER = 0x40 | 0x10000 | 0x20000 | 0x40000
"""RUNNING, LOWER_UP, DORMANT, ECHO: reported later."""

LINK_SCOPE = 253
SETTLES_SECONDS = 3.0


class Kernel:
    """Sockets in the host's namespace, which is the caller's, and in containers."""

    def __init__(self, *containers: str) -> None:
        self._route = [_socket_in(name, socket.NETLINK_ROUTE) for name in ("", *containers)]
        self._netfilter = _socket_in("", NETFILTER)
        self._nics = judge.devices_of_the_lab()

    def close(self) -> None:
        for each in (*self._route, self._netfilter):
            each.close()

    def world(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for number, sock in enumerate(self._route):
            seen[f"links {number}"] = dict(_links(sock))
            seen[f"addresses {number}"] = sorted(_addresses(sock))
            seen[f"routes {number}"] = sorted(_routes(sock))
            seen[f"queueing {number}"] = sorted(_queueing(sock))
        seen["nftables"] = sorted(self._nftables())
        seen["leases"] = {nic: judge.leases(nic) for nic in self._nics}
        seen["files"] = {
            name: content
            for name, content in judge.files("/var/lib/cni").items()
            if not any(part in name for part in ("/lock", "last_reserved_ip.", "/results/"))
        }
        return seen

    def becomes(self, before: dict[str, Any]) -> dict[str, Any]:
        """What is different from before, once the kernel has had time for what it does later."""
        deadline = time.monotonic() + SETTLES_SECONDS
        while (found := self.world()) != before and time.monotonic() < deadline:
            os.sched_yield()
        return difference(before, found)

    def _nftables(self) -> Iterator[tuple[Any, ...]]:
        yield from (("table", each) for each in self._dump(GETTABLE))
        yield from (("chain", each) for each in self._dump(GETCHAIN))
        yield from (("rule", each) for each in self._dump(GETRULE))
        for found in self._dump(GETSET):
            yield "set", found
            own = _attributes(found[2:])  # behind what is left of struct nfgenmsg
            which = judge._attribute(1, own[1]) + judge._attribute(2, own[2])
            yield from (("element", each) for each in self._dump(GETELEMENT, which, found[0]))

    def _dump(self, command: int, attributes: bytes = b"", family: int = 0) -> list[bytes]:
        body = struct.pack("=BBH", family, 0, 0) + attributes
        self._netfilter.send(_message(NFTABLES << 8 | command, DUMP, body))
        # The last two bytes of struct nfgenmsg count changes.
        return [each[:2] + each[4:] for each in _answers(self._netfilter)]


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """By part of the world: as it was, and as it is."""
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def _socket_in(netns: str, protocol: int) -> socket.socket:
    made: list[socket.socket] = []

    def make() -> None:
        if netns:
            descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
            try:
                assert ctypes.CDLL(None).setns(descriptor, 0) == 0
            finally:
                os.close(descriptor)
        made.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (sock,) = made
    sock.bind((0, 0))
    sock.settimeout(judge.DEADLINE)
    return sock


def _ask(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    sock.send(_message(kind, DUMP, body))
    return _answers(sock)


def _links(sock: socket.socket) -> Iterator[tuple[str, Any]]:
    for answer in _ask(sock, GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
        index, flags = struct.unpack_from("=iI", answer, 4)
        found = _attributes(answer[16:])
        name, mtu, alias = found[3].rstrip(b"\0").decode(), found[4], found.get(20)
        yield name, (index, flags & ~LATER, mtu, alias)


def _addresses(sock: socket.socket) -> Iterator[tuple[Any, ...]]:
    for answer in _ask(sock, GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        family, length, _, scope, index = struct.unpack_from("=BBBBI", answer)
        if scope != LINK_SCOPE:
            found = _attributes(answer[8:])
            yield index, family, length, found.get(2) or found[1]


def _routes(sock: socket.socket) -> Iterator[tuple[Any, ...]]:
    for answer in _ask(sock, GETROUTE, struct.pack("=BBBBBBBBI", *[0] * 9)):
        family, length, _, _, table, _, _, kind, _ = struct.unpack_from("=BBBBBBBBI", answer)
        found = _attributes(answer[12:])
        destination = found.get(1, b"")
        if not destination.startswith((b"\xfe\x80", b"\xff")):
            yield family, table, kind, destination, length, found.get(4, b"")


def _queueing(sock: socket.socket) -> Iterator[tuple[Any, ...]]:
    for answer in _ask(sock, GETQDISC, struct.pack("=BxHiIII", 0, 0, 0, 0, 0, 0)):
        index, handle, parent = struct.unpack_from("=iII", answer, 4)
        yield index, handle, parent, _attributes(answer[20:])[1]
