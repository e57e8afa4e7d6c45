"""Network namespaces by path: opened, compared, entered; never created (setns(2), ioctl_ns(2))."""

import _thread
import ctypes
import fcntl
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from cni_netkit.kernel.errors import KernelError, NoNamespace, NoThread
from cni_netkit.kernel.uapi import CLONE_NEWNET, NS_GET_NSTYPE, SIOCGSKNS
from cni_netkit.spec.errors import SHORTAGES

Outcome = TypeVar("Outcome")

_libc = ctypes.CDLL(None, use_errno=True)


class Netns:
    """A network namespace, held open by a descriptor; identified by (device, inode)."""

    def __init__(self, descriptor: int, path: str, *, own: bool) -> None:
        self.descriptor = descriptor
        self.path = path
        self.is_own = own
        try:
            status = os.fstat(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise OSError(error.errno, error.strerror, path) from None
        self.identity = (status.st_dev, status.st_ino)

    @classmethod
    def current(cls) -> "Netns":
        """The namespace this thread is in; what runs in it needs no switch."""
        path = "/proc/thread-self/ns/net"
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, own=True)

    @classmethod
    def open(cls, path: str) -> "Netns":
        """Open the namespace at `path`. Raises `NoNamespace` where there is none."""
        try:
            # A named pipe in its place would be waited for without end.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            raise NoNamespace(path, os.strerror(error.errno or 0)) from None
        return cls._verified(descriptor, path)

    @classmethod
    def behind(cls, descriptor: int, path: str) -> "Netns":
        """A second descriptor for the namespace behind one. Raises `NoNamespace` for others."""
        return cls._verified(os.dup(descriptor), path)

    @classmethod
    def _verified(cls, descriptor: int, path: str) -> "Netns":
        try:
            is_network = fcntl.ioctl(descriptor, NS_GET_NSTYPE) == CLONE_NEWNET
        except OSError:
            is_network = False
        if not is_network:
            os.close(descriptor)
            raise NoNamespace(path, "the file is no network namespace")
        return cls(descriptor, path, own=False)

    @classmethod
    def of_socket(cls, endpoint: int, path: str) -> "Netns":
        """The namespace that a socket lives in (SIOCGSKNS), which takes CAP_NET_ADMIN there."""
        return cls(fcntl.ioctl(endpoint, SIOCGSKNS), path, own=False)

    @classmethod
    def temporary(cls) -> "Netns":
        """A namespace for a trial: it and all in it is gone when closed."""

        def leave_for_a_new_one() -> int:
            if _libc.unshare(CLONE_NEWNET) != 0:
                # Among its errors is EEXIST, which says nothing of what was asked for.
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "a new network namespace")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        return cls(_in_a_thread(leave_for_a_new_one), "(temporary)", own=False)

    def has(self, endpoint: socket.socket) -> bool:
        """Whether a socket lives in this namespace (SIOCGSKNS)."""
        try:
            descriptor = fcntl.ioctl(endpoint.fileno(), SIOCGSKNS)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return (status.st_dev, status.st_ino) == self.identity

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.descriptor)

    def run(self, function: Callable[[], Outcome]) -> Outcome:
        """Call `function` inside the namespace.

        In a thread that is entered once and then thrown away, so that no switch can leak into
        other work of this process.
        """
        if self.is_own:
            return function()

        def enter_and_call() -> Outcome:
            if _libc.setns(self.descriptor, CLONE_NEWNET) != 0:
                raise KernelError(f"enter the network namespace {self.path}", ctypes.get_errno())
            return function()

        return _in_a_thread(enter_and_call)


def _in_a_thread(function: Callable[[], Outcome]) -> Outcome:
    results: list[Outcome] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            failures.append(error)
        finally:
            ended.release()

    # Without what threading.Thread brings along: it waits for the start as well as for the end.
    ended = _thread.allocate_lock()
    ended.acquire()
    try:
        _thread.start_new_thread(call, ())
    except RuntimeError:
        raise NoThread from None
    ended.acquire()
    if failures:
        raise failures[0]
    return results[0]
