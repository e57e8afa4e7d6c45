"""Have one allocation of the kernel fail: the nth of those in the system calls of a request.

`/proc/thread-self/fail-nth` counts what can fail in its thread (Documentation/fault-injection): slab
and page allocations, and copies from and to the caller's memory. It is armed around one system call
after the other, in whatever thread the plugin makes it, and what is left of the count is carried from
call to call. So the interpreter itself has nothing to fear, and every fault has the name of a call.
"""

import _thread
import builtins
import ctypes
import errno
import fcntl
import importlib
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.kernel import netns

FAIL_NTH = "/proc/thread-self/fail-nth"
KNOBS = Path("/sys/kernel/debug")
SETTINGS = {
    # All allocations, those that may sleep and those of one page; not a word of it in the log.
    "failslab": {"ignore-gfp-wait": "N", "cache-filter": "N", "verbose": "0"},
    "fail_page_alloc": {"ignore-gfp-wait": "N", "min-order": "0", "verbose": "0"},
    "fail_usercopy": {"verbose": "0"},
}
ENDLESS = 1_000_000_000
"""So many that none fails: what is missing of it afterwards is how many there are."""

FILES = (
    "open", "read", "write", "close", "unlink", "rename", "mkdir", "rmdir", "listdir", "scandir",
    "stat", "lstat", "fstat", "readlink", "dup", "access", "lseek",
)  # fmt: skip
SOCKETS = ("send", "recv", "bind", "setsockopt", "getsockopt")
_pread, _pwrite, _open, _close = os.pread, os.pwrite, os.open, os.close


def prepare() -> None:
    """Set what is to fail, for the kernel as a whole; nothing does until it is armed."""
    for kind, values in SETTINGS.items():
        for name, value in values.items():
            (KNOBS / kind / name).write_text(value)


class Faults:
    """The count, and where it ended. Use `armed` around a request."""

    def __init__(self) -> None:
        self.left = 0
        self.where: str | None = None
        """The call that failed, or whose answer may have been lost."""

    @contextmanager
    def armed(self, nth: int) -> Iterator[None]:
        """Let the nth fail of what can fail in the calls that the plugin makes meanwhile."""
        self.left, self.where = nth, None
        with pytest.MonkeyPatch.context() as patch:
            self._put_in(patch)
            try:
                yield
            finally:
                self.left = 0

    def count(self, request: Callable[[], Any]) -> int:
        """How many can fail in a request."""
        with self.armed(ENDLESS):
            request()
            return ENDLESS - self.left

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, armed."""

        def armed(*arguments: Any, **keywords: Any) -> Any:
            if not self.left:
                return call(*arguments, **keywords)
            descriptor = _open(FAIL_NTH, os.O_RDWR | os.O_CLOEXEC)
            try:
                _pwrite(descriptor, b"%d" % self.left, 0)
                try:
                    return call(*arguments, **keywords)
                finally:
                    self._disarm(descriptor, name)
            finally:
                _close(descriptor)

        return armed

    def _disarm(self, descriptor: int, name: str) -> None:
        """Carry on what is left. Asking for it copies, which counts, and may be what fails."""
        try:
            self.left = int(_pread(descriptor, 20, 0))
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            self.left = 1
        if not self.left:
            self.where = name
        while True:
            try:
                _pwrite(descriptor, b"0", 0)
            except OSError as error:
                if error.errno != errno.EFAULT:
                    raise
            else:
                return

    def _put_in(self, patch: pytest.MonkeyPatch) -> None:
        for name in FILES:
            patch.setattr(os, name, self.around(name, getattr(os, name)))
        # The one that is written in Python, on top of the above.
        for module in (builtins, io):
            patch.setattr(module, "open", importlib.import_module("_pyio").open)
        for name in ("fcntl", "flock", "ioctl"):
            patch.setattr(fcntl, name, self.around(name, getattr(fcntl, name)))
        start = self.around("start a thread", _thread.start_new_thread)
        patch.setattr(_thread, "start_new_thread", start)
        patch.setattr(socket, "socket", self._sockets())
        patch.setattr(netns, "_libc", _Libc(self))

    def _sockets(self) -> type[socket.socket]:
        methods = {name: self._method(name) for name in SOCKETS}
        base = socket.socket

        def make(made: socket.socket, *arguments: Any, **keywords: Any) -> None:
            self.around("socket", base.__init__)(made, *arguments, **keywords)

        return type("FaultySocket", (base,), {**methods, "__init__": make})

    def _method(self, name: str) -> Callable[..., Any]:
        original = getattr(socket.socket, name)

        def method(*arguments: Any) -> Any:
            return self.around(name, original)(*arguments)

        return method


class _Libc:
    """setns(2) and unshare(2), as the plugin calls them."""

    def __init__(self, faults: Faults) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.setns = faults.around("setns", libc.setns)
        self.unshare = faults.around("unshare", libc.unshare)
