"""The frames between launcher and agent, both ends in Python, over a pair of sockets."""

import array
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_netkit.agent import wire
from cni_netkit.agent.wire import WireError, WireRequest

Pair = tuple[socket.socket, socket.socket]

HEADER = struct.Struct("!4sHHIII")


def soon() -> float:
    return time.monotonic() + 20


def header(
    magic: bytes = b"NKRQ",
    version: int = 1,
    descriptors: int = 0,
    error: int = 0,
    environment: int = 0,
    stdin: int = 0,
) -> bytes:
    return HEADER.pack(magic, version, descriptors, error, environment, stdin)


def how_often_open(file: Path) -> int:
    """How many descriptors of this process are of that file."""
    links = (os.path.join("/proc/self/fd", each) for each in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(each) and os.readlink(each) == str(file) for each in links)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Something to have a descriptor of."""
    path = tmp_path.resolve() / "netns"
    path.touch()
    return path


def send_with(sock: socket.socket, data: bytes, file: Path, count: int = 1) -> None:
    """Send `data` and so many descriptors of `file`, of which the sender keeps none."""
    with file.open("rb") as opened:
        rights = array.array("i", [opened.fileno()] * count)
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_request_arrives_as_it_was_sent(pair: Pair) -> None:
    sent = WireRequest(
        {"CNI_COMMAND": "ADD", "CNI_ARGS": "a=b;c=d", "EMPTY": ""}, b'{"a": "\0\xff"}'
    )
    wire.send_request(pair[0], sent, soon())
    assert wire.receive_request(pair[1], soon()) == sent


def test_request_of_nothing_arrives(pair: Pair) -> None:
    wire.send_request(pair[0], WireRequest({}, b""), soon())
    assert wire.receive_request(pair[1], soon()) == WireRequest({}, b"")


def test_environment_that_is_no_text_arrives_as_os_environ_has_it(pair: Pair) -> None:
    environment = {os.fsdecode(b"\xff"): os.fsdecode(b"\xfe=\x80"), "NAME": "ä"}
    wire.send_request(pair[0], WireRequest(environment, b""), soon())
    assert wire.receive_request(pair[1], soon()).environment == environment


def test_first_of_a_name_counts_and_what_has_no_sign_is_nothing(pair: Pair) -> None:
    block = b"A=1\0nothing\0\0A=2\0B=\0"
    pair[0].sendall(header(environment=len(block)) + block)
    assert wire.receive_request(pair[1], soon()).environment == {"A": "1", "B": ""}


def test_reason_why_there_is_no_namespace_arrives(pair: Pair) -> None:
    wire.send_request(pair[0], WireRequest({}, b"", netns_error=errno.EACCES), soon())
    request = wire.receive_request(pair[1], soon())
    assert (request.netns, request.netns_error) == (None, errno.EACCES)


def test_descriptor_arrives_closed_on_exec_and_is_the_same_file(pair: Pair) -> None:
    with open("/proc/self/ns/net", "rb") as namespace:
        wire.send_request(pair[0], WireRequest({}, b"{}", namespace.fileno()), soon())
        netns = wire.receive_request(pair[1], soon()).netns
        assert netns is not None
        try:
            assert os.path.sameopenfile(netns, namespace.fileno())
            assert not os.get_inheritable(netns)
        finally:
            os.close(netns)


def test_two_descriptors_arrive_in_their_order(pair: Pair, file: Path) -> None:
    with open("/proc/self/ns/net", "rb") as namespace, file.open() as route:
        sent = WireRequest({}, b"{}", namespace.fileno(), route.fileno())
        wire.send_request(pair[0], sent, soon())
        request = wire.receive_request(pair[1], soon())
        try:
            assert request.netns is not None
            assert request.route is not None
            assert os.path.sameopenfile(request.netns, namespace.fileno())
            assert os.path.sameopenfile(request.route, route.fileno())
            assert not os.get_inheritable(request.route)
        finally:
            for descriptor in request.descriptors:
                os.close(descriptor)
    assert how_often_open(file) == 0


def test_frame_may_come_byte_by_byte(pair: Pair, file: Path) -> None:
    frame = header(descriptors=1, environment=4, stdin=3) + b"A=b\0{ }"
    send_with(pair[0], frame[:1], file)
    for each in frame[1:]:
        pair[0].sendall(bytes([each]))
    request = wire.receive_request(pair[1], soon())
    assert request.netns is not None
    try:
        assert os.path.samestat(os.fstat(request.netns), file.stat())
        assert how_often_open(file) == 1
    finally:
        os.close(request.netns)
    assert (request.environment, request.stdin) == ({"A": "b"}, b"{ }")


def test_descriptor_that_comes_later_is_dropped(pair: Pair, file: Path) -> None:
    stdin = b"{" * (64 << 10) + b"abc"
    pair[0].sendall(header(stdin=len(stdin)) + stdin[:-3])
    send_with(pair[0], stdin[-3:], file)
    assert wire.receive_request(pair[1], soon()) == WireRequest({}, stdin)
    assert how_often_open(file) == 0


@pytest.mark.parametrize(
    ("announced", "sent"),
    [(0, 1), (0, 2), (1, 2), (1, 3), (1, 20), (2, 1), (2, 3), (3, 2), (3, 3), (2, 20)],
)
def test_other_number_of_descriptors_is_refused_and_none_stays_open(
    pair: Pair, file: Path, announced: int, sent: int
) -> None:
    send_with(pair[0], header(descriptors=announced), file, sent)
    with pytest.raises(WireError, match="descriptors"):
        wire.receive_request(pair[1], soon())
    assert how_often_open(file) == 0


def test_announced_descriptor_that_does_not_come_is_missed(pair: Pair) -> None:
    pair[0].sendall(header(descriptors=1))
    with pytest.raises(WireError, match=r"announces 1 descriptors .* 0 came"):
        wire.receive_request(pair[1], soon())


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "begins with b'GET '"),
        (header(descriptors=1, version=2), "speaks version 2"),
        (
            header(descriptors=1, environment=(8 << 20) + 1),
            "announces 8388609 bytes of environment",
        ),
        (header(descriptors=1, stdin=(16 << 20) + 1), "16777217 bytes of standard input"),
        (header(descriptors=1, environment=3) + b"A=b", "does not end with a NUL"),
        (header(descriptors=1, stdin=1) + b"{}", "more than the 21 bytes"),
        (b"", "hung up after 0 of 20 bytes"),
        (header(descriptors=1)[:19], "hung up after 19 of 20 bytes"),
        (header(descriptors=1, environment=2, stdin=3) + b"A=", "hung up after 22 of 25 bytes"),
    ],
)
def test_what_is_no_request_is_refused_and_its_descriptor_closed(
    pair: Pair, file: Path, frame: bytes, text: str
) -> None:
    if frame:
        send_with(pair[0], frame, file)
    pair[0].close()
    with pytest.raises(WireError, match=text):
        wire.receive_request(pair[1], soon())
    assert how_often_open(file) == 0


@pytest.mark.parametrize("frame", [b"", header()[:5], header(stdin=1 << 20) + b"{"])
def test_request_that_stays_away_is_not_waited_for_longer_than_the_deadline(
    pair: Pair, frame: bytes
) -> None:
    pair[0].sendall(frame)
    with pytest.raises(WireError, match="not received in time"):
        wire.receive_request(pair[1], time.monotonic() + 0.05)


def test_deadline_that_has_passed_is_none_to_wait_for(pair: Pair) -> None:
    wire.send_request(pair[0], WireRequest({}, b""), soon())
    with pytest.raises(WireError, match="in time"):
        wire.receive_request(pair[1], time.monotonic() - 1)


def test_peer_that_resets_the_connection_is_an_error(pair: Pair) -> None:
    pair[1].sendall(b"unread")
    pair[0].sendall(header(stdin=5))
    pair[0].close()
    with pytest.raises(WireError, match=r"reset by peer|hung up"):
        wire.receive_request(pair[1], soon())


@pytest.mark.parametrize("output", [b"", b'{"cniVersion": "1.1.0"}\n', b"x" * (100 << 10)])
@pytest.mark.parametrize("status", [0, 1, 255])
def test_answer_arrives_as_it_was_sent(pair: Pair, status: int, output: bytes) -> None:
    wire.send_answer(pair[0], status, output, soon())
    assert wire.receive_answer(pair[1], soon()) == wire.WireAnswer(status, output)


@pytest.mark.parametrize(("status", "length"), [(256, 0), (-1, 0), (0, (16 << 20) + 1)])
def test_answer_that_the_launcher_would_refuse_is_not_sent(
    pair: Pair, status: int, length: int
) -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        wire.send_answer(pair[0], status, b"x" * length, soon())
    wire.send_answer(pair[0], 1, b"refusal", soon())
    assert wire.receive_answer(pair[1], soon()) == wire.WireAnswer(1, b"refusal")


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"NKRQ\0\1\0\0\0\0\0\0", "begins with b'NKRQ'"),
        (b"NKAN\0\2\0\0\0\0\0\0", "speaks version 2"),
        (b"NKAN\0\1\0\0\1\0\0\1", "announces 16777217 bytes"),
        (b"NKAN\0\1\0\0\0\0\0\2{", "hung up after 13 of 14 bytes"),
        (b"", "hung up after 0 of 12 bytes"),
    ],
)
def test_what_is_no_answer_is_refused(pair: Pair, frame: bytes, text: str) -> None:
    pair[0].sendall(frame)
    pair[0].close()
    with pytest.raises(WireError, match=text):
        wire.receive_answer(pair[1], soon())


def test_launcher_that_went_away_is_an_error_of_sending(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(WireError, match="answer was not sent: Broken pipe"):
        wire.send_answer(pair[0], 0, b"{}", soon())


def test_launcher_that_does_not_read_is_not_waited_for_longer_than_the_deadline(
    pair: Pair,
) -> None:
    with pytest.raises(WireError, match="answer was not sent in time"):
        wire.send_answer(pair[0], 0, b"x" * (4 << 20), time.monotonic() + 0.05)
