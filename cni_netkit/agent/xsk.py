"""xsk.sock: an application in a container hands its AF_XDP socket over, and receives from then on.

Anybody may connect (SOCK_SEQPACKET), and nobody is believed: a message's content means nothing, the
descriptor that comes with it (SCM_RIGHTS) is all that counts. The kernel tells which queue it is
bound to, and which NIC's queue that is a lease of; under that it goes into the map which the NIC's
XDP program looks into. The answer is one line of JSON, `{"ok": true}` or `{"ok": false, "reason":
"…"}`: an application need not know which NIC, and which of its queues.

A container's connections have threads of their own. What a stranger hands over can make even
close(2) wait, a TCP socket with SO_LINGER for example: so nobody else does anything of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cni_netkit import log, sockets, turns
from cni_netkit.kernel.errors import KernelError, NoNamespace, ProgramError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import CLONE_FILES

if TYPE_CHECKING:
    from cni_netkit.kernel.queues.xsk import Bound

CONNECTIONS = 64
"""Served at a time; who comes then waits in the backlog."""

OF_ONE = 8
"""Connections of one container at a time, so that nobody has all of them."""

PARKED_OF_ONE = 256
"""Connections of one container that wait for those; who comes then is hung up on."""

SECONDS = 5.0
"""For the message to come, and for the answer to go."""

STOP_SECONDS = 1.0
"""For what runs when the agent stops; the rest is lost with the process."""

MESSAGE_BYTES = 64
ONE_TOO_MANY = 2
"""Descriptors that are asked for; the kernel drops the others."""

_libc = ctypes.CDLL(None, use_errno=True)

Owner = tuple[int, int] | None
"""Who answers for a connection: a namespace (device, inode) that the host knows; None: others."""


class Refused(Exception):
    """The application's fault, or its bad luck; the text is for it."""


class Server:
    """Accepts connections in a thread of its own, and serves each in another."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._seats = threading.BoundedSemaphore(CONNECTIONS)
        self._guard = threading.Lock()
        self._serving: dict[threading.Thread, tuple[socket.socket, Owner]] = {}
        self._parked: defaultdict[Owner, deque[socket.socket]] = defaultdict(deque)
        self._stopping = threading.Event()
        self._stop, self._stopped = socket.socketpair()
        self._accepting = threading.Thread(target=self._accept, name="xsk", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Accept nobody any more, and let those go who have not said anything."""
        self._stopping.set()
        self._stop.send(b"\0")
        self._accepting.join()
        with self._guard:
            left = dict(self._serving)
            parked = [each for queue in self._parked.values() for each in queue]
            self._parked.clear()
        for connection, _ in left.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        for connection in parked:
            _hang_up(connection)
        until = time.monotonic() + STOP_SECONDS
        for thread in left:
            thread.join(max(0.0, until - time.monotonic()))
        self._stop.close()
        self._stopped.close()

    def _accept(self) -> None:
        ready = select.poll()
        ready.register(self._listener, select.POLLIN)
        ready.register(self._stopped, select.POLLIN)
        while True:
            ready.poll()
            # A seat first: who cannot be served is not taken out of the backlog.
            while not self._seats.acquire(timeout=0.1):
                if self._stopping.is_set():
                    return
            if self._stopping.is_set() or not self._begin():
                self._seats.release()
            if self._stopping.is_set():
                return

    def _begin(self) -> bool:
        """Have the next connection served; False if there is none, no thread, or too many."""
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                self._stopping.wait(0.1)
            return False
        owner = _owner(connection)
        thread = threading.Thread(target=self._serve, args=(owner,), name="xsk", daemon=True)
        with self._guard:
            parked = self._parked[owner]
            if len(parked) >= PARKED_OF_ONE:
                _hang_up(connection)
                return False
            parked.append(connection)
            if sum(other == owner for _, other in self._serving.values()) >= OF_ONE:
                return False
            self._serving[thread] = parked.popleft(), owner
        try:
            thread.start()
        except RuntimeError as error:
            log.error("no thread for an AF_XDP socket can be started", problem=str(error))
            _hang_up(self._serving.pop(thread)[0])
            return False
        return True

    def _serve(self, owner: Owner) -> None:
        """Serve the connection that this thread is for, then those of its owner that wait."""
        thread = threading.current_thread()
        try:
            while True:
                _converse(self._serving[thread][0])
                with self._guard:
                    if not self._parked[owner]:
                        del self._parked[owner], self._serving[thread]
                        return
                    self._serving[thread] = self._parked[owner].popleft(), owner
        finally:
            self._seats.release()


@contextlib.contextmanager
def served(agent_socket: str) -> Iterator[None]:
    """Serve xsk.sock beside the agent's socket.

    It is in a folder of its own, which can be mounted into a container: its inode may change, and
    the agent's socket must not come with it. Without it the agent goes on.
    """
    folder = Path(agent_socket).parent / "xsk"
    with contextlib.ExitStack() as stack:
        try:
            server = Server(stack.enter_context(_listen(stack, folder / "xsk.sock")))
        except (OSError, RuntimeError) as error:
            log.error("no AF_XDP socket can be handed over", folder=str(folder), problem=str(error))
        else:
            stack.callback(server.stop)
        yield


