"""What the models of configurations have in common: null is absent, and nothing is converted.

A string after a field says what it means, for `cni-netkit schema` and docs/reference.md
(admin/descriptions.py): a paragraph, then lines "Linux: " with the release that has it first, and
"Needs: " with what else must be set.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from cni_netkit.spec.request import IFNAME_BYTES, check_ifname


@dataclass(frozen=True, eq=False)
class Form:
    """What a value must be like beyond its type, annotated to a field.

    `words` are what follows "must be", `schema` the same for JSON Schema. `check` passes a value
    on, as it shall be; it raises ValueError, without a text where `words` say enough. `reads`: it
    is given whatever is there, else what is of the type already.
    """

    words: str
    check: Callable[[Any], Any] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    reads: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """As pydantic wants it."""
        if self.check is None:
            return handler(source)  # type: ignore[no-any-return]
        if self.reads:
            return core_schema.no_info_plain_validator_function(self.check)
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """Of the type and of the form."""
        if self.reads:
            return dict(self.schema)
        return {"allOf": [handler(core), self.schema]} if self.schema else dict(handler(core))


def valid_ifname(value: str) -> str:
    """Pass a device name on. Raises ValueError for what the kernel would not take."""
    if fault := check_ifname(value):
        raise ValueError(fault)
    return value


IFNAME = Form(
    f"a device name: up to {IFNAME_BYTES} bytes without space, '/' and ':'",
    valid_ifname,
    {"pattern": rf"^(?!\.{{1,2}}$)[^/:\s\u0000]{{1,{IFNAME_BYTES}}}$"},
)


def _valid_path(value: str) -> str:
    try:
        if b"\0" in os.fsencode(value):
            raise ValueError("has a zero byte in it")
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair in it") from None
    return value


PATH = Form("a string", _valid_path, {"pattern": r"^[^\u0000]*$"})


def zero_or(least: int, most: int, nought: str, unit: str = "") -> Form:
    """A number that may be 0, which then means something else."""

    def check(value: int) -> int:
        if value != 0 and not least <= value <= most:
            raise ValueError
        return value

    schema = {"anyOf": [{"const": 0}, {"minimum": least, "maximum": most}]}
    return Form(f"0 ({nought}) or from {least} to {most}{unit}", check, schema)


def at_most(number: int, what: str) -> Form:
    """A list that is not too long."""

    def check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(value) > number:
            raise ValueError(f"has {len(value)} entries, of at most {number}")
        return value

    return Form(f"a list of up to {number} {what}", check, {"maxItems": number})


def without_null(given: object) -> object:
    """Leave out keys whose value is null: for Go, that writes them, they are absent."""
    if not isinstance(given, Mapping):
        return given
    return {key: value for key, value in given.items() if value is not None}


class Model(BaseModel):
    """Strict: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: object) -> object:
        return without_null(given)


class Foreign(BaseModel):
    """Words of others (the specification, runtimes): what we do not know is not our business."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: object) -> object:
        return without_null(given)


class Shared(BaseModel):
    """Configurations that reference plugins read, too: keys in any case, as in Go; none unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _any_case(cls, given: object) -> object:
        return without_null(fold_keys(cls, given)) if isinstance(given, dict) else given


def fold_keys(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Give keys the case that `model` knows, as Go's JSON decoder does; an exact match wins."""
    known = {
        (field.alias or name).lower(): field.alias or name
        for name, field in model.model_fields.items()
    }
    folded = {known.get(key.lower(), key): value for key, value in given.items()}
    return folded | {key: value for key, value in given.items() if key in folded}
