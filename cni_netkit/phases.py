"""What a request is at, for metrics and traces: phases follow one another without a gap."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Phase(NamedTuple):
    """A part of a request; times are those of `time.monotonic_ns()`."""

    name: str
    began: int
    ended: int


Begun = list[tuple[str, int]]
"""Names of phases, each with when it began."""


def phases_of(begun: Begun, ended: int) -> list[Phase]:
    """Phases, each until the next one, the last until the end."""
    ends = [*(at for _, at in begun[1:]), ended]
    return [Phase(name, at, end) for (name, at), end in zip(begun, ends, strict=True)]


@dataclass(eq=False)
class Course:
    """How a request went: when it came (`time.monotonic_ns()`), what it was at, how it ended.

    `epoch` added to one of its times makes a time of day (`time.time_ns()`). `environment` is what
    it is carried out with, `span` what traces have of it; `released`: how many attachments GC took
    back; `error`: the error object that it was answered with, if it was.
    """

    environment: Mapping[str, str]
    began: int = field(default_factory=time.monotonic_ns)
    epoch: int = field(default_factory=lambda: time.time_ns() - time.monotonic_ns())
    ended: int = 0
    network: str = ""
    released: int = 0
    error: Mapping[str, Any] | None = None
    span: Any = None
    begun: Begun = field(default_factory=list)

    @property
    def verb(self) -> str:
        """CNI_COMMAND, whatever it says."""
        return self.environment.get("CNI_COMMAND", "")

    @property
    def phases(self) -> list[Phase]:
        """What it was at."""
        return phases_of(self.begun, self.ended)

    @contextmanager
    def noted(self, first: str) -> Iterator[None]:
        """Within, it is noted; `first` is what the request has been at since it came."""
        self.begun.append((first, self.began))
        token = _course.set(self)
        try:
            yield
        finally:
            _course.reset(token)
            self.ended = time.monotonic_ns()


_course: ContextVar[Course | None] = ContextVar("course", default=None)


def begin(name: str) -> None:
    """From here on the request is at this."""
    course = _course.get()
    if course is not None:
        course.begun.append((name, time.monotonic_ns()))


def concerns(network: str) -> None:
    """The request is of this network."""
    course = _course.get()
    if course is not None:
        course.network = network


def released() -> None:
    """One more attachment was taken back that nobody asked for by name."""
    course = _course.get()
    if course is not None:
        course.released += 1
