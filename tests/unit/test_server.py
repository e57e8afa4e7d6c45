"""The agent's server: in a thread of this process, asked as the launcher asks; or as a process."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cni_netkit import deadline, verbs
from cni_netkit.agent import callers, server, wire
from cni_netkit.agent.server import Agent, AgentError
from cni_netkit.agent.watch import Watch
from cni_netkit.agent.wire import WireAnswer, WireRequest
from cni_netkit.spec import version as versions
from cni_netkit.spec.errors import CNIError
from tests.unit.test_launcher import build

DEADLINE = 30.0
"""Seconds until a condition must hold."""

VERSION = WireRequest({"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.0.0"}')

Value = TypeVar("Value")


def soon() -> float:
    return time.monotonic() + DEADLINE


def wait_for(condition: Callable[[], Value], what: str) -> Value:
    """Wait until the condition holds; fail at the deadline."""
    until = soon()
    while not (value := condition()):
        assert time.monotonic() < until, f"not within {DEADLINE} s: {what}"
        os.sched_yield()
    return value


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def ask(path: str, request: WireRequest = VERSION) -> WireAnswer:
    """One request and its answer, as the launcher does it."""
    with connect(path) as connection:
        # A refusal may have come before.
        with suppress(wire.WireError):
            wire.send_request(connection, request, soon())
        return wire.receive_answer(connection, soon())


def error(answer: WireAnswer) -> dict[str, Any]:
    """The error object of an answer."""
    assert answer.status == 1
    assert answer.output.endswith(b"}\n")
    found: dict[str, Any] = json.loads(answer.output)
    assert set(found) >= {"cniVersion", "code", "msg"}
    return found


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.sock")


@contextmanager
def served(
    listener: socket.socket, *, inherited: bool = False, watch: Watch | None = None
) -> Iterator[Agent]:
    """An agent that serves in a thread; in the end it has stopped."""
    agent = Agent(listener, inherited=inherited, watch=watch)
    serving = threading.Thread(target=agent.serve)
    serving.start()
    try:
        yield agent
    finally:
        agent.stop()
        serving.join(DEADLINE)
        assert not serving.is_alive()


@pytest.fixture
def agent(path: str) -> Iterator[Agent]:
    """An agent at `path`."""
    with server.listen(path) as listener, served(listener) as agent:
        yield agent


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One works, one may wait. To be named before `agent`."""
    monkeypatch.setattr(server, "WORKERS", 1)
    monkeypatch.setattr(server, "WAITING", 1)


@dataclass
class Handler:
    """Stands for `verbs.handle`: each request waits until it is let go."""

    go: threading.Event = field(default_factory=threading.Event)
    begun: list[Mapping[str, str]] = field(default_factory=list)
    ended: list[Mapping[str, str]] = field(default_factory=list)

    def __call__(
        self, environment: Mapping[str, str], read: Callable[[], bytes], *_descriptors: int | None
    ) -> verbs.Answer:
        self.begun.append(environment)
        assert self.go.wait(DEADLINE)
        self.ended.append(environment)
        return verbs.Answer(0, {"read": read().decode()})


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handler]:
    """A handler that waits. To be named after `agent`, so that nothing waits when that stops."""
    waiting = Handler()
    monkeypatch.setattr(verbs, "handle", waiting)
    yield waiting
    waiting.go.set()


