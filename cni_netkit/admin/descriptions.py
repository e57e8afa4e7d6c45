"""What the models of configurations say of their keys: the strings after the fields.

They are read from the source: at a request's import they cost nothing.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@dataclass(frozen=True)
class Description:
    """What a key means, the Linux release that has it first, and what else must be set."""

    text: str
    linux: str = ""
    needs: str = ""

    def __str__(self) -> str:
        linux = f" Linux {self.linux}." if self.linux else ""
        needs = f" Needs {self.needs}." if self.needs else ""
        return f"{self.text}{linux}{needs}"


@cache
def of(model: type[BaseModel]) -> dict[str, Description]:
    """By field. Raises KeyError for a field without a description."""
    found: dict[str, Description] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            found.update(_written(each))
    return {name: found[name] for name in model.model_fields}


def _written(model: type[BaseModel]) -> Iterator[tuple[str, Description]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in pairwise(definition.body):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, _read(inspect.cleandoc(text))


def _read(text: str) -> Description:
    meaning, _, lines = text.partition("\n\n")
    notes = dict(line.split(": ", 1) for line in lines.splitlines())
    return Description(
        " ".join(meaning.split()), linux=notes.pop("Linux", ""), needs=notes.pop("Needs", "")
    )
