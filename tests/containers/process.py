"""Programs that run while tests do, each with a log of its own."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.kernel import judge

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
            below += map(int, judge.run("pgrep", "--parent", str(each), check=False).split())
        raise ProcessLookupError(f"{self._name} does not run\n{self.end_of_log()}")

    def end(self, number: int = signal.SIGTERM, seconds: float = judge.DEADLINE) -> None:
        """End it by a signal, and wait for that. It may have ended."""
        if self._running is None:
            return
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, FileNotFoundError):
            self._running.kill()
        self._running.wait(seconds)
        self._running = None

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        """Wait for a condition, while it runs. An OSError is the same as no."""

        def holds() -> object:
            status = self._running.poll() if self._running else "not started"
            assert status is None, f"{self._name} ended: {status}"
            try:
                return condition()
            except OSError:
                return False

        try:
            judge.wait_for(holds, f"{self._name}: {what}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.end_of_log()}") from None

    def end_of_log(self) -> str:
        """The last lines that it said."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOGGED:])
