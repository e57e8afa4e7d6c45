"""The resident agent: answers the launcher's requests with everything loaded.

It keeps nothing that a kill -9 could lose: state is in the kernel, in the records and in IPAM's
files, under the same locks as the in-process way. Sockets of systemd are taken over, readiness is
told (sd_listen_fds(3), sd_notify(3)).
"""

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import FrameType

from cni_netkit import deadline, log, verbs
from cni_netkit.agent import wire
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.version import NEWEST

SOCKET = "/run/cni-netkit/agent.sock"
WORKERS = 128
"""Most of them wait for the kernel, for example for deletions that are carried out together."""

WAITING = 1024
"""Requests accepted and not begun; more are told to come again (error 11)."""

STACK_BYTES = 512 << 10
LISTEN_FDS_START = 3
CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


class AgentError(Exception):
    """The agent cannot start; the text says why."""


class Agent:
    """A listening socket and the workers behind it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._pending = threading.Semaphore(WORKERS + WAITING)
        self._draining = threading.Event()
        self._wakeup, self._woken = socket.socketpair()
        threading.stack_size(STACK_BYTES)
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="request")

    def serve(self) -> None:
        """Answer requests until `stop`; then finish what runs and refuse what comes."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            self._accept_while(selector, lambda: not self._draining.is_set())
            finished = threading.Thread(target=self._finish)
            finished.start()
            selector.unregister(self._woken)
            self._accept_while(selector, finished.is_alive)
            finished.join()
        for each in (self._wakeup, self._woken):
            each.close()

    def stop(self, *_signal: int | FrameType | None) -> None:
        """Have `serve` end; usable as a signal handler."""
        self._draining.set()
        with contextlib.suppress(OSError):
            self._wakeup.send(b"\0")

    def _finish(self) -> None:
        self._workers.shutdown(wait=True)

    def _accept_while(self, selector: selectors.BaseSelector, condition: object) -> None:
        assert callable(condition)
        while condition():
            for key, _ in selector.select(timeout=0.1 if self._draining.is_set() else None):
                if key.fileobj is self._listener:
                    self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            # Out of descriptors: somebody must be served before the next can be taken.
            if error.errno in (errno.EMFILE, errno.ENFILE):
                log.error("no descriptor is left for another request")
                time.sleep(deadline.PAUSE)
            return
        if self._draining.is_set():
            _refuse(connection, "the agent is being stopped")
        elif not _is_root(connection):
            _refuse(connection, "only root may use the agent", Code.INVALID_ENVIRONMENT)
        elif not self._pending.acquire(blocking=False):
            _refuse(connection, "the agent has too many requests waiting")
        else:
            self._workers.submit(self._serve_one, connection)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            with connection:
                _answer(connection)
        except Exception as error:
            log.error("a request was lost", problem=repr(error))
        finally:
            self._pending.release()


def listen(path: str) -> socket.socket:
    """The socket systemd passes, else one at `path` (mode 0600). Raises `AgentError`."""
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()):
        os.environ.pop("LISTEN_FDS", None)
        return socket.socket(fileno=LISTEN_FDS_START)
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _claim(target)
        target.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Born with its mode: nobody can connect before it is set.
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        raise AgentError(f"listen on {path}: {error.strerror}") from None
    return listener


def run(path: str = SOCKET) -> int:
    """Run the agent until SIGTERM; the exit status."""
    agent = Agent(listen(path))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.stop)
    with deadline.within():
        verbs.sweep()
    log.info("ready", socket=path)
    _notify("READY=1")
    agent.serve()
    _notify("STOPPING=1")
    log.info("stopped", socket=path)
    return 0


def _answer(connection: socket.socket) -> None:
    try:
        request = wire.receive_request(connection, time.monotonic() + wire.REQUEST_SECONDS)
    except wire.WireError as error:
        log.warning("no request came", problem=str(error))
        _send(connection, 1, _error(Code.TRY_AGAIN_LATER, str(error)))
        return
    try:
        with deadline.within():
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


def _claim(path: Path) -> None:
    """Be the only agent at this socket, as long as the process lives."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentError(f"an agent is listening on {path} already") from None


def _notify(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
