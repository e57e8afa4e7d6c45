"""Pages by HTTP, and what those may do who can reach them: anybody on the node."""

import contextlib
import http.client
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

import pytest

from cni_netkit import pages
from cni_netkit.pages import Address, AddressError, Answer
from tests.unit.test_server import DEADLINE, wait_for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9100", Address("127.0.0.1", 9100)),
        ("127.1.2.3:1", Address("127.1.2.3", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("/run/cni-netkit/metrics.sock", Address("/run/cni-netkit/metrics.sock")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.0.0.0:9100", "not a loopback address"),
        ("[::]:9100", "not a loopback address"),
        ("192.0.2.1:9100", "not a loopback address"),
        ("[fe80::1]:9100", "not a loopback address"),
        ("localhost:9100", "is no address"),
        ("127.0.0.1", "is no address"),
        ("127.0.0.1:", "is no address"),
        ("127.0.0.1:http", "is no address"),
        (":9100", "is no address"),
        ("", "is no address"),
        ("metrics.sock", "is no address"),
        ("127.0.0.1:0", "from 1 to 65535"),
        ("127.0.0.1:65536", "from 1 to 65535"),
    ],
)
def test_others_are_refused(text: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        Address.parse(text)


class Counted:
    """A page that tells how often it was made, when it may."""

    def __init__(self) -> None:
        self.made = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self) -> Answer:
        self.made += 1
        assert self.go.wait(DEADLINE)
        return Answer(HTTPStatus.OK, f"{self.made}\n".encode())


@pytest.fixture
def page() -> Iterator[Counted]:
    made = Counted()
    yield made
    made.go.set()


@pytest.fixture
def path(tmp_path: Path, page: Counted) -> Iterator[str]:
    """Where the page /count is."""
    with served(tmp_path, {"/count": page}) as path:
        yield path


@contextlib.contextmanager
def served(folder: Path, made: Mapping[str, pages.Page]) -> Iterator[str]:
    path = str(folder / "pages.sock")
    with pages.served(Address(path), made):
        yield path


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    connection.connect(path)
    return connection


def read(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            found += more
    return found


def ask(path: str, request: bytes) -> tuple[int, bytes]:
    with connect(path) as connection:
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


GET = b"GET /count HTTP/1.1\r\nHost: node\r\n\r\n"


def test_a_page(path: str, page: Counted) -> None:
    """GET and HEAD, with a query or without."""
    assert ask(path, GET) == (200, b"1\n")
    assert ask(path, GET.replace(b"/count", b"/count?x=1"))[0] == 200
    with connect(path) as connection:
        connection.sendall(GET.replace(b"GET", b"HEAD"))
        head, _, body = read(connection).partition(b"\r\n\r\n")
    assert b"Content-Length: 2\r\n" in head
    assert body == b""
    # It is the owner's, whoever else is on the node.
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"GET /count/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 404),
        (b"POST /count HTTP/1.1\r\n\r\n", 405),
        (b"\0\0\0\r\n\r\n", 400),
        (b"GET /count\r\n\r\n", 400),
        (b"GET /count HTTP/9\r\n\r\n", 400),
        (b"GET /count HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
        (b"x" * 200_000, 431),
    ],
)
def test_what_is_no_request(path: str, page: Counted, request_: bytes, status: int) -> None:
    assert ask(path, request_)[0] == status
    assert ask(path, GET)[0] == 200


def test_who_stops_in_the_middle(path: str) -> None:
    with connect(path) as connection:
        connection.sendall(b"GET /count HTTP/1.1\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read(connection).startswith(b"HTTP/1.1 400 ")


def test_a_page_is_made_once_a_second(path: str, page: Counted) -> None:
    """For all who ask at the same time, and a while after."""
    began = time.monotonic()
    page.go.clear()
    callers = [connect(path) for _ in range(pages.CONNECTIONS)]
    for caller in callers:
        caller.sendall(GET)
    wait_for(lambda: page.made, "somebody makes it")
    page.go.set()
    for caller in callers:
        with caller:
            assert read(caller).endswith(b"1\n")
    while page.made == 1:
        assert time.monotonic() < began + DEADLINE
        assert ask(path, GET)[0] == 200
    assert time.monotonic() - began >= pages.FRESH_SECONDS


def test_who_goes_away_ends_no_page(path: str, page: Counted) -> None:
    """However many ask for it and go: it is made once at a time, and the next one gets it."""
    page.go.clear()
    with connect(path) as first:
        first.sendall(GET)
        wait_for(lambda: page.made, "it is being made")
        for _ in range(3 * pages.CONNECTIONS):
            with connect(path) as connection:
                connection.sendall(GET)
        assert read(first) == b""
    with connect(path) as connection:
        connection.sendall(GET)
        page.go.set()
        assert read(connection).endswith(b"1\n")
    assert page.made == 1


def test_silent_ones_hold_up_nobody(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go when there are too many, however long each of them may stay."""
    monkeypatch.setattr(pages, "SECONDS", 3600.0)
    silent = [connect(path) for _ in range(3 * pages.CONNECTIONS)]
    try:
        for _ in range(3):
            assert ask(path, GET)[0] == 200
        assert read(silent[0]) == b""
    finally:
        for each in silent:
            each.close()


@pytest.mark.parametrize("said", [b"", b"GET /count HTTP/1.1\r\n", GET])
def test_a_connection_does_not_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Neither of one who says nothing, or stops, nor of one who does not take the answer."""
    monkeypatch.setattr(pages, "SECONDS", 1.0)
    with served(tmp_path, {"/count": lambda: Answer(HTTPStatus.OK, b"x" * (8 << 20))}) as path:
        descriptors = len(os.listdir("/proc/self/fd"))
        with connect(path) as connection:
            connection.sendall(said)
            # Ours, and theirs until they have hung up.
            wait_for(lambda: len(os.listdir("/proc/self/fd")) == descriptors + 2, "it is taken")
            wait_for(lambda: len(os.listdir("/proc/self/fd")) == descriptors + 1, "they hang up")


def test_who_takes_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the socket had room for is no answer that was taken, however little is left."""
    monkeypatch.setattr(pages, "SECONDS", 1.0)
    sizes = range(160 << 10, 320 << 10, 16 << 10)

    def page(size: int) -> pages.Page:
        return pages.plain(lambda: b"x" * size)

    made = {f"/{size}": page(size) for size in sizes}
    assert len(made) < pages.CONNECTIONS
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(served(tmp_path, made))
        descriptors = len(os.listdir("/proc/self/fd"))
        for size in sizes:
            connection = stack.enter_context(connect(path))
            connection.sendall(GET.replace(b"count", b"%d" % size))
            assert connection.recv(1) == b"H"
        ours = descriptors + len(made)
        wait_for(lambda: len(os.listdir("/proc/self/fd")) == ours, "they hang up on all")


def test_a_page_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Answer:
        raise ValueError("nobody knows")

    with served(tmp_path, {"/count": fail}) as path:
        assert ask(path, GET)[0] == 500
    assert "nobody knows" in capsys.readouterr().err


def test_it_ends_whoever_is_there(tmp_path: Path, page: Counted) -> None:
    """Silent ones are hung up on, and nothing is left: no thread, no descriptor, no socket."""
    descriptors, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    with contextlib.ExitStack() as stack:
        with served(tmp_path, {"/count": page}) as path:
            silent = stack.enter_context(connect(path))
            assert ask(path, GET)[0] == 200
        assert read(silent) == b""
    assert threading.active_count() == threads
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert not Path(path).exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_on_a_port(page: Counted, host: str) -> None:
    """At once again after an agent that was there before."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as free:
        port = free.getsockname()[1]
    for _ in range(2):
        with pages.served(Address(host, port), {"/count": page}):
            connection = http.client.HTTPConnection(host, port, timeout=DEADLINE)
            connection.request("GET", "/count")
            assert connection.getresponse().status == 200
            connection.close()
            with pytest.raises(OSError, match="in use"), pages.served(Address(host, port), {}):
                pass
