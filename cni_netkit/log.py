"""The log: structlog to standard error and, if configured, to a file; never to standard output.

structlog is imported when the first line is written: a verb that has nothing to say does not wait
for it.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@dataclass(frozen=True)
class Settings:
    """What holds for the lines written now; without `shown` they go to the file alone."""

    level: str = "info"
    file: str | None = None
    shown: bool = True
    words: dict[str, Any] = field(default_factory=dict)


_settings: ContextVar[Settings] = ContextVar("settings", default=Settings())  # noqa: B039


@contextmanager
def bound(
    level: str = "info", file: str | None = None, *, shown: bool = True, **words: Any
) -> Iterator[None]:
    """Within: every line carries `words`, lines below `level` are left out, `file` gets a copy."""
    before = _settings.get()
    token = _settings.set(Settings(level, file, shown, before.words | words))
    try:
        yield
    finally:
        _settings.reset(token)


def debug(event: str, **words: Any) -> None:
    """What happened, for whoever looks for a fault."""
    _write("debug", event, words)


def info(event: str, **words: Any) -> None:
    """What happened, for the record."""
    _write("info", event, words)


def warning(event: str, **words: Any) -> None:
    """What is not as it should be, and did no harm yet."""
    _write("warning", event, words)


def error(event: str, **words: Any) -> None:
    """What failed."""
    _write("error", event, words)


def _write(level: str, event: str, words: dict[str, Any]) -> None:
    settings = _settings.get()
    if LEVELS[level] < LEVELS[settings.level] or not (settings.shown or settings.file):
        return
    import structlog

    render = structlog.processors.JSONRenderer(sort_keys=False)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    fields = stamp(None, level, {"event": event, "level": level, **settings.words, **words})
    line = render(None, level, fields)
    text = line if isinstance(line, str) else line.decode()
    if settings.shown:
        _show(text)
    if settings.file:
        _append(settings.file, text)


def _append(path: str, line: str) -> None:
    """A log that cannot be written must not fail a verb."""
    try:
        with open(path, "a", opener=_without_waiting) as file:
            file.write(line + "\n")
    except OSError as failure:
        _show(f"write the log {path}: {failure.strerror}")
    except ValueError as failure:
        # No file can have such a name: what is configured is not checked yet.
        _show(f"write the log {path!a}: {failure}")


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe that nobody reads would be waited for without end."""
    return os.open(path, flags | os.O_NONBLOCK, 0o640)


def _show(line: str) -> None:
    """In one piece, since other threads write too; where nobody reads any more, nothing fails."""
    with suppress(OSError):
        print(line + "\n", end="", file=sys.stderr, flush=True)
