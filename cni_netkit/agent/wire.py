"""The frames between launcher and agent: one request, one answer, then the connection is over.

All numbers are big-endian. Magic and version stay where they are in every version to come, so that
two releases that do not fit can say so.

========= ===== =============================================================================
request   bytes
========= ===== =============================================================================
magic     4     `NKRQ`
version   2     1
netns     2     number of descriptors that come with the first byte, by SCM_RIGHTS: none; the
                container's namespace; or that and an rtnetlink socket in it
error     4     why there is none although CNI_NETNS is set: the errno of open(2); else 0
length    4     of the environment, at most 8 MiB
length    4     of standard input, at most 16 MiB
environment     the launcher's, all of it (for delegated IPAM): `NAME=VALUE`, each with a NUL
standard input  as the runtime wrote it
========= ===== =============================================================================

========= ===== =============================================================================
answer    bytes
========= ===== =============================================================================
magic     4     `NKAN`
version   2     1
status    2     exit status of the launcher, 0 to 255
length    4     of the output, at most 16 MiB
output          what the launcher prints on standard output, as it is
========= ===== =============================================================================

The other side is `launcher/netkit.c`. It connects before it reads standard input, so that some time
can pass before the first byte of a request: `REQUEST_SECONDS` at most. It waits for the answer
`ANSWER_SECONDS`, and prints an answer that comes early too, for example a refusal.

A deadline is a time of `time.monotonic()`. Sockets are left with a timeout set.
"""

import array
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from cni_netkit import sockets

VERSION = 1
INPUT_LIMIT = 16 << 20
OUTPUT_LIMIT = 16 << 20
ENVIRONMENT_LIMIT = 8 << 20
REQUEST_SECONDS = 19.0
"""INPUT_MS and SEND_MS of the launcher."""
PAUSE_SECONDS = 2.0
"""At most between two parts of a request: all of it is there when a launcher sends the first."""

ANSWER_SECONDS = 75.0
"""RECEIVE_MS of the launcher."""

DESCRIPTORS = 2

_REQUEST = struct.Struct("!4sHHIII")
_ANSWER = struct.Struct("!4sHHI")
_REQUEST_MAGIC = b"NKRQ"
_ANSWER_MAGIC = b"NKAN"
_FIRST = 64 << 10
"""Nearly every request is shorter than this, and comes with one system call."""
_CHUNK = 1 << 20


class WireError(Exception):
    """A frame that did not come, did not go, or is none; the connection is good for nothing more.

    An agent may still answer with an error object: the launcher reads it if it can.
    """


@dataclass(frozen=True)
class WireRequest:
    """What the launcher was given. `netns` and `route` are open, and for the receiver to close.

    `netns` is whatever lay at CNI_NETNS: whether it is a network namespace remains to be seen, and
    whether `route` is an rtnetlink socket in it. `netns_error` is the errno with which the launcher
    could not open it.
    """

    environment: dict[str, str]
    stdin: bytes
    netns: int | None = None
    route: int | None = None
    netns_error: int = 0

    @property
    def descriptors(self) -> list[int]:
        """Those that are open."""
        return [each for each in (self.netns, self.route) if each is not None]


@dataclass(frozen=True)
class WireAnswer:
    """What the launcher prints, and the status it exits with."""

    status: int
    output: bytes


def receive_request(
    sock: socket.socket, deadline: float, reserve: Callable[[int], None] = lambda _: None
) -> WireRequest:
    """Receive one request. Raises `WireError`; then no descriptor that came with it is open.

    `reserve` is told how many bytes it has, before they are received; what it raises is passed on.
    """
    with _failing_as("the request was not received"):
        data, descriptors, complete = _receive_first(sock, deadline)
        try:
            _fill(sock, data, _REQUEST.size, deadline, PAUSE_SECONDS)
            magic, version, announced, netns_error, *lengths = _REQUEST.unpack_from(data)
            _check(magic, _REQUEST_MAGIC, version)
            environment_length, stdin_length = lengths
            if environment_length > ENVIRONMENT_LIMIT or stdin_length > INPUT_LIMIT:
                raise WireError(
                    f"a request announces {environment_length} bytes of environment and "
                    f"{stdin_length} bytes of standard input, "
                    f"of {ENVIRONMENT_LIMIT} and {INPUT_LIMIT} at most"
                )
            if announced > DESCRIPTORS or len(descriptors) != announced or not complete:
                raise WireError(
                    f"a request announces {announced} descriptors ({DESCRIPTORS} at most), and "
                    f"{len(descriptors)} came: is the limit of open files too low?"
                )
            reserve(environment_length + stdin_length)
            body = _REQUEST.size + environment_length
            _fill(sock, data, body + stdin_length, deadline, PAUSE_SECONDS)
            if len(data) > body + stdin_length:
                raise WireError(
                    f"a request has more than the {body + stdin_length} bytes it announces"
                )
            return WireRequest(
                environment=_decode(bytes(data[_REQUEST.size : body])),
                stdin=bytes(data[body:]),
                netns=descriptors[0] if descriptors else None,
                route=descriptors[1] if len(descriptors) > 1 else None,
                netns_error=netns_error,
            )
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise


