"""Who calls the agent: connections, how many one process has, and those that say nothing yet.

A launcher connects before it reads its standard input, so that a runtime which is slow to write it
makes a silent caller. Nobody is to wait for one: it is put aside, without a thread, till it begins.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cni_netkit import log, sockets
from cni_netkit.agent import wire

FIRST_BYTE_SECONDS = 0.1
"""For a thread to wait for; then the caller is put aside, for `wire.REQUEST_SECONDS` at most."""

OF_ONE_PROCESS = 64
"""Callers at a time: a launcher is one. Of another PID namespace the kernel does not tell the
process, and there is no such bound."""

PAUSE_SECONDS = 0.05
"""Where no connection can be accepted: somebody must be served before the next can be taken."""


@dataclass(eq=False)
class Caller:
    """A connection, the process and user that made it, when it was accepted (time.monotonic())."""

    connection: socket.socket
    process: int
    user: int
    accepted: float

    def speaks(self) -> bool:
        """Whether there is something to read, or the end, at once or nearly so."""
        said = select.poll()
        said.register(self.connection, select.POLLIN)
        return bool(said.poll(FIRST_BYTE_SECONDS * 1000))


class Callers:
    """Everybody who has called at a socket. Any thread may use it; one at a time waits."""

    def __init__(self, listener: socket.socket) -> None:
        # Who was in the backlog may be gone again, or be another agent's, before accept(2).
        listener.setblocking(False)
        self._listener = listener
        self._accepting, self._closed = True, False
        self._guard = threading.Lock()
        self._of_process: Counter[int] = Counter()
        self._silent: dict[int, Caller] = {}
        self._ready = select.epoll()
        self._news = os.eventfd(0, os.EFD_CLOEXEC)
        self._ready.register(listener, select.EPOLLIN)
        # By edges: each is told once, and nobody has to read it away.
        self._ready.register(self._news, select.EPOLLIN | select.EPOLLET)

    def accept_no_more(self) -> None:
        """Whoever connects from now on is not taken, nor refused; who is silent may still begin."""
        with self._guard:
            self._closed = True
            self._ready.unregister(self._listener)
        os.eventfd_write(self._news, 1)

    def disappear(self) -> None:
        """Have nobody else find the socket; who has connected is still accepted."""
        with contextlib.suppress(OSError):
            os.unlink(self._listener.getsockname())

    def rest(self) -> Iterator[Caller]:
        """Whom nobody has accepted yet; after `disappear` these are the last."""
        while caller := self._accept():
            yield caller

    def close(self) -> None:
        """Let go of what waiting takes, when nobody waits any more; the socket is the caller's."""
        self._ready.close()
        os.close(self._news)

    @property
    def has_silent(self) -> bool:
        """Whether somebody is put aside."""
        return bool(self._silent)

    def next(self) -> Caller | None:
        """Wait for somebody who has connected, or begins to speak; None if it was nobody."""
        for descriptor, _ in self._ready.poll(self._patience(), 1):
            if descriptor == self._listener.fileno():
                return self._accept()
            with self._guard:
                if caller := self._silent.get(descriptor):
                    self._take(caller)
                return caller
        return None

    def put_aside(self, caller: Caller) -> None:
        """Have `next` return a caller again when it begins."""
        with self._guard:
            self._silent[caller.connection.fileno()] = caller
            self._ready.register(caller.connection, select.EPOLLIN)
        # Whoever waits may have to wait less long now.
        os.eventfd_write(self._news, 1)

    def silent(self, seconds: float = 0.0) -> list[Caller]:
        """Take out who is put aside and was accepted so many seconds ago, or more."""
        since = time.monotonic() - seconds
        with self._guard:
            found = [each for each in self._silent.values() if each.accepted <= since]
            for each in found:
                self._take(each)
        return found

    def number_of(self, process: int) -> int:
        """How many callers a process is; 0 of one that is not told."""
        return self._of_process[process] if process else 0

    @contextlib.contextmanager
    def hung_up(self, caller: Caller) -> Iterator[None]:
        """Hang up on a caller in the end."""
        try:
            with caller.connection:
                yield
        finally:
            with self._guard:
                self._of_process[caller.process] -= 1
                if not self._of_process[caller.process]:
                    del self._of_process[caller.process]

    def _take(self, caller: Caller) -> None:
        del self._silent[caller.connection.fileno()]
        self._ready.unregister(caller.connection)

    def _patience(self) -> float | None:
        """Seconds until somebody has been silent for too long."""
        with self._guard:
            first = min((each.accepted for each in self._silent.values()), default=None)
        if first is None:
            return None
        return max(0.0, first + wire.REQUEST_SECONDS - time.monotonic())

    def _accept(self) -> Caller | None:
        try:
            with self._guard:
                if self._closed:
                    return None
                connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:
            if self._accepting:
                log.error("no connection can be accepted", problem=error.strerror)
            self._accepting = False
            time.sleep(PAUSE_SECONDS)
            return None
        self._accepting = True
        process, user = sockets.peer(connection)
        with self._guard:
            self._of_process[process] += 1
        return Caller(connection, process, user, time.monotonic())
