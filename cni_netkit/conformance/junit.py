"""The report as JUnit XML, as CI systems show it: a test case for each row, with all its calls."""

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from cni_netkit.conformance.plugin import Answer
from cni_netkit.conformance.runner import Outcome


def write(path: Path, subject: str, outcomes: Sequence[Outcome]) -> None:
    """Write the file; there is no word for "recommended" in JUnit, so that counts as skipped."""
    suite = ElementTree.Element("testsuite", name=f"CNI conformance of {subject}")
    for outcome in outcomes:
        _add_case(suite, outcome)
    counted = {"tests": "testcase", "failures": "*/failure", "errors": "*/error"}
    for key, found in {**counted, "skipped": "*/skipped"}.items():
        suite.set(key, str(len(suite.findall(found))))
    ElementTree.indent(suite)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _add_case(suite: ElementTree.Element, outcome: Outcome) -> None:
    row = outcome.row
    case = ElementTree.SubElement(suite, "testcase", classname="conformance", name=outcome.name)
    case.set("time", f"{outcome.seconds:.3f}")
    kind, said = _verdict(outcome)
    if kind:
        told = f'{row.section}: "{row.sentence}"\n{said}'
        ElementTree.SubElement(case, kind, message=_printable(said)).text = _printable(told)
    if outcome.answers:
        calls = "\n\n".join(map(_call, outcome.answers))
        ElementTree.SubElement(case, "system-out").text = _printable(calls)


def _verdict(outcome: Outcome) -> tuple[str, str]:
    """The element and what it says."""
    if outcome.skipped:
        return "skipped", f"not applicable: {outcome.skipped}"
    if outcome.broken:
        return "error", outcome.broken
    said = f"expected: {outcome.expected}; found: {outcome.found}"
    if outcome.failed:
        return "failure", said
    return ("skipped", f"not as recommended: {said}") if outcome.expected else ("", "")


def _call(answer: Answer) -> str:
    parameters = " ".join(f"{name}={value}" for name, value in answer.parameters.items())
    return "\n".join(
        (
            f"{parameters} <{json.dumps(answer.stdin)}",
            f"exit status {answer.status}",
            f"standard output: {answer.stdout}",
            f"standard error: {answer.stderr}",
        )
    )


def _printable(text: str) -> str:
    """Without characters that XML has no place for."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)
