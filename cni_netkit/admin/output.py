"""How a report is shown: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

JSON = dict[str, Any]
WIDE = 10_000
"""Columns of what is no terminal: nothing is cut or folded there."""

COLOURS = {
    **dict.fromkeys(("yes", "complete", "free"), "green"),
    **dict.fromkeys(("no", "abandoned"), "red"),
    **dict.fromkeys(("under way", "down"), "yellow"),
}
"""Whole cells that stand out."""


def console() -> Console:
    """Standard output; colours where it is a terminal, and never there with NO_COLOR."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False)


def print_json(report: Mapping[str, Any]) -> None:
    """Print one JSON object, as docs/admin.md describes it."""
    print(json.dumps(report, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print rows under their headings; what is None shows as "-"."""
    where = console()
    if title:
        where.print(Text(title, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    where.print(table)


def _cell(value: object) -> Text:
    if isinstance(value, list | tuple):
        text = ", ".join(map(str, value)) or "-"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = "-" if value in (None, "") else str(value)
    return Text(text, style=COLOURS.get(text, ""))
