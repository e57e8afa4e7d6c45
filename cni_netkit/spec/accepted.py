"""What the models of configurations accept, in words: for errors and for the reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cni_netkit.spec.model import Form
from cni_netkit.spec.words import alternatives

PLURALS = {"a string": "strings", "a whole number": "whole numbers", "an object": "objects"}


@dataclass(frozen=True)
class Accepted:
    """A type, and what was annotated to it."""

    type: Any
    metadata: tuple[Any, ...] = ()

    @classmethod
    def of(cls, annotation: Any, metadata: tuple[Any, ...] = ()) -> "Accepted":
        """What an annotation stands for. Null is left out, as it is the same as no key."""
        if get_origin(annotation) is Annotated:
            inner, *more = get_args(annotation)
            return cls.of(inner, (*more, *metadata))
        if get_origin(annotation) in (Union, UnionType):
            parts = [part for part in get_args(annotation) if part is not type(None)]
            if len(parts) == 1:
                return cls.of(parts[0], metadata)
        return cls(annotation, metadata)

    @property
    def alternatives(self) -> "list[Accepted]":
        """Itself, or what a union is made of."""
        if get_origin(self.type) in (Union, UnionType):
            return [Accepted.of(part) for part in get_args(self.type)]
        return [self]

    @property
    def form(self) -> Form | None:
        """The form that was annotated to it."""
        return next((each for each in self.metadata if isinstance(each, Form)), None)

    @property
    def reads(self) -> bool:
        """Whether its form has to do with any type."""
        return self.form is not None and self.form.reads

    @property
    def words(self) -> str:
        """What it must be: "a whole number from 1 to 1023"."""
        if self.form:
            return self.form.words
        return " or ".join(each._own_words for each in self.alternatives)

    @property
    def choices(self) -> list[str]:
        """The words to choose from, where there are."""
        literals = [each for each in self.alternatives if get_origin(each.type) is Literal]
        return [value for each in literals for value in get_args(each.type)]

    @property
    def _own_words(self) -> str:
        if get_origin(self.type) is Literal:
            return alternatives(get_args(self.type))
        if get_origin(self.type) is tuple:
            return f"a list of {_plural(self.item.words)}"
        if self.type is bool:
            return "true or false"
        if self.type is int:
            return "a whole number" + _between(self.metadata)
        return "a string" if self.type is str else "an object"

    @property
    def item(self) -> "Accepted":
        """What a list has in it."""
        return Accepted.of(get_args(self.type)[0])

    def within(self, part: int | str) -> "Accepted":
        """What a list or an object accepts at a place, or under a key."""
        for each in self.alternatives:
            if isinstance(part, int) and get_origin(each.type) is tuple:
                return each.item
            if isinstance(part, str) and (field := _fields(each.type).get(part)):
                return Accepted.of(field.annotation, tuple(field.metadata))
        return Accepted(Any)


def at(model: type[BaseModel], path: Sequence[int | str]) -> Accepted:
    """What a model accepts at a path of keys and places."""
    found = Accepted(model)
    for part in path:
        found = found.within(part)
    return found


def keys(accepted: Accepted) -> Iterable[str]:
    """The keys of an object."""
    return (key for each in accepted.alternatives for key in _fields(each.type))


def _fields(model: Any) -> dict[str, FieldInfo]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return {}
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _plural(words: str) -> str:
    if words.startswith("a list of "):
        return words.replace("a list", "lists", 1)
    return PLURALS.get(words, words)


def _between(metadata: Iterable[Any]) -> str:
    """The bounds of a number: " from 0 to 65535"."""
    flat = [one for each in metadata for one in getattr(each, "metadata", [each])]
    bounds = {
        name: getattr(each, name)
        for each in flat
        for name in ("ge", "le", "lt")
        if getattr(each, name, None) is not None
    }
    if "ge" not in bounds:
        return ""
    return f" from {bounds['ge']} to {bounds['le'] if 'le' in bounds else bounds['lt'] - 1}"
