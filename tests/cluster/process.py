"""Programs that run while a test does, each with a log of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOGGED = 60
"""Lines of a log that are shown where something failed."""


class Ended(Exception):
    """A program that should run has ended; with the end of its log."""


class Process:
    """One program: started, killed, started again. `prefix` takes it into other namespaces."""

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
        self._env = {**os.environ, **(env or {})}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what it says is appended to its log."""
        assert self._running is None, f"{self.log.stem} runs"
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> None:
        """End it by a signal, and wait for that; SIGKILL when the time is up."""
        if self._running is None:
            return
        self._running.send_signal(number)
        try:
            self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
        self._running = None

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        """Wait for a condition. Raises `Ended` where the program ends before, or time is up."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.must_run()
            with suppress(OSError):
                if condition():
                    return
            time.sleep(0.1)
        raise Ended(f"{self.log.stem}: {what} did not come within {seconds} s\n{self.end_of_log()}")

    def must_run(self) -> None:
        """Raise `Ended` where it does not."""
        status = self._running.poll() if self._running else "not started"
        if status is not None:
            raise Ended(f"{self.log.stem} ended: {status}\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        """The last lines that it said."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOGGED:])
