"""Frames at agent.sock. The first byte: how many descriptors come along (two bits), and which side reads.

A request is answered by the agent itself, for real, whatever it is.
"""

import contextlib
import os
import socket
import time

from cni_netkit.agent import server, wire
from cni_netkit.agent.callers import Caller
from cni_netkit.agent.watch import Watch
from tests.faults.fuzz import cell, oracle
from tests.faults.fuzz.targets import request

SECONDS = 10.0
prepare = request.prepare


def one(data: bytes) -> None:
    """Whatever is sent, there is one answer, no descriptor stays, and nothing else happened."""
    if not data:
        return
    before = sorted(os.listdir("/proc/self/fd"))
    with oracle.silent():
        if data[0] & 4:
            _read_as_launcher(data[1:])
        else:
            _answered(data[1:], data[0] & 3)
    assert sorted(os.listdir("/proc/self/fd")) == before
    after = cell.world(request.CELL.inside)
    assert after == request.CELL.before, request.difference(request.CELL.before, after)


def _answered(frame: bytes, count: int) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            descriptors = [os.open(cell.NETNS, os.O_RDONLY) for _ in range(count)]
            socket.send_fds(ours, [frame[:1] or b"\0"], descriptors)
            for each in descriptors:
                os.close(each)
            ours.sendall(frame[1:])
            ours.shutdown(socket.SHUT_WR)
            server._answer(Caller(theirs, 0, 0, time.monotonic()), SECONDS, Watch())
        answer = wire.receive_answer(ours, time.monotonic() + SECONDS)
        with contextlib.suppress(ConnectionResetError):  # not all of it was read
            assert ours.recv(1) == b"", "more than one answer"
    document = oracle.strict(answer.output) if answer.output else {}
    assert answer.status in (0, 1), answer
    if answer.status:
        oracle.judge_error(document)
    elif _attached(frame, document):
        request.one(_deleted(frame))


def _attached(frame: bytes, document: object) -> bool:
    return bool(document) and b"CNI_COMMAND=ADD\0" in frame


def _deleted(frame: bytes) -> bytes:
    """The DEL of an ADD, as `request` reads it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frame[:6] + bytes(6) + frame[12:])
        found = wire.receive_request(theirs, time.monotonic() + SECONDS)
    environment = {**found.environment, "CNI_COMMAND": "DEL"}
    entries = (os.fsencode(f"{name}={value}") for name, value in environment.items())
    return b"\0".join(entries) + b"\0\0" + found.stdin


def _read_as_launcher(frame: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frame)
        ours.shutdown(socket.SHUT_WR)
        with contextlib.suppress(wire.WireError):
            wire.receive_answer(theirs, time.monotonic() + SECONDS)
