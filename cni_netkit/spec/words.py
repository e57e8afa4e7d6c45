"""Values of configurations in the words of JSON, and what a misspelt one may mean."""

import json
from collections.abc import Iterable
from typing import Any

SHOWN = 60
"""Characters of a value in an error."""

CLOSE = 0.6
"""How alike two words must be, of 1 (difflib); "l4" is no typing error of "l3"."""

KINDS = {bool: "", type(None): "", str: "the string ", list: "the list ", dict: "the object "}


def shown(value: object) -> str:
    """A value as it stands in JSON, cut where it is long."""
    # JSON can hold what is no UTF-8, half a surrogate pair: nobody could print it.
    text = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
    return cut(text)


def cut(text: str) -> str:
    """The beginning of a text, where it is long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def found(value: object) -> str:
    """A value with its type, where that is what is wrong with it."""
    return KINDS.get(type(value), "the number ") + shown(value)


def alternatives(values: Iterable[object]) -> str:
    """Values to choose from: "a", "b" or "c"."""
    *others, last = map(shown, values)
    return f"{', '.join(others)} or {last}" if others else last


def meant(given: object, known: Iterable[str]) -> str:
    """Which of the known words a given one is meant to be, as far as it is like one; else ""."""
    if not isinstance(given, str):
        return ""
    from difflib import get_close_matches

    by_plain = {_plain(word): word for word in known}
    like = get_close_matches(_plain(given), by_plain, n=1, cutoff=CLOSE)
    return by_plain[like[0]] if like else ""


class NoNumber(ValueError):
    """NaN or Infinity: Python reads them, nothing else does (RFC 8259, section 6)."""


def read_json(data: str | bytes) -> Any:
    """A document as every other program reads it. Raises what `not_json` has words for."""
    return json.loads(data, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise NoNumber(f"{word} is no number in JSON")


def not_json(error: Exception) -> str:
    """Why a text is not JSON, of what `json.loads` raises."""
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "it is empty"
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, NoNumber):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start + 1})"
    # Besides there are nests without end, and numbers of thousands of digits.
    return "no program could read it: it is nested too deeply, or has a number that is too long"


def _plain(word: str) -> str:
    """Without what is spelt differently elsewhere: case, "-" and "_"."""
    return word.lower().replace("_", "").replace("-", "")
