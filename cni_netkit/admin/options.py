"""Options of a command, checked with the models of the configuration: one description for both."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cni_netkit.admin.failure import Misuse
from cni_netkit.spec import faults

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], given: Mapping[str, Any], *, positional: str = "") -> Model:
    """What was given, by the keys of a model, which the options are called after; None is absent.

    `positional`: the key whose value stands without an option. Raises `Misuse` with every fault.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        told = (each.told(_option(each.path, positional)) for each in faults.read(error, model))
        raise Misuse(*told) from None


def _option(path: str, positional: str) -> str:
    key = path.partition(".")[0]
    return key if key in ("", positional) else f"--{key.lower()}"
