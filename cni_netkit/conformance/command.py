"""The command: what it is told, and the report."""

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from cni_netkit.conformance import configuration, junit, rows, runner, tap
from cni_netkit.conformance.row import ROWS, VERSIONS, Row
from cni_netkit.conformance.world import Subject

assert rows  # importing it registers the rows


class Misuse(Exception):
    """The command line cannot be meant as it is; each argument is a fault."""


def main(arguments: argparse.Namespace) -> int:
    """Examine a plugin, and report; 1 where it failed a row or could not be examined."""
    chosen = _rows(arguments.row or ())
    if arguments.list:
        _print_rows(chosen)
        return 0
    asked = _versions(arguments.versions)
    if missing := [
        f"--{name} is missing" for name in ("plugin", "conf") if not vars(arguments)[name]
    ]:
        raise Misuse(*missing)
    try:
        subject = _subject(arguments)
    except configuration.Unusable as error:
        return _bail_out(str(error))
    if os.geteuid():
        return _bail_out("network namespaces are made by root only; run it as root")
    spoken = [each for each in runner.supported_versions(subject) if each in asked]
    outcomes = _report(runner.cases(chosen, spoken, subject), subject)
    if arguments.junit:
        junit.write(Path(arguments.junit), str(subject.executable), outcomes)
    return int(any(each.failed for each in outcomes))


def _report(chosen: Sequence[runner.Case], subject: Subject) -> list[runner.Outcome]:
    """Print each outcome as it comes."""
    print(tap.begin(len(chosen)), flush=True)
    outcomes = []
    for number, case in enumerate(chosen, 1):
        outcomes.append(runner.examine(case, subject))
        print(tap.line(number, outcomes[-1]), flush=True)
    print(tap.summary(outcomes))
    return outcomes


def _subject(arguments: argparse.Namespace) -> Subject:
    executable = Path(arguments.plugin).absolute()
    if not os.access(executable, os.X_OK):
        raise configuration.Unusable(f"{executable}: there is no such executable")
    return Subject(
        executable,
        configuration.read(Path(arguments.conf), executable),
        arguments.cni_path or str(executable.parent),
        arguments.setup or "",
        arguments.exclusive,
    )


def _rows(names: Sequence[str]) -> list[Row]:
    known = {each.name: each for each in ROWS}
    if unknown := [each for each in names if each not in known]:
        raise Misuse(*(f"--row: there is no {each}; --list has all" for each in unknown))
    return [known[each] for each in names] or ROWS


def _versions(given: str | None) -> list[str]:
    asked = given.split(",") if given else [*VERSIONS]
    if unknown := [each for each in asked if each not in VERSIONS]:
        raise Misuse(f"--versions: {', '.join(unknown)} is none of {', '.join(VERSIONS)}")
    return asked


def _bail_out(why: str) -> int:
    print(f"Bail out! {why}")
    return 1


def _print_rows(chosen: Sequence[Row]) -> None:
    for each in chosen:
        print(f"{each.name} ({each.level.value}): {each.title}.")
        said = f"{each.section}: {each.sentence}"
        print(textwrap.fill(said, 96, initial_indent="    ", subsequent_indent="    "))
