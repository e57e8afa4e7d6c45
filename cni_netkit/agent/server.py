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
import selectors
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import FrameType

from cni_netkit import deadline, log, turns, verbs
from cni_netkit.agent import wire
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.version import NEWEST

SOCKET = "/run/cni-netkit/agent.sock"
WORKERS = 128
"""Most of them wait for the kernel, for example for deletions that are carried out together.

A launcher whose runtime is slow to write its input holds one, `wire.REQUEST_SECONDS` at most: only
root can connect, and who comes meanwhile waits and is not refused.
"""

WAITING = 1024
"""Requests accepted and not begun; more are told to come again (error 11)."""

DESCRIPTORS = 16384
"""A request has about ten files open. The usual limit of 1024 would be too few for all workers."""

STACK_BYTES = 512 << 10
PAUSE_SECONDS = 0.05
"""Where no connection can be accepted: somebody must be served before the next can be taken."""

LISTEN_FDS_START = 3
CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


class AgentError(Exception):
    """The agent cannot start; the text says why."""


class Agent:
    """The workers behind a listening socket."""

    def __init__(self, listener: socket.socket, *, inherited: bool = False) -> None:
        """`inherited`: the socket is systemd's and stays, for the agent that comes next."""
        self._inherited = inherited
        # Who was in the queue may be gone again, or be taken by somebody else, before accept(2).
        listener.setblocking(False)
        self._listener = listener
        self._accepting = True
        self._room = threading.Semaphore(WORKERS + WAITING)
        self._draining = threading.Event()
        self._drained = threading.Event()
        self._wakeup, self._woken = socket.socketpair()
        for each in (self._wakeup, self._woken):
            each.setblocking(False)
        threading.stack_size(STACK_BYTES)
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="request")

    def serve(self) -> None:
        """Answer requests until `stop`; then finish what runs and refuse everything else.

        On an inherited socket nobody is refused: what was accepted is finished, and who connects
        then waits for the next agent.
        """
        with selectors.DefaultSelector() as selector, self._wakeup, self._woken:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            self._accept_until(self._draining, selector)
            _notify("STOPPING=1")
            if self._inherited:
                selector.unregister(self._listener)
            finisher = threading.Thread(target=self._finish)
            finisher.start()
            self._accept_until(self._drained, selector)
            finisher.join()

    def stop(self, *_signal: int | FrameType | None) -> None:
        """Have `serve` end; usable as a signal handler."""
        self._draining.set()
        self._wake()

    def _finish(self) -> None:
        self._workers.shutdown(wait=True)
        self._drained.set()
        self._wake()

    def _wake(self) -> None:
        # Full or closed: then there is nobody who has to be woken.
        with contextlib.suppress(OSError):
            self._wakeup.send(b"\0")

    def _accept_until(self, event: threading.Event, selector: selectors.BaseSelector) -> None:
        while not event.is_set():
            for key, _ in selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._woken.recv(4096)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if self._accepting:
                log.error("no connection can be accepted", problem=error.strerror)
            self._accepting = False
            time.sleep(PAUSE_SECONDS)
            return
        self._accepting = True
        if self._draining.is_set() and not self._inherited:
            _refuse(connection, "the agent is being stopped")
        elif not _is_root(connection):
            _refuse(connection, "only root may use the agent", Code.INVALID_ENVIRONMENT)
        elif not self._room.acquire(blocking=False):
            _refuse(connection, "the agent has too many requests waiting")
        else:
            try:
                self._workers.submit(self._serve_one, connection, time.monotonic())
            except RuntimeError as error:
                # No further thread: the request is in the queue, for those there are.
                log.error("no worker can be started", problem=str(error))

    def _serve_one(self, connection: socket.socket, accepted: float) -> None:
        try:
            # The launcher's patience began when it connected: what has waited has less time left.
            seconds = deadline.SECONDS - (time.monotonic() - accepted)
            if self._draining.is_set() and not self._inherited:
                _refuse(connection, "the agent is being stopped")
            elif seconds <= 0:
                _refuse(connection, "the agent was too busy to begin with the request")
            else:
                with connection:
                    _answer(connection, seconds)
        except Exception as error:
            log.error("a request was lost", problem=repr(error))
        finally:
            self._room.release()


@contextlib.contextmanager
def listen(path: str) -> Iterator[socket.socket]:
    """The socket that systemd passes, else one at `path` (mode 0600) as long as it is needed.

    Raises `AgentError`.
    """
    with contextlib.ExitStack() as stack:
        listener = _from_systemd()
        if listener is None:
            try:
                listener = _bind(stack, Path(path))
            except OSError as error:
                raise AgentError(f"listen on {path}: {error.strerror or error}") from None
        with listener:
            yield listener


def run(path: str = SOCKET) -> int:
    """Run the agent until SIGTERM; the exit status. Raises `AgentError`."""
    _raise_limit_of_descriptors()
    inherited = os.environ.get("LISTEN_PID") == str(os.getpid())
    with listen(path) as listener:
        agent = Agent(listener, inherited=inherited)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, agent.stop)
        with deadline.within():
            verbs.sweep()
        # What is loaded by now stays: the collector need not look at it over and over.
        gc.freeze()
        log.info("ready", socket=path)
        _notify("READY=1")
        agent.serve()
    log.info("stopped", socket=path)
    return 0


def _answer(connection: socket.socket, seconds: float) -> None:
    try:
        request = wire.receive_request(connection, time.monotonic() + wire.REQUEST_SECONDS)
    except wire.WireError as error:
        log.warning("no request came", problem=str(error))
        _send(connection, 1, _error(Code.TRY_AGAIN_LATER, str(error)))
        return
    try:
        with deadline.within(seconds), turns.taken():
            answer = verbs.handle(request.environment, BytesIO(request.stdin).read, request.netns)
    finally:
        if request.netns is not None:
            os.close(request.netns)
    output = b"" if answer.output is None else json.dumps(answer.output).encode() + b"\n"
    _send(connection, answer.status, output)


def _send(connection: socket.socket, status: int, output: bytes) -> None:
    """A launcher that has gone away undoes nothing: the runtime will DEL what it does not want."""
    try:
        wire.send_answer(connection, status, output, time.monotonic() + wire.REQUEST_SECONDS)
    except wire.WireError as error:
        log.warning("nobody took the answer", problem=str(error))


def _refuse(connection: socket.socket, reason: str, code: Code = Code.TRY_AGAIN_LATER) -> None:
    with connection:
        _send(connection, 1, _error(code, reason))


def _error(code: Code, message: str) -> bytes:
    return json.dumps(CNIError(code, message, "nothing was done").as_dict(NEWEST)).encode() + b"\n"


def _is_root(connection: socket.socket) -> bool:
    """By the peer's credentials (unix(7), SO_PEERCRED): the socket's mode alone is a habit."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(raw)[1]) == 0


def _bind(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    """A socket at `path`, which the stack removes, in place of one that a dead agent left."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    stack.callback(os.close, _claim(path))
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise AgentError(f"listen on {path}: there is something that is no socket")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Born with its mode: nobody can connect before it is set.
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        stack.callback(path.unlink, missing_ok=True)
        listener.listen(socket.SOMAXCONN)
    except BaseException:
        listener.close()
        raise
    return listener


def _claim(path: Path) -> int:
    """Be the only agent at this socket, as long as the descriptor is open."""
    name = path.with_name(path.name + ".lock")
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
