"""Processes, started and waited for with as little of our own as possible, the same for all."""

import os
import time
from collections.abc import Mapping, Sequence


class CallError(Exception):
    """A call that is to be measured failed; the text is what it said."""


class Call:
    """One execution of a plugin, prepared, not begun.

    Input and output are files in memory: nobody waits for us at a pipe.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], stdin: bytes = b""
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        os.write(self._files[0], stdin)
        os.lseek(self._files[0], 0, os.SEEK_SET)
        self._actions = [
            (os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(self._files)
        ]
        self._process = 0

    def start(self) -> None:
        """Begin."""
        self._process = os.posix_spawn(
            self._command[0], self._command, self._environment, file_actions=self._actions
        )

    def wait(self) -> int:
        """Wait for the end; the wait status."""
        return os.waitpid(self._process, 0)[1]

    def finish(self, status: int) -> bytes:
        """What it printed. Raises `CallError` where it failed."""
        stdout, stderr = (_content(file) for file in self._files[1:])
        for file in self._files:
            os.close(file)
        if status != 0:
            verb = self._environment.get("CNI_COMMAND", "")
            text = b"\n".join((stdout, stderr)).decode(errors="replace").strip()
            raise CallError(f"{' '.join(self._command)} {verb}: wait status {status}: {text}")
        return stdout


def one(call: Call) -> tuple[float, bytes]:
    """Milliseconds until it has ended, and what it printed."""
    began = time.perf_counter()
    call.start()
    status = call.wait()
    took = time.perf_counter() - began
    return took * 1e3, call.finish(status)


def together(calls: Sequence[Call]) -> float:
    """Milliseconds from the start of the first to the end of the last."""
    began = time.perf_counter()
    for call in calls:
        call.start()
    statuses = [call.wait() for call in calls]
    took = time.perf_counter() - began
    for call, status in zip(calls, statuses, strict=True):
        call.finish(status)
    return took * 1e3


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)
