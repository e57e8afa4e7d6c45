"""The report as TAP version 14; what knows 13 alone, such as prove(1), reads it and says so."""

import json
from collections.abc import Iterator

from cni_netkit.conformance.plugin import Answer
from cni_netkit.conformance.runner import Outcome

LONGEST = 2000
"""Characters of what a plugin printed."""


def begin(count: int) -> str:
    """The version and the plan."""
    return f"TAP version 14\n1..{count}"


def line(number: int, outcome: Outcome) -> str:
    """One test point with its diagnosis."""
    ok = "ok" if outcome.met or outcome.skipped else "not ok"
    point = f"{ok} {number} - {outcome.name}: {_escaped(outcome.row.title)}{_directive(outcome)}"
    return "\n".join((point, "  ---", *(f"  {each}" for each in _diagnosis(outcome)), "  ..."))


def _directive(outcome: Outcome) -> str:
    if outcome.skipped:
        return f" # SKIP {_escaped(outcome.skipped)}"
    if outcome.expected and not outcome.failed:
        return f" # TODO {outcome.row.level.value}, not must"
    return ""


def _diagnosis(outcome: Outcome) -> Iterator[str]:
    """YAML; strings are as in JSON, which is YAML."""
    row = outcome.row
    yield f"specification: {json.dumps(row.sentence)}"
    yield f"section: {json.dumps(row.section)}"
    yield f"level: {row.level.value}"
    if outcome.broken:
        yield f"not examined: {json.dumps(outcome.broken)}"
    if outcome.expected:
        yield f"version: {outcome.version}"
        yield f"expected: {json.dumps(outcome.expected)}"
        yield f"found: {json.dumps(outcome.found)}"
    if (outcome.expected or outcome.broken) and outcome.answers:
        yield from _call(outcome.answers[-1])


def _call(answer: Answer) -> Iterator[str]:
    yield "call:"
    parameters = " ".join(f"{name}={value}" for name, value in answer.parameters.items())
    told = {
        "environment": parameters,
        "stdin": answer.stdin,
        "status": answer.status,
        "stdout": answer.stdout,
        "stderr": answer.stderr,
    }
    for name, value in told.items():
        cut = value[:LONGEST] if isinstance(value, str) else value
        yield f"  {name}: {json.dumps(cut)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("#", "\\#")


def summary(outcomes: list[Outcome]) -> str:
    """One line, a comment."""
    met = sum(each.met for each in outcomes)
    failed = sum(each.failed for each in outcomes)
    skipped = sum(bool(each.skipped) for each in outcomes)
    unadvised = len(outcomes) - met - failed - skipped
    return f"# {met} met, {failed} failed, {unadvised} not as recommended, {skipped} not applicable"