@pytest.fixture
def notices(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where systemd would listen (sd_notify(3))."""
    monkeypatch.setenv("NOTIFY_SOCKET", path + ".notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path + ".notify")
        made.settimeout(DEADLINE)
        yield made


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    """Threads to ask from."""
    with ThreadPoolExecutor() as executor:
        yield executor


# Answering.


def test_request_is_answered(agent: Agent, path: str) -> None:
    """What goes to standard output comes as it is, with the exit status."""
    answer = ask(path)
    assert answer.status == 0
    assert json.loads(answer.output) == {
        "cniVersion": "1.0.0",
        "supportedVersions": list(versions.SUPPORTED),
    }


def test_error_is_answered(agent: Agent, path: str) -> None:
    """So does an error, with status 1."""
    assert error(ask(path, WireRequest({"CNI_COMMAND": "ODD"}, b"{}")))["code"] == 4


def test_success_without_output_is_empty(
    agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DEL, CHECK, GC and STATUS print nothing."""
    monkeypatch.setattr(verbs, "handle", lambda *_: verbs.Answer(0))
    assert ask(path) == WireAnswer(0, b"")


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100, "a frame begins with b'GET '"),
        (b"NKRQ\0\1\0\0", "the peer hung up after 8 of 20 bytes"),
        (b"NKRQ\0\1" + b"\0" * 10 + b"\0\0\0\5{", "the peer hung up after 21 of 25 bytes"),
        (b"NKRQ\0\2" + b"\0" * 14, "version 2 of the protocol"),
        (b"", "the peer hung up after 0 of 20 bytes"),
    ],
)
def test_what_is_no_request_is_told_so(agent: Agent, path: str, sent: bytes, text: str) -> None:
    """Garbage, half a frame, or nothing, and then the end: error 11; the next is served."""
    for _ in range(2):
        with connect(path) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            refusal = error(wire.receive_answer(connection, soon()))
        assert refusal["code"] == 11
        assert text in refusal["msg"]
    assert ask(path).status == 0


