"""xsk.sock, as strangers may use it: what the kernel says of a descriptor is tested on a kernel."""

import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.agent import xsk
from cni_netkit.agent.xsk import Refused
from tests.unit.test_server import DEADLINE, wait_for

SHORT = 0.3

JSON = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Stands for the kernel: identities of the files that were handed over; all are right."""
    seen: list[tuple[int, int]] = []

    def take_over(descriptor: int) -> None:
        found = os.fstat(descriptor)
        seen.append((found.st_dev, found.st_ino))

    monkeypatch.setattr(xsk, "_take_over", take_over)
    return seen


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    with xsk.served(str(folder / "agent.sock")):
        yield folder / "xsk.sock"


@pytest.fixture
def path(folder: Path, taken: list[tuple[int, int]]) -> Iterator[Path]:
    with serving(folder) as found:
        yield found


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(DEADLINE)
    connection.connect(str(path))
    return connection


def answer(connection: socket.socket) -> JSON:
    found: JSON = json.loads(connection.recv(1000))
    assert connection.recv(1000) == b""
    return found


def ask(path: Path, *descriptors: int, data: bytes = b"x") -> JSON:
    with connect(path) as connection:
        socket.send_fds(connection, [data], descriptors)
        return answer(connection)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_descriptor_one_answer(path: Path, taken: list[tuple[int, int]]) -> None:
    """It is the file that was sent; the answer is a line that says no more than needed."""
    with open("/dev/null") as file:
        with connect(path) as connection:
            socket.send_fds(connection, [b"x"], [file.fileno()])
            assert connection.recv(1000) == b'{"ok": true}\n'
        found = os.fstat(file.fileno())
    assert taken == [(found.st_dev, found.st_ino)]


def test_reason_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise Refused('it is "no good"')

    monkeypatch.setattr(xsk, "_take_over", refuse)
    assert ask(path, 0) == {"ok": False, "reason": 'it is "no good"'}


@pytest.mark.parametrize("number", [0, 2, 3, 253])
def test_exactly_one_descriptor(path: Path, taken: list[tuple[int, int]], number: int) -> None:
    """However many come, none stays open; 253 is the most that the kernel sends (SCM_MAX_FD)."""
    before = open_files()
    refused = ask(path, *[0] * number)
    assert refused["ok"] is False
    assert ("no descriptor" if number == 0 else "more than one") in refused["reason"]
    assert taken == []
    wait_for(lambda: open_files() == before, "every descriptor is closed")


def test_content_means_nothing(path: Path) -> None:
    """Longer than anybody reads, or claiming things."""
    for data in (b"\0", b'{"nic": "eth0", "queue": 7}', b"x" * 60_000):
        assert ask(path, 0, data=data) == {"ok": True}


def test_who_says_nothing_is_not_answered(path: Path) -> None:
    """Hanging up, or a message of nothing, brings no answer, and harms nobody."""
    before = open_files()
    connect(path).close()
    with connect(path) as connection:
        connection.send(b"")
        assert connection.recv(1000) == b""
    assert ask(path, 0) == {"ok": True}
    wait_for(lambda: open_files() == before, "nothing stays open")


def test_further_messages_are_not_read(path: Path, taken: list[tuple[int, int]]) -> None:
    # It may be hung up on before the last is sent, or the answer is read.
    with connect(path) as connection, suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(3):
            socket.send_fds(connection, [b"x"], [0])
        while connection.recv(1000):
            pass
    assert len(taken) == 1


def test_silent_clients_do_not_delay_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that does not take its answer."""
    monkeypatch.setattr(xsk, "OF_ONE", xsk.CONNECTIONS)
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(path)) for _ in range(xsk.CONNECTIONS - 2)]
        deaf = stack.enter_context(connect(path))
        socket.send_fds(deaf, [b"x"], [0])
        began = time.monotonic()
        assert ask(path, 0) == {"ok": True}
        assert time.monotonic() - began < xsk.SECONDS
        for connection in silent:
            socket.send_fds(connection, [b"x"], [0])
            assert answer(connection) == {"ok": True}


