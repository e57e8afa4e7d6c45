"""Pages by HTTP/1.1, on a loopback port or a Unix socket: figures, and whether all is well.

Anybody on the node may reach a loopback port, so nobody can hold up others: a connection has one
answer and some seconds, the oldest goes where there are too many, and a page is made anew once a
second at most, however often it is asked for.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cni_netkit import log, sockets

CONNECTIONS = 16
SECONDS = 10.0
"""For all of a connection."""

HEAD_BYTES = 8192
FRESH_SECONDS = 1.0
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format; to everybody else it is plain text."""


class AddressError(ValueError):
    """What is not an address that pages may have; the text says why."""


@dataclass(frozen=True)
class Address:
    """Where pages are: a port of a loopback address, or a path."""

    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`/PATH`, `127.0.0.1:PORT` or `[::1]:PORT`. Raises `AddressError`."""
        if text.startswith("/"):
            return cls(text)
        host, _, port = text.rpartition(":")
        try:
            address = ip_address(host.removeprefix("[").removesuffix("]"))
            number = int(port)
        except ValueError:
            raise AddressError(
                f"{text!r} is no address: it takes 127.0.0.1:PORT, [::1]:PORT or the path of a "
                "Unix socket"
            ) from None
        if not address.is_loopback:
            raise AddressError(
                f"{text} is not a loopback address, and what is told is for this node: "
                "take 127.0.0.1, and have a collector on the node pass it on"
            )
        if not 0 < number < 1 << 16:
            raise AddressError(f"{text}: a port is a number from 1 to 65535")
        return cls(str(address), number)

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Answer(NamedTuple):
    """What a page says."""

    status: HTTPStatus
    body: bytes


Page = Callable[[], Answer]
"""Makes an answer, in a thread; may take some seconds."""


def plain(text: Callable[[], bytes]) -> Page:
    """A page of a text that is there always."""
    return lambda: Answer(HTTPStatus.OK, text())


@contextlib.contextmanager
def shown(address: Address, option: str, made: Mapping[str, Page]) -> Iterator[None]:
    """`served`, or an error in the log: anybody on the node can take a port, and stops nobody so.

    `option` of the command is what gave it the address.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(served(address, made))
        except OSError as error:
            log.error(
                f"no {', '.join(made)}: listen on {address}: {error.strerror or error}",
                remedy=f"give {option} another address, or end what has this; then start it again",
            )
        yield


@contextlib.contextmanager
def served(address: Address, made: Mapping[str, Page]) -> Iterator[None]:
    """Answer who asks for one of these pages, in a thread. Raises OSError if it cannot listen."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(stack, address))
        executor = stack.enter_context(ThreadPoolExecutor(len(made), "page"))
        server = _Server({path: _Fresh(page, executor) for path, page in made.items()})
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        stopped = asyncio.Event()
        serving = threading.Thread(
            target=loop.run_until_complete, args=(server.run(listener, stopped),), name="pages"
        )
        serving.start()
        stack.callback(serving.join)
        stack.callback(loop.call_soon_threadsafe, stopped.set)
        yield


def _listen(stack: contextlib.ExitStack, address: Address) -> socket.socket:
    if not address.port:
        # Whoever is to read it besides root can be given a loopback port.
        return sockets.bind(stack, Path(address.host), socket.SOCK_STREAM, 0o600)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)


class _Fresh:
    """A page, made anew when it is asked for and is older than `FRESH_SECONDS`.

    Once at a time: who asks meanwhile gets the same, and who goes away does not end it.
    """

    def __init__(self, page: Page, executor: ThreadPoolExecutor) -> None:
        self._page, self._executor = page, executor
        self._made: asyncio.Future[Answer] | None = None
        self._stale = 0.0

    async def get(self) -> Answer:
        made = self._made
        if made is None or (made.done() and time.monotonic() >= self._stale):
            loop = asyncio.get_running_loop()
            self._made = made = loop.run_in_executor(self._executor, self._make)
        return await asyncio.shield(made)

    def _make(self) -> Answer:
        try:
            return self._page()
        except Exception as error:
            log.error("a page cannot be shown", problem=repr(error))
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self._stale = time.monotonic() + FRESH_SECONDS


class _Server:
    """What is at the other end of each connection."""

    def __init__(self, made: Mapping[str, _Fresh]) -> None:
        self._pages = made
        self._open: list[asyncio.Task[None]] = []

    async def run(self, listener: socket.socket, stopped: asyncio.Event) -> None:
        """Serve until it is to stop; then hang up on everybody."""
        server = await asyncio.start_server(self._serve, sock=listener, limit=HEAD_BYTES)
        await stopped.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.append(task)
        if len(self._open) > CONNECTIONS:
            self._open.pop(0).cancel()
        try:
            async with asyncio.timeout(SECONDS):
                # Till all has gone: what waits in a buffer would be nobody's.
                writer.transport.set_write_buffer_limits(0)
                writer.write(_message(*await self._answer(reader)))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            if task in self._open:
                self._open.remove(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        """An answer, and whether the body goes with it (RFC 9110, section 9.3.2)."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        except asyncio.IncompleteReadError:
            return _error(HTTPStatus.BAD_REQUEST), True
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _error(HTTPStatus.BAD_REQUEST), True
        method, target, _ = words
        if method not in (b"GET", b"HEAD"):
            return _error(HTTPStatus.METHOD_NOT_ALLOWED), True
        page = self._pages.get(target.partition(b"?")[0].decode(errors="replace"))
        answer = await page.get() if page else _error(HTTPStatus.NOT_FOUND)
        return answer, method == b"GET"


def _error(status: HTTPStatus) -> Answer:
    return Answer(status, f"{status.phrase}\n".encode())


def _message(answer: Answer, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {TEXT}\r\nContent-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
