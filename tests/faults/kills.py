"""Where a request is carried out, to be killed there: in-process, in the agent, in the launcher."""

import contextlib
import io
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import sample
from typing import NoReturn, Protocol

from cni_netkit.admin import main as admin
from cni_netkit.agent import server
from tests.faults import tracer
from tests.faults.tracer import Ended, Point, Tracer
from tests.kernel.conftest import JSON, in_process

TRY_AGAIN_LATER = 11


@dataclass(frozen=True)
class Call:
    """A request as a runtime makes it."""

    environment: dict[str, str]
    stdin: bytes


class Place(Protocol):
    """Carries a request out, and kills who does at a point; then calls `at_once`."""

    name: str

    def __call__(self, call: Call, point: Point | None, at_once: Callable[[], None]) -> Ended:
        """How it ended."""


class InProcess:
    """The plugin itself."""

    name = "in-process"

    def __call__(self, call: Call, point: Point | None, at_once: Callable[[], None]) -> Ended:
        """How it ended."""
        ended = tracer.run(partial(_handle, call), point)
        at_once()
        return ended


def _handle(call: Call) -> int:
    answer = in_process(call.environment, call.stdin)
    if answer.status:
        print(answer.output)
    return answer.status


@dataclass
class Launched:
    """What launcher and agent have in common: a folder for a socket and the answer."""

    launcher: Path
    folder: Path

    @property
    def _socket(self) -> str:
        return str(self.folder / "killed.sock")

    @property
    def _output(self) -> Path:
        return self.folder / "answer"

    def _become_launcher(self, call: Call, stdin: int, output: int) -> NoReturn:
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        environment = {**call.environment, "CNI_NETKIT_SOCKET": self._socket}
        os.execve(self.launcher, [str(self.launcher)], environment)

    def _launch(self, call: Call, *, traced: bool) -> int:
        """Start a launcher; its number."""
        given = self.folder / "request"
        given.write_bytes(call.stdin)
        with given.open("rb") as stdin, self._output.open("wb") as output:
            become = partial(self._become_launcher, call, stdin.fileno(), output.fileno())
            return tracer.fork(become, traced=traced)


@dataclass
class InAgent(Launched):
    """The agent, all of it, while a launcher waits for its answer."""

    name: str = "in the agent"

    def __call__(self, call: Call, point: Point | None, at_once: Callable[[], None]) -> Ended:
        """How it ended."""
        with server.listen(self._socket) as listener:
            agent = tracer.fork(partial(_serve, listener))
            listener.close()  # who calls after it has died is to find nobody
            launcher = self._launch(call, traced=False)
            ended = Tracer(agent, point).follow(launcher)
        at_once()
        self._judge(ended, point)
        return ended

    def _judge(self, ended: Ended, point: Point | None) -> None:
        """Success only if it was answered; else one document, with error 11."""
        text = self._output.read_bytes()
        if not ended.killed:
            ended.status = ended.other
        elif ended.other == 0:
            assert point is not None
            assert point.after, "killed before it answered, and there is an answer"
        else:
            assert ended.other == 1
            error: JSON = json.loads(text)
            assert error["code"] == TRY_AGAIN_LATER, error
            assert error["details"]


@dataclass
class InLauncher(Launched):
    """The launcher, while the agent lives on. What comes next does not wait for that."""

    name: str = "in the launcher"

    def __call__(self, call: Call, point: Point | None, at_once: Callable[[], None]) -> Ended:
        """How it ended."""
        with server.listen(self._socket) as listener:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            agent = tracer.fork(partial(_serve, listener), traced=False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            listener.close()
            try:
                ended = Tracer(self._launch(call, traced=True), point).follow()
                at_once()
            finally:
                # It finishes what it has begun.
                os.kill(agent, signal.SIGTERM)
                _, status = os.waitpid(agent, 0)
        assert status == 0, "the agent went on"
        return ended


def _serve(listener: socket.socket) -> int:
    agent = server.Agent(listener)
    with agent.stopped_by(signal.SIGTERM):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        agent.serve()
    return 0


def command(*arguments: str) -> int:
    """Run cni-netkit, quietly; its exit status."""
    sys.argv = ["cni-netkit", *arguments]
    with contextlib.redirect_stdout(io.StringIO()):
        return admin.main()


@dataclass
class Kills:
    """Kills at many moments, and sees what becomes of what is left.

    `killed` carries out what is to be killed, at a point. After a kill before a call `mends[0]` alone
    must take away all that is left, after one after a call `mends[1]` alone, each with its name.
    Then `fresh` must work, and leave nothing.
    """

    what: str
    world: Callable[[], JSON]
    prepare: Callable[[], None]
    killed: Callable[[Point | None, Callable[[], None]], Ended]
    mends: tuple[tuple[str, Callable[[], None]], tuple[str, Callable[[], None]]]
    fresh: Callable[[], None]
    at_once: bool = False
    """Whether the second mend does not wait until who was killed has left nothing at work."""
    outcomes: Counter[str] = field(default_factory=Counter)

    def run(self, few: int | None) -> "Kills":
        """At every moment, or at a `few` before calls and as many after."""
        before = self.world()
        self.prepare()
        whole = self.killed(None, nothing)
        assert whole.status == 0, f"{self.what}, not killed: {whole}"
        for _, mend in self.mends:
            mend()
        assert not difference(before, self.world())
        for after in (False, True):
            every = [Point(number, after) for number in range(len(whole.calls))]
            for point in every if few is None else sample(every, min(few, len(every))):
                self._one(point, before)
        return self

    def _one(self, point: Point, before: JSON) -> None:
        self.prepare()
        (by, first), (_, second) = self.mends[:: -1 if point.after else 1]
        at_once = first if self.at_once and point.after else nothing
        ended = self.killed(point, at_once)
        if not ended.killed:
            # Threads need not do the same each time.
            self.outcomes["ended before it could be killed"] += 1
        at = f"{self.what} was killed {point}, {ended.calls[-1:]}"
        left = difference(before, self.world())
        if at_once is nothing:
            first()
        assert not difference(before, self.world()), f"{at}; {by} left something of {left}"
        second()
        self.fresh()
        assert not difference(before, self.world()), f"{at}, and the next one left something"
        self.outcomes["after a call" if point.after else "before one"] += ended.killed
        self.outcomes[f"cleaned by {by}" if left else "nothing left"] += 1

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{self.what}: {counts}"


def nothing() -> None:
    """Where nothing is to be done."""


def difference(before: JSON, after: JSON) -> JSON:
    """What is not as it was."""
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}
