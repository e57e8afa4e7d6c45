"""Programs that run while tests do, each with a log of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.kernel import judge

PAUSE = 0.1
"""Seconds between two looks: programs that start need the processors themselves."""

LOGGED = 60
"""Lines of a log that are shown where something failed."""


class Process:
    """One program: started, ended, started again.

    `prefix` is a command that goes on as another one, such as nsenter(1).
    """

    def __init__(
        self,
        log: Path,
        command: Sequence[str | Path],
        *,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self._command = [*prefix, *map(str, command)]
        self._name = Path(command[0]).name
        self._env = {**os.environ, **(env or {})}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what it says is appended to its log."""
        assert self._running is None, f"{self._name} runs"
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    @property
    def pid(self) -> int:
        """Of the program itself: where the prefix enters another process namespace, that one forks."""
        assert self._running, f"{self._name} has not been started"
        below = [self._running.pid]
        for each in below:
            if Path(f"/proc/{each}/comm").read_text().strip() == self._name[:15]:
                return each
            below += children(each)
        raise ProcessLookupError(f"{self._name} does not run\n{self.end_of_log()}")

    def end(self, number: int = signal.SIGTERM, seconds: float = judge.DEADLINE) -> None:
        """End it by a signal, and wait for that. It may have ended."""
        if self._running and self._running.poll() is None:
            try:
                os.kill(self.pid, number)
            except (ProcessLookupError, FileNotFoundError):
                self._running.kill()
            self._running.wait(seconds)
        self._running = None

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        """Wait for a condition, while it runs. An OSError is the same as no."""
        assert self._running, f"{self._name} has not been started"
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError):
                if condition():
                    return
            with suppress(subprocess.TimeoutExpired):
                status = self._running.wait(PAUSE)
                raise AssertionError(f"{self._name} ended: {status}\n{self.end_of_log()}")
        raise AssertionError(f"{self._name}: not within {seconds} s: {what}\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        """The last lines that it said."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOGGED:])


def children(pid: int) -> list[int]:
    """Of a process."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # proc_pid_stat(5): the parent's is the second after the name in parentheses.
            parent = each.read_text().rpartition(")")[2].split()[1]
            found += [int(each.parent.name)] if parent == str(pid) else []
    return found