def _listen(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    if path.parent.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    listener = sockets.bind(stack, path, socket.SOCK_SEQPACKET, 0o666)
    # The name that is promised, for whoever sees the folder above.
    link = path.parent.with_name(path.name)
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(path.relative_to(link.parent))
    except OSError:
        listener.close()
        raise
    stack.callback(link.unlink, missing_ok=True)
    return listener


def _owner(connection: socket.socket) -> Owner:
    """Who answers for a connection.

    The kernel makes its end here in the namespace of the other (net/unix/af_unix.c). A namespace
    that the host has no id for is none of a container with one of our devices: those count as one,
    since whoever may make namespaces could make many.
    """
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError, KernelError):
        peer = Namespace(Netns.of_socket(connection.fileno(), "of an application"))
        stack.callback(peer.close)
        host = Namespace.current()
        stack.callback(host.close)
        if peer.netns.identity == host.netns.identity or host.known_id_of(peer) is not None:
            return peer.netns.identity
    return None


def _hang_up(connection: socket.socket) -> None:
    """Close a connection without waiting for what is closed with it.

    Nobody has received what came by it, which may be a TCP socket with SO_LINGER: close(2) waits
    for one, except in a task that is about to exit (net/ipv4/af_inet.c, inet_release). So a thread
    gets a table of descriptors of its own (CLONE_FILES), and its end is what closes the connection.
    """
    has_its_own, is_the_last = threading.Event(), threading.Event()

    def hold() -> None:
        _libc.unshare(CLONE_FILES)
        has_its_own.set()
        is_the_last.wait()

    with contextlib.suppress(RuntimeError):
        threading.Thread(target=hold, name="xsk", daemon=True).start()
        has_its_own.wait()
    connection.close()
    is_the_last.set()


def _converse(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(SECONDS)
        try:
            _answer(connection)
        except OSError:
            pass  # no message came, or nobody took the answer
        except Exception as error:
            log.error("an AF_XDP socket was not taken over", problem=repr(error))


def _answer(connection: socket.socket) -> None:
    descriptors = _receive(connection)
    if descriptors is None:
        return
    try:
        answer: dict[str, object] = {"ok": True}
        try:
            if len(descriptors) != 1:
                number = "no" if not descriptors else "more than one"
                raise Refused(f"{number} descriptor came with the message: send the socket's alone")
            with turns.held():
                _take_over(descriptors[0])
        except Refused as refused:
            answer = {"ok": False, "reason": str(refused)}
        connection.send(json.dumps(answer).encode() + b"\n")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _receive(connection: socket.socket) -> list[int] | None:
    """The descriptors of the one message, `ONE_TOO_MANY` at most; None if there is no message."""
    data, descriptors, _ = sockets.receive(connection, MESSAGE_BYTES, ONE_TOO_MANY)
    return descriptors if data or descriptors else None


def _take_over(descriptor: int) -> None:
    """Put an AF_XDP socket under the NIC's queue that it has a lease of. Raises `Refused`."""
    # Imported when the first comes: the agent's start does not wait for it.
    from cni_netkit.kernel.queues import xsk

    with contextlib.ExitStack() as stack:
        try:
            container = Namespace(xsk.namespace_of(descriptor))
            stack.callback(container.close)
            bound = xsk.bound(descriptor, container.netns)
            host = Namespace.current()
            stack.callback(host.close)
            for name in host.xdp.prepared():
                if (nic := host.links.get(name=name)) is None or not host.xdp.is_attached(nic):
                    continue
                if (queue := _leased(host, nic.index, container, bound)) is not None:
                    host.xdp.insert(name, queue, descriptor)
                    return
            device = container.links.get(index=bound.index)
        except xsk.Unusable as reason:
            raise Refused(str(reason)) from None
        except (KernelError, ProgramError, NoNamespace, OSError) as error:
            if isinstance(error, KernelError) and error.errno == errno.ENOBUFS:
                raise Refused("the AF_XDP socket has no receive ring (XDP_RX_RING)") from None
            log.error("an AF_XDP socket was not taken over", problem=str(error))
            raise Refused("the agent of this node failed; its log tells why") from None
    where = device.name if device else "a device that is gone"
    raise Refused(
        f"queue {bound.queue} of {where} is not leased from a NIC that is prepared for AF_XDP"
    )


def _leased(host: Namespace, nic: int, container: Namespace, bound: Bound) -> int | None:
    """The queue of a NIC that is leased to this queue of the container's device, if one is."""
    for queue in host.queues.all(nic):
        if (queue.leased_index, queue.leased_queue) != (bound.index, bound.queue):
            continue
        # The kernel gives a namespace its id when it tells of a lease in it.
        is_there = (
            container.netns.identity == host.netns.identity
            if queue.netns_id is None
            else host.known_id_of(container) == queue.netns_id
        )
        if is_there:
            return queue.number
    return None