def send_answer(sock: socket.socket, status: int, output: bytes, deadline: float) -> None:
    """Send the answer to a request. Raises `WireError`, before a byte is sent if it is too long."""
    if not 0 <= status <= 255 or len(output) > OUTPUT_LIMIT:
        raise WireError(
            f"an answer of exit status {status} and {len(output)} bytes cannot be sent: "
            f"255 and {OUTPUT_LIMIT} are the most"
        )
    header = _ANSWER.pack(_ANSWER_MAGIC, VERSION, status, len(output))
    with _failing_as("the answer was not sent"):
        sock.settimeout(_left(deadline))
        sock.sendall(header + output)


def send_request(sock: socket.socket, request: WireRequest, deadline: float) -> None:
    """Send a request, as the launcher does. Raises `WireError`."""
    environment = _encode(request.environment)
    descriptors = request.descriptors
    header = _REQUEST.pack(
        _REQUEST_MAGIC,
        VERSION,
        len(descriptors),
        request.netns_error,
        len(environment),
        len(request.stdin),
    )
    frame = memoryview(header + environment + request.stdin)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    with _failing_as("the request was not sent"):
        sock.settimeout(_left(deadline))
        sent = sock.sendmsg([frame], rights if descriptors else [])
        # A send of nothing would fail where the answer has come already and the peer has gone.
        if sent < len(frame):
            sock.settimeout(_left(deadline))
            sock.sendall(frame[sent:])


def receive_answer(sock: socket.socket, deadline: float) -> WireAnswer:
    """Receive the answer to a request, as the launcher does. Raises `WireError`."""
    data = bytearray()
    with _failing_as("the answer was not received"):
        _fill(sock, data, _ANSWER.size, deadline)
        magic, version, status, length = _ANSWER.unpack(data)
        _check(magic, _ANSWER_MAGIC, version)
        if length > OUTPUT_LIMIT:
            raise WireError(f"an answer announces {length} bytes, of {OUTPUT_LIMIT} at most")
        _fill(sock, data, _ANSWER.size + length, deadline)
    return WireAnswer(status, bytes(data[_ANSWER.size :]))


def _receive_first(sock: socket.socket, deadline: float) -> tuple[bytearray, list[int], bool]:
    """Receive what there is of a request, the descriptors with it, and whether those are all."""
    sock.settimeout(_left(deadline))
    data, descriptors, complete = sockets.receive(sock, _FIRST, DESCRIPTORS)
    return bytearray(data), descriptors, complete


def _fill(
    sock: socket.socket, data: bytearray, whole: int, deadline: float, pause: float = inf
) -> None:
    """Receive until `data` has `whole` bytes; `pause`: seconds at most for the next of them."""
    while len(data) < whole:
        sock.settimeout(min(_left(deadline), pause))
        more = sock.recv(min(whole - len(data), _CHUNK))
        if not more:
            raise WireError(f"the peer hung up after {len(data)} of {whole} bytes")
        data += more


def _check(magic: bytes, expected: bytes, version: int) -> None:
    if magic != expected:
        raise WireError(f"a frame begins with {magic!r}, where {expected!r} should be")
    if version != VERSION:
        raise WireError(
            f"the peer speaks version {version} of the protocol, and this is {VERSION}: "
            "launcher and agent are of different releases"
        )


def _encode(environment: Mapping[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())


def _decode(block: bytes) -> dict[str, str]:
    """Decode as `os.environ` does: the first of a name counts, what has no '=' is nothing."""
    if block and not block.endswith(b"\0"):
        raise WireError("the environment of a request does not end with a NUL")
    environment: dict[str, str] = {}
    for entry in block.split(b"\0"):
        name, separator, value = entry.partition(b"=")
        if separator:
            environment.setdefault(os.fsdecode(name), os.fsdecode(value))
    return environment


def _left(deadline: float) -> float:
    """Seconds until then. Raises `TimeoutError` when there are none (0 would mean not to wait)."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise WireError(f"{what} in time") from None
    except OSError as error:
        raise WireError(f"{what}: {error.strerror}") from None
