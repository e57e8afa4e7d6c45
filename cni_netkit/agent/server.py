"""The resident agent: answers the launcher's requests with everything loaded.

It keeps nothing that a kill -9 could lose: state is in the kernel, in the records and in IPAM's
files, under the same locks as the in-process way. Sockets of systemd are taken over, readiness is
told (sd_listen_fds(3), sd_notify(3)).
"""

import contextlib
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cni_netkit import deadline, log, release, sockets, tracecontext, turns, verbs
from cni_netkit.agent import nics, wire, xsk
from cni_netkit.agent.callers import OF_ONE_PROCESS, Caller, Callers
from cni_netkit.agent.watch import Watch, watching
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.version import NEWEST
from cni_netkit.traces import Unavailable

if TYPE_CHECKING:
    from cni_netkit import pages

SOCKET = "/run/cni-netkit/agent.sock"
WORKERS = 128
"""Most of them wait for the kernel, for example for deletions that are carried out together."""

LARGE_BYTES = 1 << 20
"""For more than that there is not always room. Most have some kilobytes; `wire` allows 24 MiB."""

MEMORY_BYTES = 64 << 20
"""Of all large requests together."""

WAITING = 1024
"""Requests accepted and not begun; more are told to come again (error 11)."""

DESCRIPTORS = 16384
"""A request has about ten files open. The usual limit of 1024 would be too few for all workers."""

GARBAGE = 20_000
"""Objects between two looks of the collector; an ADD makes some thousand. Python's own is 700."""

STACK_BYTES = 512 << 10
LISTEN_FDS_START = 3
STOPPING = "the agent is being stopped"


class AgentError(Exception):
    """The agent cannot start; the text says why."""


