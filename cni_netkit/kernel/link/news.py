"""That something has changed about devices: rtnetlink(7), group RTNLGRP_LINK."""

import contextlib
import socket
from types import TracebackType

RTMGRP_LINK = 1
"""include/uapi/linux/rtnetlink.h."""

RECEIVE_BYTES = 1 << 17


class News:
    """Can be polled for reading. What is told does not matter, nor what was lost: look yourself."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))

    def __enter__(self) -> "News":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For select.poll()."""
        return self._socket.fileno()

    def heard(self) -> None:
        """Take all that has come: once is looked for all of it."""
        with contextlib.suppress(OSError):
            while self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT):
                pass
