"""A plain netlink socket: several requests in one send, the kernel's own words in every error.

A message is bytes, packed by whoever asks: rtnetlink, ethtool, sock_diag. Those of two families are
pyroute2's, the netdev family's and nftables'. Its sockets are not used: see docs/decisions/D-3.md.
Follows include/uapi/linux/netlink.h and Documentation/userspace-api/netlink/intro.rst.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cni_netkit.kernel.errors import KernelError, LostAnswer
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import (
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    SOL_NETLINK,
)

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""

CODE = struct.Struct("=i")
"""How a request ended: 0 or a negative errno."""

ANSWER_SECONDS = 30
"""A netlink request is answered at once; only a kernel in trouble takes this long."""

RECEIVE_BYTES = 1 << 17
DUMP_ATTEMPTS = 20
BATCH = 100
"""Requests at a time where there are many: an answer takes 768 bytes of 208 KiB, or more."""


@dataclass
class Ask:
    """One request: what it asks, in words; the message, and what it is.

    The message is bytes without the netlink header, and so are the answers; or it is one of
    pyroute2's, and so are they.
    """

    asked: str
    message: Any
    type: int
    flags: int = 0
    acknowledged: bool = True


class NetlinkSocket:
    """A netlink socket, which lives in one network namespace; nobody has used it yet."""

    def __init__(self, unused: socket.socket) -> None:
        self._sequence = 0
        self.interrupted = False
        self._socket = unused
        try:
            for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
                unused.setsockopt(SOL_NETLINK, option, 1)
            unused.settimeout(ANSWER_SECONDS)
            unused.bind((0, 0))
        except OSError:
            unused.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, *batch: Ask, tolerated: Collection[int] = ()) -> list[list[Any]]:
        """Send the requests in one system call; return the decoded answers to each.

        The kernel carries them out in order, and goes on after one that it refuses. Raises
        `KernelError` for the first that was refused with another errno than the `tolerated` ones.
        """
        answers, refusals = self._ask(batch, tolerated)
        if refusals:
            raise refusals[min(refusals)]
        return answers

    def refusals(self, *batch: Ask) -> dict[int, KernelError]:
        """Send the requests in one system call; which were refused, by their place.

        For so many that their answers find room in the socket (`BATCH`).
        """
        _, refusals = self._ask(batch, ())
        return refusals

    def _ask(
        self, batch: Sequence[Ask], tolerated: Collection[int]
    ) -> tuple[list[list[Any]], dict[int, KernelError]]:
        sequences = range(self._sequence + 1, self._sequence + 1 + len(batch))
        self._sequence = sequences.stop - 1
        data = b"".join(
            _encode(request, sequence) for request, sequence in zip(batch, sequences, strict=True)
        )
        self._send(batch, data)
        answers: dict[int, list[Any]] = {sequence: [] for sequence in sequences}
        refusals: dict[int, KernelError] = {}
        # One that is turned down is answered for the request that it failed at, or for the whole.
        is_transaction = not all(request.acknowledged for request in batch)
        interrupted = False
        pending = {
            sequence
            for request, sequence in zip(batch, sequences, strict=True)
            if request.acknowledged
        }
        while pending:
            for kind, flags, sequence, payload in self._receive(batch):
                if sequence not in answers:
                    continue  # left over from a request that timed out
                request = batch[sequence - sequences.start]
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    refused = _refusal(request, kind, flags, payload)
                    if refused and refused.errno not in tolerated:
                        refusals[sequence - sequences.start] = refused
                        if is_transaction:
                            pending.clear()
                    pending.discard(sequence)
                else:
                    interrupted |= bool(flags & NLM_F_DUMP_INTR)
                    answers[sequence].append(_decode(request, payload))
        self.interrupted = interrupted
        return list(answers.values()), refusals

    def dump(
        self, asked: str, message: Any, kind: int, tolerated: Collection[int] = ()
    ) -> list[Any]:
        """Ask for every object; again, where it changed meanwhile (NLM_F_DUMP_INTR).

        Raises `KernelError` where it always does: what is known then is neither old nor new.
        """
        for _ in range(DUMP_ATTEMPTS):
            (answers,) = self.ask(Ask(asked, message, kind, NLM_F_DUMP), tolerated=tolerated)
            if not self.interrupted:
                return answers
        raise KernelError(asked, errno.EAGAIN, "it changes all the time")

    def each(self, asked: str, message: Any, kind: int) -> Iterator[Any]:
        """Ask for every object, and hand them out as they come, however many there are.

        For a socket that is closed then: the caller may leave before the end.
        """
        request = Ask(asked, message, kind, NLM_F_DUMP)
        self._sequence += 1
        self._send([request], _encode(request, self._sequence))
        while True:
            for answered, flags, _, payload in self._receive([request]):
                if answered in (NLMSG_ERROR, NLMSG_DONE):
                    if refused := _refusal(request, answered, flags, payload):
                        raise refused
                    if answered == NLMSG_DONE:
                        return
                    continue
                yield _decode(request, payload)

    def _send(self, batch: Sequence[Ask], data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise LostAnswer(batch[0].asked, error.errno or errno.EIO) from None

    def _receive(self, batch: Sequence[Ask]) -> list[tuple[int, int, int, bytes]]:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise LostAnswer(batch[0].asked, errno.ETIMEDOUT) from None
        except OSError as error:
            self._read_the_rest()
            raise LostAnswer(batch[0].asked, error.errno or errno.EIO) from None
        messages = []
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
            messages.append((kind, flags, sequence, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return messages

    def _read_the_rest(self) -> None:
        """Have the kernel tell again when it drops an answer (netlink_overrun())."""
        self._socket.settimeout(0)
        with suppress(OSError):
            while self._socket.recv(RECEIVE_BYTES):
                pass
        self._socket.settimeout(ANSWER_SECONDS)


def opened(netns: Netns, protocol: int) -> NetlinkSocket:
    """A socket in a namespace, which is entered for it if need be. Raises `KernelError`."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        return NetlinkSocket(netns.run(lambda: socket.socket(socket.AF_NETLINK, kind, protocol)))
    except OSError as error:
        asked = f"open a netlink socket in the network namespace {netns.path}"
        raise KernelError(asked, error.errno or errno.EIO) from None


