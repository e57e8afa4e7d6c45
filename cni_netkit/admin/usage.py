"""What is wrong with a command line: what it is, what may have been meant, where help is.

The exit status is 2 for all of it, as argparse has it. Standard library only, as the parser is.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from cni_netkit.spec import words

STATUS = 2


class Parser(argparse.ArgumentParser):
    """A parser that does not answer a typing error with all that could have been typed."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, and refuse what is not known; also where something else is missing besides."""
        given = sys.argv[1:] if args is None else [*args]
        for each in self._options_in(given):
            self._refuse_option(each)
        parsed, unknown = super().parse_known_args(given, namespace)
        for each in unknown:
            self._refuse_option(each)
            complain(self.prog, f"unexpected argument {each}")
        return parsed, unknown

    def _options_in(self, given: Sequence[str]) -> Iterable[str]:
        """Words that can be nothing else; those behind the name of a command are that one's."""
        if self._subparsers is not None:
            return takewhile(lambda each: each.startswith("-"), given)
        return (each for each in takewhile("--".__ne__, given) if each.startswith("--"))

    def _refuse_option(self, given: str) -> None:
        option = given.partition("=")[0]
        known = [*self._option_string_actions]
        if option.startswith("-") and not any(each.startswith(option) for each in known):
            complain(self.prog, f"unknown option {option}{_meant(option, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            complain(self.prog, f"unknown command {value}{_meant(value, action.choices)}")
        super()._check_value(action, value)


def number(word: str) -> int | str:
    """A number where it is one; the model that it is checked with says what it must be."""
    try:
        return int(word)
    except ValueError:
        return word


def complain(command: str, *faults: str) -> NoReturn:
    """Tell what is wrong with a command line, each fault in a line, and end."""
    for fault in faults:
        print(f"{command}: {fault}", file=sys.stderr)
    print(f"Try '{command} --help'.", file=sys.stderr)
    sys.exit(STATUS)


def _meant(given: str, known: Iterable[str]) -> str:
    word = words.meant(given, known)
    return word and f"; did you mean {word}?"
