"""Until when a request must have its answer, and whether anybody still waits for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cni_netkit import turns
from cni_netkit.spec.errors import CNIError, Code

SECONDS = 60.0
"""Below the launcher's patience (ANSWER_SECONDS of agent/wire.py) and the kubelet's two minutes."""

PAUSE = 0.001
"""Between two looks at something that another process holds, in seconds."""

_until: ContextVar[float | None] = ContextVar("until", default=None)
_waits: ContextVar[Callable[[], bool] | None] = ContextVar("waits", default=None)


@contextmanager
def within(seconds: float = SECONDS, waits: Callable[[], bool] | None = None) -> Iterator[None]:
    """Everything inside must be done in that time; `waits` tells whether somebody waits for it."""
    tokens = _until.set(time.monotonic() + seconds), _waits.set(waits)
    try:
        yield
    finally:
        _until.reset(tokens[0])
        _waits.reset(tokens[1])


def ensure_somebody_waits(what: str) -> None:
    """To be called with the locks held, before anything is changed.

    A runtime that kills a plugin goes on at once: what it asked for must not be done after what it
    asks for next. Raises error 11 where nobody waits for the answer.
    """
    waits = _waits.get()
    if waits is not None and not waits():
        raise CNIError(
            Code.TRY_AGAIN_LATER, f"{what}: who asked for it has gone away", "nothing was done"
        )


def left(what: str) -> float:
    """Seconds left. Raises error 11 when there are none; `what` is what is being waited for."""
    until = _until.get()
    if until is None:
        return SECONDS
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise CNIError(
            Code.TRY_AGAIN_LATER,
            f"{what}: it took too long, the request was given up",
            "the log of cni-netkit and of the IPAM plugin tell who holds it up",
        )
    return seconds


def poll(what: str, attempt: Callable[[], bool]) -> None:
    """Call `attempt` until it succeeds. Raises error 11 at the deadline."""
    with _limited():
        while not attempt():
            left(what)
            with turns.yielded():
                time.sleep(PAUSE)


@contextmanager
def _limited() -> Iterator[None]:
    """A process that answers one request only has a deadline too."""
    if _until.get() is None:
        with within():
            yield
    else:
        yield
