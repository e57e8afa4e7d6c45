"""What the models of configurations have in common: they are strict, and null is absent."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from cni_netkit.spec.request import check_ifname


def valid_ifname(value: str) -> str:
    """Pass a device name on. Raises ValueError for what the kernel would not take."""
    if fault := check_ifname(value):
        raise ValueError(fault)
    return value


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


def fold_keys(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Give keys the case that `model` knows, as Go's JSON decoder does; an exact match wins."""
    known = {
        (field.alias or name).lower(): field.alias or name
        for name, field in model.model_fields.items()
    }
    folded = {known.get(key.lower(), key): value for key, value in given.items()}
    return folded | {key: value for key, value in given.items() if key in folded}
