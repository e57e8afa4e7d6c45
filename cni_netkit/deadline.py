"""Until when a request must have its answer; waiting for others ends by then."""

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


@contextmanager
def within(seconds: float = SECONDS) -> Iterator[None]:
    """Everything inside must be done in that time."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


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