def test_peer_that_says_nothing_does_not_stay(
    small: None, agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is free again at the deadline: who came later only waits."""
    monkeypatch.setattr(wire, "REQUEST_SECONDS", 0.1)
    with connect(path) as silent:
        with connect(path) as later:
            wire.send_request(later, VERSION, soon())
            assert wire.receive_answer(later, soon()).status == 0
        assert "not received in time" in error(wire.receive_answer(silent, soon()))["msg"]


def test_client_that_has_gone_does_no_harm(agent: Agent, handler: Handler, path: str) -> None:
    """The request is carried out all the same, once, and the next one too."""
    with connect(path) as connection:
        wire.send_request(connection, VERSION, soon())
        wait_for(lambda: handler.begun, "the request has begun")
    handler.go.set()
    assert ask(path).status == 0
    wait_for(lambda: len(handler.ended) == 2, "both have ended")
    assert len(handler.begun) == 2


def test_fault_of_ours_costs_one_request(
    small: None,
    agent: Agent,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A handler that raises takes no worker and no place with it, and is in the log."""

    def fail(*_arguments: Any) -> verbs.Answer:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(verbs, "handle", fail)
        for _ in range(5):
            with pytest.raises(wire.WireError, match="hung up after 0"):
                ask(path)
    assert ask(path).status == 0
    assert capsys.readouterr().err.count("a request was lost") == 5


# Descriptors.


def test_namespace_is_passed_on_and_closed(
    agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The handler finds it and the socket open; afterwards neither is, whatever happened."""

    def opened() -> int:
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                found += os.readlink(f"/proc/self/fd/{name}") == str(tmp_path)
        return found

    seen = []

    def look(_environment: Any, _read: Any, netns: int, route: int) -> verbs.Answer:
        for each in (netns, route):
            seen.append(os.path.samestat(os.fstat(each), tmp_path.stat()))
            assert not os.get_inheritable(each)
        if len(seen) % 4:
            raise ValueError
        return verbs.Answer(0)

    monkeypatch.setattr(verbs, "handle", look)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for number in range(10):
            request = WireRequest({}, b"", descriptor, descriptor)
            if number % 2:
                assert ask(path, request).status == 0
            else:
                with pytest.raises(wire.WireError):
                    ask(path, request)
            with connect(path) as connection:
                socket.send_fds(connection, [b"garbage" * 9], [descriptor])
                assert wire.receive_answer(connection, soon()).status == 1
        wait_for(lambda: opened() == 1, "all but ours are closed")
    finally:
        os.close(descriptor)
    assert seen == [True] * 20


@pytest.mark.parametrize("asked", [0, 1])
def test_agent_that_ended_has_nothing_open(tmp_path: Path, asked: int) -> None:
    """No descriptor, thread or socket file stays."""
    files, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    path = str(tmp_path / "agent.sock")
    with server.listen(path) as listener, served(listener):
        for _ in range(asked):
            ask(path)
    assert set(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads
    assert not os.path.exists(path)


# Limits.


def test_more_than_the_workers_wait_and_more_than_those_are_refused(
    monkeypatch: pytest.MonkeyPatch, path: str, clients: ThreadPoolExecutor
) -> None:
    """Two work, one waits, the fourth is told to come again."""
    monkeypatch.setattr(server, "WORKERS", 2)
    monkeypatch.setattr(server, "WAITING", 1)
    handler = Handler()
    monkeypatch.setattr(verbs, "handle", handler)
    with server.listen(path) as listener, served(listener):
        running = [clients.submit(ask, path) for _ in range(2)]
        wait_for(lambda: len(handler.begun) == 2, "two are at work")
        with connect(path) as waiting:
            wire.send_request(waiting, VERSION, soon())
            refusal = error(ask(path))
            assert refusal["code"] == 11
            assert "too many requests" in refusal["msg"]
            assert len(handler.begun) == 2
            handler.go.set()
            assert wire.receive_answer(waiting, soon()).status == 0
        assert [each.result().status for each in running] == [0, 0]
        assert ask(path).status == 0, "there is room again"


def test_nobody_waits_for_who_says_nothing(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """More are silent than there are workers and places: an honest request is answered meanwhile.

    And so are they, when they begin at last.
    """
    monkeypatch.setattr(wire, "REQUEST_SECONDS", 10 * DEADLINE)
    monkeypatch.setattr(server, "WORKERS", 2)
    monkeypatch.setattr(server, "WAITING", 50)
    with server.listen(path) as listener, served(listener) as agent, ExitStack() as stack:
        silent = [stack.enter_context(connect(path)) for _ in range(30)]
        assert ask(path).status == 0
        wait_for(lambda: len(agent._callers._silent) == 30, "all are put aside")
        assert ask(path).status == 0
        for each in random.sample(silent, 30):
            wire.send_request(each, VERSION, soon())
            assert wire.receive_answer(each, soon()).status == 0


def test_large_requests_have_a_bound_together(
    agent: Agent, path: str, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones go on beside them; who has no room is told to come again."""
    monkeypatch.setattr(server, "_memory", server.Memory(30 << 20))
    large = WireRequest({"CNI_COMMAND": "large"}, b"x" * (15 << 20))
    with ExitStack() as stack:
        first, second = (stack.enter_context(connect(path)) for _ in range(2))
        wire.send_request(first, large, soon())
        wait_for(lambda: handler.begun, "the first one is at work")
        with suppress(wire.WireError):
            wire.send_request(second, large, soon())
        small = stack.enter_context(connect(path))
        wire.send_request(small, VERSION, soon())
        wait_for(lambda: len(handler.begun) == 2, "the small one is at work")
        assert (
            "no room for a request of 15728658" in error(wire.receive_answer(second, soon()))["msg"]
        )
        handler.go.set()
        assert wire.receive_answer(first, soon()).status == 0
        assert wire.receive_answer(small, soon()).status == 0
    assert ask(path, large).status == 0


def test_who_has_begun_must_go_on(
    small: None, agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher sends all it has at once: one that stops in between holds a worker no longer."""
    monkeypatch.setattr(wire, "REQUEST_SECONDS", 10 * DEADLINE)
    monkeypatch.setattr(wire, "PAUSE_SECONDS", 0.1)
    with connect(path) as begun:
        begun.sendall(b"NKRQ")
        assert ask(path).status == 0
        assert "not received in time" in error(wire.receive_answer(begun, soon()))["msg"]


def test_silence_ends_at_its_deadline(
    agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who is put aside: the leader waits no longer than for the first of them."""
    monkeypatch.setattr(callers, "FIRST_BYTE_SECONDS", 0.001)
    monkeypatch.setattr(wire, "REQUEST_SECONDS", 0.2)
    with connect(path) as one, connect(path) as other:
        for silent in (one, other):
            assert "not received in time" in error(wire.receive_answer(silent, soon()))["msg"]


def test_one_process_has_a_bound(agent: Agent, path: str, tmp_path: Path) -> None:
    """What it has beyond that is refused at once, others are not; who hangs up makes room."""
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(path)) for _ in range(callers.OF_ONE_PROCESS)]
        refusal = error(ask(path))
        assert refusal["code"] == 11
        assert f"process {os.getpid()} has 64 requests" in refusal["msg"]
        launcher = build(tmp_path)
        done = subprocess.run(
            [launcher],
            env={"CNI_COMMAND": "VERSION", "CNI_NETKIT_SOCKET": path},
            input=b'{"cniVersion": "1.0.0"}',
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout
        silent[0].close()
        wait_for(lambda: ask(path).status == 0, "there is room")


def test_stop_does_not_wait_for_who_says_nothing(path: str) -> None:
    """They are refused, with error 11, whether they are put aside already or just came."""
    with server.listen(path) as listener, ExitStack() as stack, served(listener) as agent:
        silent = [stack.enter_context(connect(path)) for _ in range(20)]
        wait_for(lambda: agent._callers.has_silent, "one is put aside")
        agent.stop()
        for each in silent:
            assert "being stopped" in error(wire.receive_answer(each, soon()))["msg"]


def test_stop_waits_for_who_is_silent_on_a_socket_that_stays(path: str) -> None:
    """It was accepted, so that nobody else can answer it."""
    with (
        server.listen(path) as listener,
        connect(path) as silent,
        served(listener, inherited=True) as agent,
    ):
        wait_for(lambda: agent._callers.has_silent, "it is put aside")
        agent.stop()
        wait_for(lambda: agent._drained, "nobody is accepted any more")
        wire.send_request(silent, VERSION, soon())
        assert wire.receive_answer(silent, soon()).status == 0


def test_waiting_costs_time(agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that has waited has less time left; none is left: it is not begun with."""
    left = []

    def look(*_arguments: Any) -> verbs.Answer:
        left.append(deadline.left("see"))
        return verbs.Answer(0)

    monkeypatch.setattr(verbs, "handle", look)
    ask(path)
    assert 0 < left.pop() < deadline.SECONDS
    monkeypatch.setattr(deadline, "SECONDS", 0.0)
    refusal = error(ask(path))
    assert refusal["code"] == 11
    assert "too busy" in refusal["msg"]
    assert not left


class Unwilling(socket.socket):
    """A listening socket at which accept(2) fails before it works."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            number = self.errors.pop()
            raise OSError(number, os.strerror(number))
        return super().accept()


def test_accepting_goes_on_whatever_fails(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of descriptors, aborted, out of memory: later it works again; one line tells of it."""
    monkeypatch.setattr(callers, "PAUSE_SECONDS", 0)
    with Unwilling(socket.AF_UNIX) as listener:
        listener.errors = [errno.ENOMEM, errno.EAGAIN, errno.ECONNABORTED, *[errno.EMFILE] * 50]
        listener.bind(path)
        listener.listen()
        with served(listener):
            assert ask(path).status == 0
            assert not os.get_blocking(listener.fileno()), "who was there may be gone"
    assert not listener.errors
    assert capsys.readouterr().err.count("no connection can be accepted") == 1


def test_accepting_goes_on_where_no_thread_can_be_started(
    agent: Agent, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The requests are done by the worker that there is, one after the other."""

    def fail(*_arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert [ask(path).status for _ in range(3)] == [0, 0, 0]
    assert "no worker can be started" in capsys.readouterr().err
    assert ask(path).status == 0


def test_agent_that_can_start_no_thread_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would listen and never answer."""

    def fail(*_arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    with server.listen(path) as listener:
        monkeypatch.setattr(threading.Thread, "start", fail)
        with pytest.raises(AgentError, match="not even one thread"):
            Agent(listener).serve()


# Stopping.


def test_stop_finishes_what_runs_and_refuses_the_rest(
    small: None,
    path: str,
    notices: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    clients: ThreadPoolExecutor,
) -> None:
    """What has begun is answered; what waited is told to come again: error 11; nobody else comes."""
    handler = Handler()
    monkeypatch.setattr(verbs, "handle", handler)
    with server.listen(path) as listener, served(listener) as agent:
        running = clients.submit(ask, path)
        wait_for(lambda: handler.begun, "one is at work")
        with connect(path) as waiting:
            wire.send_request(waiting, VERSION, soon())
            for _ in range(1000):
                agent.stop()
            assert notices.recv(100) == b"STOPPING=1"
            with pytest.raises(FileNotFoundError):
                connect(path)
            assert not running.done()
            handler.go.set()
            assert json.loads(running.result().output) == {"read": VERSION.stdin.decode()}
            refusal = error(wire.receive_answer(waiting, soon()))
            assert refusal["code"] == 11
            assert "being stopped" in refusal["msg"]
    assert len(handler.begun) == 1
    with pytest.raises(FileNotFoundError):
        connect(path)


def test_whoever_found_the_socket_is_answered(path: str) -> None:
    """Also who is in the backlog when it stops, as all are here: by the agent, or by its refusal."""
    with server.listen(path) as listener, ExitStack() as stack:
        agent = Agent(listener)
        many = [stack.enter_context(connect(path)) for _ in range(callers.OF_ONE_PROCESS)]
        for each in many:
            wire.send_request(each, VERSION, soon())
        agent.stop()
        agent.serve()
        for each in many:
            answer = wire.receive_answer(each, soon())
            assert answer.status == 0 or "being stopped" in error(answer)["msg"]


def test_stop_refuses_nobody_on_a_socket_that_stays(
    small: None,
    path: str,
    notices: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    clients: ThreadPoolExecutor,
) -> None:
    """What was accepted is finished; who comes then is not touched: the next agent answers."""
    handler = Handler()
    monkeypatch.setattr(verbs, "handle", handler)
    with server.listen(path) as listener:
        with served(listener, inherited=True) as agent:
            running = clients.submit(ask, path)
            wait_for(lambda: handler.begun, "one is at work")
            accepted = clients.submit(ask, path)
            wait_for(lambda: agent._waiting, "another one is accepted")
            agent.stop()
            assert notices.recv(100) == b"STOPPING=1"
            late = clients.submit(ask, path)
            handler.go.set()
        for answer in (running, accepted):
            assert json.loads(answer.result().output) == {"read": VERSION.stdin.decode()}
        with served(listener, inherited=True):
            assert json.loads(late.result().output) == {"read": VERSION.stdin.decode()}


def test_stop_without_work_ends_at_once(path: str) -> None:
    """Also when it comes before serving has begun; a later one is ignored."""
    with server.listen(path) as listener:
        agent = Agent(listener)
        for _ in range(10000):
            agent.stop()
        agent.serve()
        agent.stop()


# The socket.


def test_socket_belongs_to_root_alone(path: str) -> None:
    """Mode 0600 from the first moment on; the process's umask is as before."""
    before = os.umask(0)
    try:
        with server.listen(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_folder_is_made(tmp_path: Path) -> None:
    """As after boot, when /run is empty."""
    with server.listen(str(tmp_path / "a" / "b" / "agent.sock")) as listener, served(listener):
        assert ask(str(tmp_path / "a" / "b" / "agent.sock")).status == 0


def test_two_agents_do_not_share_a_socket(agent: Agent, path: str) -> None:
    """The second one is told, the first goes on."""
    with pytest.raises(AgentError, match="already"), server.listen(path):
        pass
    assert ask(path).status == 0


def test_socket_of_a_dead_agent_is_replaced(path: str) -> None:
    """It says connection refused and would for ever."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    for _ in range(2):
        with server.listen(path) as listener, served(listener):
            assert ask(path).status == 0


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    """Whoever mistypes the path must not lose a file."""
    file = tmp_path / "precious"
    file.write_text("content")
    with pytest.raises(AgentError, match="is no socket"), server.listen(str(file)):
        pass
    assert file.read_text() == "content"


@pytest.mark.parametrize(
    ("name", "text"), [("x" * 200, "too long"), ("file/agent.sock", "Not a directory|File exists")]
)
def test_path_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str) -> None:
    """With what the system says, and nothing stays open."""
    (tmp_path / "file").touch()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AgentError, match=text) as raised, server.listen(str(tmp_path / name)):
        pass
    assert str(tmp_path / name) in str(raised.value)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_others_than_root_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Even where the socket's mode lets them connect: error 4."""
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        launcher = build(folder / "bin", "-O2", "-static")
        path = str(folder / "agent.sock")
        stack.enter_context(served(stack.enter_context(server.listen(path))))
        os.chmod(path, 0o666)

        def call(user: int) -> dict[str, Any]:
            ended = subprocess.run(
                [launcher],
                env={"CNI_COMMAND": "VERSION", "CNI_NETKIT_SOCKET": path},
                input=VERSION.stdin,
                capture_output=True,
                user=user,
                timeout=DEADLINE,
            )
            answer: dict[str, Any] = json.loads(ended.stdout)
            return answer

        refusal = call(65534)
        assert (refusal["code"], refusal["msg"]) == (4, "only root may use the agent")
        assert "supportedVersions" in call(0)


# The process.

START = """
import os, resource, sys
from pathlib import Path
from cni_netkit.admin import main
from cni_netkit.state import Store
passed, folder, *arguments = sys.argv[1:]
Store.__init__.__defaults__ = (Path(folder),)  # this machine's own records are none of ours
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
if passed:
    os.dup2(int(passed), 3)
    os.environ["LISTEN_PID"] = str(os.getpid())
sys.argv[1:] = ["agent", *arguments]
sys.exit(main.main())
"""


@dataclass
class Process:
    """An agent as a process."""

    process: subprocess.Popen[bytes]
    notices: socket.socket

    def said(self) -> bytes:
        """What it told the service manager."""
        return self.notices.recv(100)

    def ended(self) -> tuple[int, str]:
        """Exit status, and what it had to say."""
        _, text = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, text.decode()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts agents, with a service manager that listens to them."""
    with ExitStack() as stack:
        notices = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(DEADLINE)

        def begin(*arguments: str, passed: int | None = None, **environment: str) -> Process:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    START,
                    "" if passed is None else str(passed),
                    tmp_path / "store",
                    *arguments,
                ],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), **environment},
                stderr=subprocess.PIPE,
                pass_fds=[] if passed is None else [passed],
                cwd=Path(__file__).parents[2],
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Process(process, notices)

        yield begin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_ends_with_a_signal(start: Start, path: str, number: int) -> None:
    """It tells when it is ready and when it stops, exits with 0, and leaves no socket."""
    one = start("--socket", path)
    assert one.said() == b"READY=1"
    assert ask(path).status == 0
    one.process.send_signal(number)
    assert one.said() == b"STOPPING=1"
    status, text = one.ended()
    assert status == 0, text
    assert not os.path.exists(path)


def test_process_that_was_killed_has_a_successor(start: Start, path: str) -> None:
    """The socket it left is in nobody's way."""
    for _ in range(2):
        one = start("--socket", path)
        assert one.said() == b"READY=1"
        assert ask(path).status == 0
        one.process.kill()
        assert one.ended()[0] == -signal.SIGKILL
        assert os.path.exists(path)


def test_process_that_cannot_start_says_why(start: Start, agent: Agent, path: str) -> None:
    """Exit status 1 and one line."""
    assert start("--socket", path).ended() == (
        1,
        f"cni-netkit agent: an agent is listening on {path} already\n",
    )


def test_process_may_open_many_files(start: Start, path: str) -> None:
    """All workers at once need more than the usual 1024."""
    one = start("--socket", path)
    assert one.said() == b"READY=1"
    soft, hard = resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE)
    assert hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert soft >= min(hard, server.DESCRIPTORS)


def test_process_sweeps_before_it_is_ready(start: Start, path: str, tmp_path: Path) -> None:
    """A record whose process died is released; one that is complete stays."""
    folder = tmp_path / "store" / "net"
    folder.mkdir(parents=True)
    for container, complete in (("left", False), ("kept", True)):
        record = {
            "attachment": {"network": "net", "container_id": container, "ifname": "eth0"},
            "cni_ifname": "eth0",
            "netns": "",
            "netns_identity": [0, 0],
            "config": {"cniVersion": "1.1.0", "name": "net", "type": "netkit"},
            "arguments": "",
            "path": [],
            "steps": [],
            "outcome": {},
            "complete": complete,
            "process": [1, 1],
        }
        (folder / f"{container}:eth0.json").write_text(json.dumps(record))
    one = start("--socket", path)
    assert one.said() == b"READY=1"
    assert [each.name for each in folder.iterdir()] == ["kept:eth0.json"]


# Sockets that systemd passes.


@pytest.fixture
def passed(path: str) -> Iterator[socket.socket]:
    """A socket as of a unit."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield listener


def test_socket_of_systemd_is_used_and_stays(
    start: Start, path: str, passed: socket.socket, tmp_path: Path
) -> None:
    """Whoever connects while no agent runs waits for the next one."""
    elsewhere = str(tmp_path / "elsewhere")
    for _ in range(2):
        with connect(path) as early:
            wire.send_request(early, VERSION, soon())
            one = start("--socket", elsewhere, passed=passed.fileno(), LISTEN_FDS="1")
            assert one.said() == b"READY=1"
            assert wire.receive_answer(early, soon()).status == 0
        assert not os.path.exists(elsewhere)
        one.process.terminate()
        assert one.said() == b"STOPPING=1"
        assert one.ended()[0] == 0
        assert os.path.exists(path)


@pytest.mark.parametrize("count", ["2", "-1", "many"])
def test_number_of_sockets_of_systemd_must_be_one(
    start: Start, passed: socket.socket, count: str
) -> None:
    """Which of them it should use is not to be guessed."""
    status, text = start(passed=passed.fileno(), LISTEN_FDS=count).ended()
    assert status == 1
    assert text == (
        f"cni-netkit agent: systemd passes {count} sockets, and the agent listens on one\n"
    )


@pytest.mark.parametrize("environment", [{"LISTEN_FDS": "0"}, {}])
def test_no_socket_of_systemd_means_an_own_one(
    start: Start, path: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A number of 0, or none."""
    with (tmp_path / "file").open("w") as file:
        one = start("--socket", path, passed=file.fileno(), **environment)
        assert one.said() == b"READY=1"
        assert ask(path).status == 0


def test_socket_for_another_process_is_not_taken(start: Start, path: str) -> None:
    """The environment is inherited by whom it does not concern."""
    one = start("--socket", path, LISTEN_PID="1", LISTEN_FDS="1")
    assert one.said() == b"READY=1"
    assert ask(path).status == 0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (socket.SOCK_DGRAM, "none to accept connections on"),
        (socket.SOCK_STREAM, "none to accept connections on"),
        (None, "use the socket that systemd passes: Socket operation on non-socket"),
    ],
)
def test_descriptor_that_is_of_no_use_is_an_error(
    start: Start, path: str, tmp_path: Path, kind: int | None, text: str
) -> None:
    """A datagram socket, a connection (Accept=yes), a file."""
    with ExitStack() as stack:
        given: Any
        if kind is None:
            given = stack.enter_context((tmp_path / "file").open("w"))
        else:
            given = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        status, said = start(passed=given.fileno(), LISTEN_FDS="1").ended()
    assert status == 1
    assert text in said


@pytest.mark.parametrize("waits", [True, False])
def test_nothing_is_begun_for_who_has_gone_away(
    path: str, agent: Agent, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """A runtime that killed its plugin has asked for something else by then."""
    go, told = threading.Event(), list[str]()

    def handle(*_arguments: Any) -> verbs.Answer:
        assert go.wait(DEADLINE)
        try:
            deadline.ensure_somebody_waits("ADD")
            told.append("begun")
        except CNIError as error:
            told.append(error.message)
        return verbs.Answer(0)

    monkeypatch.setattr(verbs, "handle", handle)
    with connect(path) as connection:
        wire.send_request(connection, VERSION, soon())
        if not waits:
            connection.close()
        go.set()
        wait_for(lambda: told, "the request is handled")
    assert told == ["begun" if waits else "ADD: who asked for it has gone away"]
