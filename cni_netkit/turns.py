"""Whose turn it is to compute.

Threads of one interpreter compute one at a time anyway; a hundred that all try are in each other's
way (100 ADDs at once took twice as long with 128 threads let loose as with two). So a request takes
a turn, and gives it up where it waits for the kernel or for others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Semaphore

AT_A_TIME = 2
"""One computes while the other is in a system call."""

_semaphore = Semaphore(AT_A_TIME)
_held: ContextVar[bool] = ContextVar("held", default=False)


@contextmanager
def held() -> Iterator[None]:
    """Wait for a turn, and keep it meanwhile."""
    with _semaphore:
        token = _held.set(True)
        try:
            yield
        finally:
            _held.reset(token)


@contextmanager
def yielded() -> Iterator[None]:
    """Let another compute meanwhile, if this is a turn."""
    if not _held.get():
        yield
        return
    _semaphore.release()
    try:
        yield
    finally:
        _semaphore.acquire()