def test_one_container_has_a_bound(
    folder: Path, taken: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has beyond that waits for the others of it, and beyond another bound is hung up on."""
    monkeypatch.setattr(xsk, "SECONDS", DEADLINE)
    monkeypatch.setattr(xsk, "PARKED_OF_ONE", 2)
    before = open_files()
    with serving(folder) as path, ExitStack() as stack:
        silent = [stack.enter_context(connect(path)) for _ in range(xsk.OF_ONE)]
        parked = [stack.enter_context(connect(path)) for _ in range(2)]
        with connect(path) as refused:
            assert refused.recv(1000) == b""
        for connection in parked:
            socket.send_fds(connection, [b"x"], [0])
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1000)
            connection.settimeout(DEADLINE)
        silent[0].close()
        assert [answer(connection) for connection in parked] == [{"ok": True}] * 2
        assert ask(path, 0) == {"ok": True}
    wait_for(lambda: open_files() == before, "nothing stays open")


def test_hanging_up_waits_for_nobody(
    folder: Path, taken: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent along may be a TCP socket that lingers: the next is accepted all the same."""
    monkeypatch.setattr(xsk, "PARKED_OF_ONE", 0)
    with lingering() as (sender, _), serving(folder) as path:
        with connect(path) as connection:
            with suppress(BrokenPipeError):
                socket.send_fds(connection, [b"x"], [sender.fileno()])
            sender.close()
            with suppress(ConnectionResetError):
                assert connection.recv(1000) == b""
        monkeypatch.setattr(xsk, "PARKED_OF_ONE", 2)
        assert ask(path, 0) == {"ok": True}


def test_close_that_waits_holds_up_nobody_else(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TCP socket with SO_LINGER whose last holder is the agent, and whose peer does not read."""

    closed = threading.Event()

    def refuse(_: int) -> None:
        assert closed.wait(DEADLINE)
        raise Refused("no")

    monkeypatch.setattr(xsk, "_take_over", refuse)
    with lingering() as (sender, _), connect(path) as connection:
        socket.send_fds(connection, [b"x"], [sender.fileno()])
        sender.close()
        closed.set()
        assert json.loads(connection.recv(1000))["reason"] == "no"
        for _ in range(5):
            assert ask(path, 0)["reason"] == "no"
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1000)  # not hung up yet: closing goes on


@contextmanager
def lingering() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP socket that waits when it is closed, and its peer, which does not read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with peer, sender:
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        with suppress(BlockingIOError):
            while True:
                sender.send(bytes(1 << 16))
        # Which only blocking sockets mind.
        sender.setblocking(True)
        yield sender, peer


def test_more_than_there_are_seats_wait(
    folder: Path, taken: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not refused: a seat becomes free in the end."""
    monkeypatch.setattr(xsk, "CONNECTIONS", 1)
    monkeypatch.setattr(xsk, "SECONDS", SHORT)
    with serving(folder) as path, connect(path) as silent:
        assert ask(path, 0) == {"ok": True}
        assert silent.recv(1000) == b""


def test_fault_of_ours_ends_one_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is logged, and the next is served."""

    def fail(_: int) -> None:
        raise ZeroDivisionError("oh")

    with monkeypatch.context() as patch:
        patch.setattr(xsk, "_take_over", fail)
        with connect(path) as connection:
            socket.send_fds(connection, [b"x"], [0])
            assert connection.recv(1000) == b""
    assert ask(path, 0) == {"ok": True}
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_it_stops_at_once(folder: Path, taken: list[tuple[int, int]]) -> None:
    """Whoever has said nothing is let go; names are removed, descriptors closed."""
    before = open_files()
    began = time.monotonic()
    with ExitStack() as stack:
        with serving(folder) as path:
            silent = [stack.enter_context(connect(path)) for _ in range(3)]
            assert ask(path, 0) == {"ok": True}
        assert time.monotonic() - began < xsk.STOP_SECONDS
        for connection in silent:
            assert connection.recv(1000) == b""
    assert list(folder.iterdir()) == [folder / "xsk"]
    assert list((folder / "xsk").iterdir()) == []
    wait_for(lambda: open_files() == before, "nothing stays open")


def test_it_takes_a_dead_agents_place(folder: Path, taken: list[tuple[int, int]]) -> None:
    """What that left is replaced: the same names, and everybody may connect."""
    (folder / "xsk").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(folder / "xsk" / "xsk.sock"))
    (folder / "xsk.sock").symlink_to("xsk/xsk.sock")
    with serving(folder) as path:
        assert ask(path, 0) == {"ok": True}
        assert os.readlink(path) == "xsk/xsk.sock"
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o666


def test_agent_goes_on_without_it(
    folder: Path, capsys: pytest.CaptureFixture[str], taken: list[tuple[int, int]]
) -> None:
    """CNI requests are more important; the log says so."""
    (folder / "xsk" / "xsk.sock").mkdir(parents=True)
    with serving(folder):
        pass
    assert "no AF_XDP socket can be handed over" in capsys.readouterr().err
    assert (folder / "xsk" / "xsk.sock").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_everybody_may_connect(folder: Path, path: Path) -> None:
    """As nobody, in a process of its own; whether the folders above let him pass is not ours."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if ask(Path("xsk.sock"), 0) == {"ok": True} else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_start_does_not_wait_for_it() -> None:
    """libbpf and pyroute2 are loaded when the first socket comes."""
    code = (
        "import sys, cni_netkit.agent.server\n"
        "print([name for name in ('cni_netkit.kernel.bpf.xdp', 'cni_netkit.kernel.queues.xsk', 'pyroute2')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
