"""Options of a command, checked with the models of the configuration: one description for both."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cni_netkit.admin.failure import Misuse

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], given: Mapping[str, Any], *, positional: str = "") -> Model:
    """What was given, by the keys of a model, which the options are called after; None is absent.

    `positional`: the key whose value stands without an option. Raises `Misuse` with every fault.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Misuse(*_faults(error, positional)) from None


def _faults(error: ValidationError, positional: str) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        text = fault["msg"].removeprefix("Value error, ")
        key = str(fault["loc"][0]) if fault["loc"] else ""
        option = key if key == positional else f"--{key.lower()}"
        yield f"{option}: {text}" if key else text