class Agent:
    """The workers behind a listening socket.

    One worker leads: it waits for a caller, lets another lead, and answers the request itself,
    so that none is passed from thread to thread. There is one more than can be at work, so there
    is always a leader: with all others at work it puts callers into the queue, or refuses them.
    """

    def __init__(
        self, listener: socket.socket, *, inherited: bool = False, watch: Watch | None = None
    ) -> None:
        """`inherited`: the socket is systemd's and stays, for the agent that comes next."""
        self._inherited = inherited
        self._watch = watch or Watch()
        self._callers = Callers(listener)
        self._leading = threading.Lock()
        self._guard = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._free = 0
        self._waiting: deque[Caller] = deque()
        self._refusing = self._drained = False
        self._stop, self._stopped = socket.socketpair()
        self._stop.setblocking(False)

    def serve(self) -> None:
        """Answer requests until `stop`; then finish what runs and refuse what waits.

        Who comes then finds no socket: the launcher waits for the next agent, or becomes Python. On
        an inherited socket nobody is refused: what was accepted is finished, and who connects then
        is the next agent's.
        """
        with self._stop, self._stopped, contextlib.closing(self._callers):
            threading.stack_size(STACK_BYTES)
            with self._guard:
                if not self._hire():
                    raise AgentError("not even one thread can be started")
            self._stopped.recv(1)
            self._refusing, self._drained = not self._inherited, self._inherited
            if self._inherited:
                self._callers.accept_no_more()
            else:
                self._callers.disappear()
            _notify("STOPPING=1")
            if self._refusing:
                for caller in self._callers.silent():
                    self._refuse(caller, STOPPING)
                with self._guard:
                    self._guard.wait_for(self._is_idle)
                for caller in self._callers.rest():
                    self._refuse(caller, STOPPING)
                self._drained = True
                self._callers.accept_no_more()
            for worker in self._workers:
                worker.join()

    def stop(self, *_signal: int | FrameType | None) -> None:
        """Have `serve` end; usable as a signal handler."""
        # Full or closed: then there is nobody who has to be woken.
        with contextlib.suppress(OSError):
            self._stop.send(b"\0")

    @property
    def at_work(self) -> int:
        """How many requests are being carried out."""
        return len(self._workers) - self._free

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return len(self._waiting)

    @contextlib.contextmanager
    def stopped_by(self, *numbers: int) -> Iterator[None]:
        """Have signals end `serve`, also one that comes just before the main thread waits.

        Python calls a handler when it comes to it, which may be after that; this it writes at once.
        """
        signal.set_wakeup_fd(self._stop.fileno(), warn_on_full_buffer=False)
        try:
            for number in numbers:
                signal.signal(number, self.stop)
            yield
        finally:
            signal.set_wakeup_fd(-1)

    def _is_idle(self) -> bool:
        return self._free == len(self._workers) and not self._waiting

    def _hire(self) -> bool:
        """Start a worker; False if there are enough, or the system has no more threads.

        With the guard held, so that a worker is counted before it can count itself.
        """
        if len(self._workers) > WORKERS:
            return False
        worker = threading.Thread(target=self._work, name=f"request-{len(self._workers)}")
        try:
            worker.start()
        except RuntimeError as error:
            log.error("no worker can be started", problem=str(error))
            return False
        self._workers.append(worker)
        self._free += 1
        return True

    def _work(self) -> None:
        while True:
            with self._leading:
                caller = self._lead()
            if caller is None:
                return
            while caller:
                self._serve_one(caller)
                caller = self._next()

    def _lead(self) -> Caller | None:
        """Wait for a caller whom this worker is to serve; None: there will be none."""
        while not self._drained or self._callers.has_silent:
            caller = self._callers.next()
            for late in self._callers.silent(wire.REQUEST_SECONDS):
                self._refuse(late, "the request was not received in time")
            if caller is None or self._is_refused(caller):
                continue
            with self._guard:
                # A worker all alone serves too, and leads again afterwards.
                if self._free > 1 or self._hire() or len(self._workers) == 1:
                    self._free -= 1
                    return caller
                if len(self._waiting) < WAITING:
                    self._waiting.append(caller)
                    continue
            self._refuse(caller, "the agent has too many requests waiting")
        return None

    def _next(self) -> Caller | None:
        """Who is in the queue, for a worker that has finished."""
        with self._guard:
            if self._waiting:
                return self._waiting.popleft()
            self._free += 1
            if self._refusing:
                self._guard.notify_all()
            return None

    def _is_refused(self, caller: Caller) -> bool:
        if self._refusing:
            self._refuse(caller, STOPPING)
        elif caller.user != 0:
            self._refuse(caller, "only root may use the agent", Code.INVALID_ENVIRONMENT)
        elif self._callers.number_of(caller.process) > OF_ONE_PROCESS:
            has = f"process {caller.process} has {OF_ONE_PROCESS} requests at the agent already"
            self._refuse(caller, has)
        else:
            return False
        return True

    def _serve_one(self, caller: Caller) -> None:
        try:
            # The launcher's patience began when it connected: what has waited has less time left.
            seconds = deadline.SECONDS - (time.monotonic() - caller.accepted)
            if self._refusing:
                self._refuse(caller, STOPPING)
            elif seconds <= 0:
                self._refuse(caller, "the agent was too busy to begin with the request")
            elif not caller.speaks():
                self._put_aside(caller)
            else:
                with self._callers.hung_up(caller):
                    _answer(caller, seconds, self._watch)
        except Exception as error:
            log.error("a request was lost", problem=repr(error))

    def _put_aside(self, caller: Caller) -> None:
        self._callers.put_aside(caller)
        # All that were silent may have been refused already.
        for each in self._callers.silent() if self._refusing else ():
            self._refuse(each, STOPPING)

    def _refuse(self, caller: Caller, reason: str, code: Code = Code.TRY_AGAIN_LATER) -> None:
        self._watch.refused()
        with self._callers.hung_up(caller):
            _send(caller.connection, 1, _error(code, reason))


@contextlib.contextmanager
def listen(path: str) -> Iterator[socket.socket]:
    """A socket at `path` (mode 0600) as long as it is needed. Raises `AgentError`."""
    with contextlib.ExitStack() as stack:
        try:
            listener = _bind(stack, Path(path))
        except OSError as error:
            raise AgentError(f"listen on {path}: {error.strerror or error}") from None
        with listener:
            yield listener


def run(path: str = SOCKET, metrics: "pages.Address | None" = None) -> int:
    """Run the agent until SIGTERM, on systemd's socket if it passes one, else on one at `path`.

    `metrics`: where to tell figures, and whether it is well. Returns the exit status. Raises
    `AgentError`.
    """
    _raise_limit_of_descriptors()
    inherited = _from_systemd()
    with (
        inherited or listen(path) as listener,
        nics.kept(),
        xsk.served(path),
        _watching(metrics is not None) as watch,
        contextlib.ExitStack() as stack,
    ):
        agent = Agent(listener, inherited=inherited is not None, watch=watch)
        if metrics:
            _show(stack, metrics, listener, watch.figures(agent))
        stack.enter_context(agent.stopped_by(signal.SIGTERM, signal.SIGINT))
        with deadline.within():
            release.sweep()
        # What is loaded by now stays: the collector need not look at it over and over. And hardly
        # anything of a request is left to it, so that a look every few requests is enough.
        gc.freeze()
        gc.set_threshold(GARBAGE)
        log.info("ready", socket=path)
        _notify("READY=1")
        agent.serve()
    log.info("stopped", socket=path)
    return 0