def adopt(netns: Netns, protocol: int, descriptor: int) -> NetlinkSocket | None:
    """A socket over a second descriptor for the one that somebody opened in the namespace.

    None where it is something else: a socket of another namespace would do its work there.
    """
    own = os.dup(descriptor)
    try:
        given = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        return None
    if (given.family, given.proto) != (socket.AF_NETLINK, protocol) or not netns.has(given):
        given.close()
        return None
    return NetlinkSocket(given)


def _encode(request: Ask, sequence: int) -> bytes:
    message = request.message
    # A dump ends with NLMSG_DONE; an acknowledgement of its own would come in between.
    is_dump = request.flags & NLM_F_DUMP == NLM_F_DUMP
    acknowledge = NLM_F_ACK if request.acknowledged and not is_dump else 0
    flags = NLM_F_REQUEST | acknowledge | request.flags
    if isinstance(message, bytes):
        return HEADER.pack(HEADER.size + len(message), request.type, flags, sequence, 0) + message
    message["header"]["type"] = request.type
    message["header"]["flags"] = flags
    message["header"]["sequence_number"] = sequence
    message.reset()
    message.encode()
    data = bytes(message.data)
    return data + bytes(-len(data) % 4)


def _decode(request: Ask, payload: bytes) -> Any:
    if isinstance(request.message, bytes):
        return payload[HEADER.size :]
    answer = type(request.message)(payload)
    answer.decode()
    return answer


def _refusal(request: Ask, kind: int, flags: int, payload: bytes) -> KernelError | None:
    """Read NLMSG_ERROR, struct nlmsgerr, or NLMSG_DONE: a list may be broken off.

    Attributes with the reason follow (NLM_F_ACK_TLVS).
    """
    code = CODE.unpack_from(payload, HEADER.size)[0] if len(payload) > HEADER.size else 0
    if code >= 0:
        return None
    offset = HEADER.size + CODE.size
    if kind == NLMSG_ERROR:  # the request comes back, or its header
        (length,) = struct.unpack_from("=I", payload, offset)
        offset += HEADER.size if flags & NLM_F_CAPPED else (length + 3) & ~3
    text = ""
    if flags & NLM_F_ACK_TLVS:
        while offset + 4 <= len(payload):
            length, kind = struct.unpack_from("=HH", payload, offset)
            if length < 4:
                break
            if kind & 0x3FFF == NLMSGERR_ATTR_MSG:
                value = payload[offset + 4 : offset + length]
                text = value.rstrip(b"\0").decode(errors="replace")
            offset += (length + 3) & ~3
    return KernelError(request.asked, -code, os.fsdecode(text))
