"""Examine a plugin: each row in a process of its own, on a host of its own."""

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn

from cni_netkit.conformance.look import Unprepared
from cni_netkit.conformance.plugin import Answer, Inapplicable, Unmet
from cni_netkit.conformance.row import VERSIONS, Level, Row
from cni_netkit.conformance.world import Subject, World


@dataclass(frozen=True)
class Outcome:
    """What came of a row in a version; no text is set where the plugin did what it has to."""

    row: Row
    version: str
    expected: str = ""
    found: str = ""
    skipped: str = ""
    broken: str = ""
    seconds: float = 0.0
    answers: Sequence[Answer] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The row's, with the version where there is one for each."""
        return f"{self.row.name}@{self.version}" if self.row.each_version else self.row.name

    @property
    def met(self) -> bool:
        """Whether the plugin did it."""
        return not (self.expected or self.skipped or self.broken)

    @property
    def failed(self) -> bool:
        """Whether that is a failure: only what must be is one, and what could not be examined."""
        return bool(self.broken or (self.expected and self.row.level is Level.MUST))


@dataclass(frozen=True)
class Case:
    """A row in a version, or why it does not apply."""

    row: Row
    version: str
    skipped: str = ""


def supported_versions(subject: Subject) -> list[str]:
    """What the plugin answers to VERSION, in its order; nothing where it does not answer."""
    asked = str(subject.configuration.get("cniVersion") or VERSIONS[-1])
    outcome = _on_fresh_host(lambda world: {"found": _versions(world)}, World(subject, asked))
    return [each for each in VERSIONS if each in outcome.get("found", "").split()]


def _versions(world: World) -> str:
    document = world.call("VERSION", {"cniVersion": world.version}).document()
    return " ".join(map(str, document.get("supportedVersions", ())))


def cases(rows: Sequence[Row], versions: Sequence[str], subject: Subject) -> list[Case]:
    """What is to be examined, in this order; `versions` are those that are spoken, in theirs."""
    found = []
    for row in rows:
        of_row = [each for each in versions if each >= row.since]
        chosen = of_row if row.each_version else of_row[-1:]
        why = "" if chosen else f"the plugin does not speak CNI {row.since}"
        if row.attachments > 1 and subject.exclusive:
            why = "the configuration is for one attachment at a time"
        if row.delegates and not subject.configuration.get("ipam"):
            why = "the configuration names no IPAM plugin"
        found += [Case(row, each, why) for each in chosen or [row.since]]
    return found


def examine(case: Case, subject: Subject) -> Outcome:
    """Examine one row."""
    made = Outcome(case.row, case.version, skipped=case.skipped)
    if case.skipped:
        return made

    began = time.monotonic()
    said = _on_fresh_host(lambda world: _try(case.row, world), World(subject, case.version))
    answers = [Answer(**each) for each in said.pop("answers", ())]
    return replace(made, answers=answers, seconds=time.monotonic() - began, **said)


def _try(row: Row, world: World) -> dict[str, str]:
    try:
        row.examine(world)
    except Unmet as unmet:
        if unmet.answer:
            world.answers.append(unmet.answer)
        return {"expected": unmet.expected, "found": unmet.found}
    except Inapplicable as why:
        return {"skipped": str(why)}
    return {}


def _on_fresh_host(work: Callable[[World], dict[str, str]], world: World) -> dict[str, Any]:
    """Do it in a process that has namespaces of its own; what it returns, and all calls it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _tell(writing, _do(work, world))
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else {"broken": "the process that examines it was ended"}


def _do(work: Callable[[World], dict[str, str]], world: World) -> dict[str, Any]:
    try:
        world.prepare()
        found = work(world)
    except Unprepared as error:
        found = {"broken": str(error)}
    except Exception:
        found = {"broken": traceback.format_exc()}
    world.end()
    return {**found, "answers": [asdict(each) for each in world.answers]}


def _tell(writing: int, said: dict[str, Any]) -> NoReturn:
    """Write it, and end without what an interpreter does at its end."""
    with os.fdopen(writing, "w") as stream:
        json.dump(said, stream)
    os._exit(0)