@contextlib.contextmanager
def _watching(with_metrics: bool) -> Iterator[Watch]:
    with contextlib.ExitStack() as stack:
        try:
            watch = stack.enter_context(watching(with_metrics=with_metrics))
        except Unavailable as error:
            raise AgentError(f"--metrics: {error}") from None
        yield watch


def _show(
    stack: contextlib.ExitStack,
    at: "pages.Address",
    listener: socket.socket,
    figures: Callable[[], bytes],
) -> None:
    # With what it needs it is a twentieth of the agent's memory.
    from cni_netkit import pages
    from cni_netkit.agent import health

    made = {**health.of(listener.getsockname()), "/metrics": pages.plain(figures)}
    stack.enter_context(pages.shown(at, "--metrics", made))


class Memory:
    """What all large requests together may take."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """So many bytes. Raises `WireError` where there are not as many left."""
        with self._guard:
            if size > self._left:
                raise wire.WireError(f"there is no room for a request of {size} bytes just now")
            self._left -= size
        try:
            yield
        finally:
            with self._guard:
                self._left += size


_memory = Memory(MEMORY_BYTES)


def _answer(caller: Caller, seconds: float, watch: Watch) -> None:
    connection = caller.connection
    with contextlib.ExitStack() as stack:

        def reserve(size: int) -> None:
            if size > LARGE_BYTES:
                stack.enter_context(_memory.taken(size))

        try:
            until = time.monotonic() + wire.REQUEST_SECONDS
            request = wire.receive_request(connection, until, reserve)
        except wire.WireError as error:
            log.warning("no request came", problem=str(error))
            watch.refused()
            _send(connection, 1, _error(Code.TRY_AGAIN_LATER, str(error)))
            return
        for descriptor in request.descriptors:
            stack.callback(os.close, descriptor)
        waits = partial(_waits, connection)
        course = watch.begin(request.environment, caller.accepted)
        with course.noted("turn"), deadline.within(seconds, waits), turns.held():
            answer = verbs.handle(
                course.environment, BytesIO(request.stdin).read, request.netns, request.route
            )
    output = b"" if answer.output is None else json.dumps(answer.output).encode() + b"\n"
    with log.bound(**tracecontext.words(course.environment)):
        _send(connection, answer.status, output)
    watch.end(course, answer)


def _waits(connection: socket.socket) -> bool:
    """Whether the launcher is still there."""
    ended = select.poll()
    ended.register(connection, 0)  # POLLHUP is always told
    return not ended.poll(0)


def _send(connection: socket.socket, status: int, output: bytes) -> None:
    """A launcher that goes away undoes nothing: the runtime will DEL what it does not want."""
    try:
        wire.send_answer(connection, status, output, time.monotonic() + wire.REQUEST_SECONDS)
    except wire.WireError as error:
        log.warning("nobody took the answer", problem=str(error))


def _error(code: Code, message: str) -> bytes:
    return json.dumps(CNIError(code, message, "nothing was done").as_dict(NEWEST)).encode() + b"\n"


def _bind(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    """A socket at `path`, which the stack removes, in place of one that a dead agent left."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    stack.callback(os.close, _claim(path))
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise AgentError(f"listen on {path}: there is something that is no socket")
    return sockets.bind(stack, path, socket.SOCK_STREAM, 0o600)


def _claim(path: Path) -> int:
    """Be the only agent at this socket, as long as the descriptor is open."""
    name = path.with_name(path.name + ".lock")
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentError(f"an agent is listening on {path} already") from None
    return lock


def _from_systemd() -> socket.socket | None:
    """The socket of a systemd unit. It stays when the agent goes: whoever connects meanwhile waits.

    Raises `AgentError` where what is passed is not what an agent needs.
    """
    process, count, _ = (
        os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if process != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise AgentError(f"systemd passes {count} sockets, and the agent listens on one")
    try:
        os.set_inheritable(LISTEN_FDS_START, False)
        listener = socket.socket(fileno=LISTEN_FDS_START)
    except OSError as error:
        raise AgentError(f"use the socket that systemd passes: {error.strerror}") from None
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (listener.family, listener.type, listens) != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        listener.close()
        raise AgentError(
            "the socket that systemd passes is none to accept connections on: "
            "the unit needs ListenStream= with a path, and Accept=no"
        )
    return listener


def _raise_limit_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        soft = max(soft, min(hard, DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _notify(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
