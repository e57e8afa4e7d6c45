"""Steps, one after the other: each is ok, failed, or not run, and what was begun is undone."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

OK, FAILED, NOT_RUN = "ok", "failed", "not run"
WORKS, INCOMPLETE = "works", "incomplete"
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """What was expected, what was found, and the kernel's words."""


class NotRun(Exception):
    """Why a step cannot be tried here."""


class _Interrupted(Exception):
    pass


@dataclass(frozen=True)
class Step:
    """`do` gives what was found; it raises `Failed`, or anything else, or `NotRun`.

    It is only begun when all that it needs was ok; but one that `undoes` another whenever that one
    was begun, also when the run was interrupted, and it is not interrupted itself.
    """

    name: str
    do: Callable[[], str]
    needs: tuple[str, ...] = ()
    undoes: str = ""
    seconds: int = 60


@dataclass
class Outcome:
    """What came of a step; `commands` are those it executed, with all they said."""

    name: str
    result: str
    text: str
    seconds: float = 0.0
    commands: list[dict[str, Any]] = field(default_factory=list)


class Runner:
    """Carries steps out in the main thread; `commands` is what the machine logs to."""

    def __init__(self, commands: list[dict[str, Any]], say: Callable[[Outcome], None]) -> None:
        self.interrupted = ""
        self._commands, self._say = commands, say
        self._outcomes: dict[str, Outcome] = {}
        self._under_way: Step | None = None

    def run(self, steps: Sequence[Step]) -> list[Outcome]:
        """Carry all of them out; interrupts and alarms are taken from now on."""
        for number in INTERRUPTS:
            signal.signal(number, self._interrupt)
        signal.signal(signal.SIGALRM, self._alarm)
        for step in steps:
            reason = self._reason_against(step)
            outcome = Outcome(step.name, NOT_RUN, reason) if reason else self._carry_out(step)
            self._outcomes[step.name] = outcome
            self._say(outcome)
        return list(self._outcomes.values())

    def _reason_against(self, step: Step) -> str:
        if step.undoes:
            begun = self._outcomes[step.undoes].result != NOT_RUN
            return "" if begun else f"nothing to undo: {step.undoes!r} was not run"
        if self.interrupted:
            return f"interrupted by {self.interrupted}"
        for name in step.needs:
            if self._outcomes[name].result != OK:
                was = self._outcomes[name].result
                return f"{name!r} {'was not run' if was == NOT_RUN else 'failed'}"
        return ""

    def _carry_out(self, step: Step) -> Outcome:
        begin = time.monotonic()
        self._commands.clear()
        # What a signal raises, it raises while a step is under way: so it is always caught here.
        try:
            try:
                self._under_way = step
                signal.alarm(step.seconds)
                found = OK, step.do()
            finally:
                self._under_way = None
                signal.alarm(0)
        except NotRun as error:
            found = NOT_RUN, str(error)
        except (Failed, AssertionError, TimeoutError, _Interrupted) as error:
            found = FAILED, str(error)
        except Exception as error:
            found = FAILED, f"{type(error).__name__}: {error}"
        result, text = found
        line = "; ".join(text.strip().splitlines())
        return Outcome(step.name, result, line, time.monotonic() - begin, list(self._commands))

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self.interrupted = self.interrupted or signal.Signals(number).name
        if self._under_way and not self._under_way.undoes:
            raise _Interrupted(f"interrupted by {self.interrupted}")

    def _alarm(self, _: int, __: FrameType | None) -> None:
        if self._under_way:
            raise TimeoutError(f"not done within {self._under_way.seconds} s")


def verdict(outcomes: Sequence[Outcome]) -> str:
    """One word, from the steps alone."""
    results = {each.result for each in outcomes}
    return FAILED if FAILED in results else INCOMPLETE if NOT_RUN in results else WORKS
