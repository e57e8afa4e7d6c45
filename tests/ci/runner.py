"""Parts of a whole, run beside each other; each one's output is printed when it has ended, in one piece.

Standard library only: it runs before anything is installed.
"""

import ctypes
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PR_SET_CHILD_SUBREAPER = 36
SECONDS_OF_GRACE = 15.0
SECONDS_OF_SILENCE = 60.0
"""After which is told what is running."""


@dataclass(frozen=True)
class Part:
    """A command; how many of the seats it takes; the parts that must have worked before."""

    name: str
    command: Sequence[str]
    seats: int = 1
    after: Sequence[str] = ()


@dataclass
class Run:
    """A part that is running, or has ended."""

    part: Part
    process: "subprocess.Popen[bytes]"
    log: Path
    descriptor: int
    began: float
    seconds: float = 0.0

    @property
    def how(self) -> str:
        """How it ended."""
        status = self.process.returncode
        return "ok" if status == 0 else f"failed ({status})"


class Interrupted(Exception):
    """A signal asks to end."""


class Runner:
    """Runs parts as soon as there are seats for them; a failure keeps back only what needs that part.

    A part comes behind those that it needs.
    """

    def __init__(self, parts: Sequence[Part], seats: int, folder: Path) -> None:
        self.waiting = list(parts)
        self.running: list[Run] = []
        self.ended: list[Run] = []
        self.kept_back: list[Part] = []
        self._seats, self._folder = seats, folder
        self._began = time.monotonic()
        self._signalled, self._signal = os.pipe()

    def run(self) -> bool:
        """Run all; whether all worked. On a signal, or an error, nothing is left running."""
        # What loses its parent becomes our child, whatever session or group it is in.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        try:
            while self.waiting or self.running:
                self._start()
                self._wait()
                self._keep_back()
            return not self.kept_back and all(each.process.returncode == 0 for each in self.ended)
        finally:
            end_descendants()

    def _note(self, number: int, _frame: object) -> None:
        """Only noted: an exception could come between a process that begins and our knowing of it."""
        os.write(self._signal, bytes([number]))

    def table(self) -> str:
        """Each part, how it ended, and its time."""
        lines = [(each.part.name, each.how, clock(each.seconds)) for each in self.ended]
        lines += [
            (each.part.name, "cut short", clock(self._since(each.began))) for each in self.running
        ]
        lines += [(each.name, "not run", "") for each in (*self.kept_back, *self.waiting)]
        lines += [("all", "", clock(self._since(self._began)))]
        return "\n".join(f"{name:<14}{how:<14}{took:>6}" for name, how, took in lines)

    def _since(self, moment: float) -> float:
        return time.monotonic() - moment

    def _keep_back(self) -> None:
        """Give up parts that need one which failed, or was given up."""
        lost = {each.part.name for each in self.ended if each.process.returncode}
        while found := [each for each in self.waiting if lost.intersection(each.after)]:
            self.waiting = [each for each in self.waiting if each not in found]
            self.kept_back += found
            lost.update(each.name for each in found)

    def _start(self) -> None:
        done = {each.part.name for each in self.ended}
        for part in list(self.waiting):
            taken = sum(each.part.seats for each in self.running)
            fits = taken + part.seats <= self._seats or not self.running
            if fits and done.issuperset(part.after):
                self.waiting.remove(part)
                self.running.append(self._begin(part))

    def _begin(self, part: Part) -> Run:
        self._tell(f"{part.name} begins")
        log = self._folder / f"{part.name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                part.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return Run(part, process, log, os.pidfd_open(process.pid), time.monotonic())

    def _wait(self) -> None:
        """Wait until one has ended; tell how far they are when that takes long."""
        descriptors = [each.descriptor for each in self.running]
        ready = select.select([self._signalled, *descriptors], [], [], SECONDS_OF_SILENCE)[0]
        if self._signalled in ready:
            raise Interrupted(signal.Signals(os.read(self._signalled, 1)[0]).name)
        if not ready:
            self._tell("running: " + ", ".join(map(_how_far, self.running)))
        for each in [each for each in self.running if each.process.poll() is not None]:
            os.close(each.descriptor)
            each.seconds = self._since(each.began)
            self.running.remove(each)
            self.ended.append(each)
            print(f"\n===== {each.part.name}: {each.how} after {clock(each.seconds)} =====")
            print(each.log.read_text(errors="replace"), flush=True)

    def _tell(self, text: str) -> None:
        print(f"ci: {clock(self._since(self._began))} {text}", flush=True)


def main(parts: Sequence[Part], seats: int) -> int:
    """Run the parts, and print a table of them in any case; the exit status."""
    with tempfile.TemporaryDirectory(prefix="cni-netkit-ci-") as folder:
        runner = Runner(parts, seats, Path(folder))
        try:
            worked = runner.run()
        except Interrupted as interrupted:
            print(f"ci: {interrupted}")
            worked = False
        finally:
            print(f"\n{runner.table()}", flush=True)
    return 0 if worked else 1


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _how_far(run: Run) -> str:
    """A part's name, with the last share that pytest has printed."""
    with run.log.open("rb") as log:
        shares = re.findall(rb"\[ *(\d+)%\]", _tail(log))
    return f"{run.part.name} ({int(shares[-1])} %)" if shares else run.part.name


def _tail(file: BinaryIO) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(file.tell() - 100_000, 0))
    return file.read()


def end_descendants() -> None:
    """End every process that descends from this one: first asked to, then killed."""
    for number, seconds in ((signal.SIGTERM, SECONDS_OF_GRACE), (signal.SIGKILL, SECONDS_OF_GRACE)):
        for process in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + seconds
        while _reap() and time.monotonic() < deadline:
            time.sleep(0.05)


def _reap() -> bool:
    """Collect children that have ended; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def descendants(process: int) -> list[int]:
    """All that descend from a process, by /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent = path.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(path.parent.name))
    found: list[int] = []
    ahead = [process]
    while ahead:
        young = children.get(ahead.pop(), [])
        found += young
        ahead += young
    return found
