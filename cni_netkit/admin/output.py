"""How a report is shown: tables for people, JSON for programs.

On a terminal a table is laid out in its width, by breaking cells between words. Where that does not
suffice, each row becomes a block, with a line for each cell. Elsewhere each row is one line.
"""

import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

JSON = dict[str, Any]
WIDE = 10_000
"""Columns of what is no terminal: nothing is cut or folded there."""

GAP = 2
"""Blanks between two columns."""

BETWEEN_WORDS = re.compile(r"(?<=[\s/])(?=\S)")
WITHIN_NAMES = re.compile(r"(?<=[\s/,])(?=\S)|(?<=[a-z]-)")
"""Where a cell may be broken: NAMESPACE/NAME and lists also within, where nothing else suffices."""

COLOURS = {
    **dict.fromkeys(("yes", "complete", "free"), "green"),
    **dict.fromkeys(("no", "abandoned"), "red"),
    **dict.fromkeys(("under way", "down"), "yellow"),
}
"""Whole cells that stand out."""

Cells = Sequence[Sequence[str]]
"""Row by row."""

Pieces = Sequence[str]
"""Of a cell, which may be broken between them."""


def on_terminal() -> bool:
    """Whether somebody looks at the output as it comes."""
    return sys.stdout.isatty()


def console(width: int | None = None, file: TextIO | None = None) -> Console:
    """Where to print; colours where it is a terminal, and never there with NO_COLOR."""
    file = file or sys.stdout
    width = width if file.isatty() else WIDE
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def print_json(report: Mapping[str, Any]) -> None:
    """Print one JSON object, as docs/admin.md describes it."""
    print(json.dumps(report, indent=2))


def print_text(text: str, indent: str = "", file: TextIO | None = None) -> None:
    """Print a paragraph; on a terminal it is broken between words."""
    wrap = textwrap.TextWrapper(
        console(file=file).width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print(wrap.fill(text), file=file or sys.stdout)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "", *, empty: str = ""
) -> None:
    """Print rows under their headings; what is None shows as "-". `empty`: what to say of none."""
    if title:
        console().print(Text(title, style="bold"))
    if not rows:
        print_text(empty)
        return
    cells = [[*columns], *([_words(each) for each in row] for row in rows)]
    if lines := laid_out(cells, console().width) if on_terminal() else cells:
        _print_columns(cells, lines)
    else:
        _print_blocks(cells)


def _print_columns(cells: Cells, lines: Cells) -> None:
    """Print a table; `lines` are its cells with line breaks."""
    heading, *body = lines
    table = Table(*heading, box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for words, row in zip(cells[1:], body, strict=True):
        styled = zip(row, (COLOURS.get(each, "") for each in words), strict=True)
        table.add_row(*(Text(text, style) for text, style in styled))
    with (made := console(WIDE)).capture() as captured:
        made.print(table)
    print(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE), end="")


def _print_blocks(cells: Cells) -> None:
    heading, *rows = cells
    longest = max(map(cell_len, heading)) + GAP
    for number, row in enumerate(rows):
        if number:
            print()
        for name, words in zip(heading, row, strict=True):
            blanks = " " * (longest - cell_len(name))
            value = (words, COLOURS.get(words, ""))
            console(WIDE).print(Text.assemble((name, "bold"), blanks, value))


def laid_out(cells: Cells, available: int) -> Cells | None:
    """The cells with line breaks, so that each row fits into the columns; None: it cannot."""
    available -= GAP * (len(cells[0]) - 1)
    for within in (BETWEEN_WORDS, WITHIN_NAMES):
        pieces = [
            [(within if "/" in cell or "," in cell else BETWEEN_WORDS).split(cell) for cell in row]
            for row in cells
        ]
        if widths := _fitting([*zip(*pieces, strict=True)], available):
            return [list(map(_filled, row, widths)) for row in pieces]
    return None


def _fitting(columns: Sequence[Sequence[Pieces]], available: int) -> list[int] | None:
    """The columns' widths, taken from the widest until all fit; None where they cannot."""
    widths = [_needed(column, WIDE) for column in columns]
    while sum(widths) > available:
        less = [_needed(column, width - 1) for column, width in zip(columns, widths, strict=True)]
        spare = [index for index, width in enumerate(widths) if less[index] < width]
        if not spare:
            return None
        widest = max(spare, key=widths.__getitem__)
        widths[widest] = less[widest]
    return widths


def _needed(column: Sequence[Pieces], width: int) -> int:
    """The width of what is in a column when it is broken to fit one, if words allow it."""
    return max(cell_len(line) for cell in column for line in _filled(cell, width).split("\n"))


def _filled(pieces: Pieces, width: int) -> str:
    lines = [""]
    for piece in pieces:
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)
