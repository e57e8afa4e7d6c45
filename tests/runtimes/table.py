"""What worked where: tests down, runtimes across."""

from collections.abc import Mapping, Sequence

Key = tuple[str, str, str]
"""Runtime, way, test."""

SHORT = {"not applicable": "n/a", "left out": "-", "skipped": "skipped"}
"""Kinds of reasons."""

OK, FAILED, MISSING = "ok", "FAILED", "no result"


def table(outcomes: Mapping[Key, str], columns: Sequence[tuple[str, str]]) -> str:
    """The table, and below it what is too long for it."""
    tests = sorted({test for _, _, test in outcomes})
    notes: list[str] = []

    def cell(text: str) -> str:
        if text in (OK, FAILED, MISSING):
            return text
        kind, _, why = text.partition(": ")
        if why not in notes:
            notes.append(why)
        return f"{SHORT[kind]} ({notes.index(why) + 1})"

    rows = [["", *(runtime for runtime, _ in columns)], ["", *(way for _, way in columns)]]
    for test in tests:
        name = test.removeprefix("test_").replace("_", " ")
        rows.append([name, *(cell(outcomes.get((*each, test), MISSING)) for each in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"({number}) {why}" for number, why in enumerate(notes, 1)]
    return "\n".join(lines)
