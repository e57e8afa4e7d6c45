"""Unix sockets: born at their path with their mode, and what comes along with data."""

import array
import contextlib
import os
import socket
import struct
from pathlib import Path

_DESCRIPTOR = array.array("i").itemsize
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


def bind(
    stack: contextlib.ExitStack, path: Path, kind: socket.SocketKind, mode: int
) -> socket.socket:
    """A listening socket at `path`, in place of one that a dead agent left.

    The stack removes its name, the caller closes it.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        # Born with its mode: nobody can connect before it is set.
        before = os.umask(0o777 & ~mode)
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


def receive(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int], bool]:
    """Data, the descriptors that came with it (SCM_RIGHTS), and whether those are all.

    Descriptors beyond `most`, and those that come later, are dropped by the kernel (unix(7)).
    """
    data, ancillary, flags, _ = connection.recvmsg(
        size, socket.CMSG_SPACE(most * _DESCRIPTOR), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, what, content in ancillary:
        if (level, what) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % _DESCRIPTOR])
    return data, list(descriptors), not flags & socket.MSG_CTRUNC


def peer(connection: socket.socket) -> tuple[int, int]:
    """Who connected: process and user (unix(7), SO_PEERCRED); a socket's mode alone is a habit.

    The process is 0 where it is of another PID namespace.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(raw)
    return process, user
