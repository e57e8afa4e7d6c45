"""The one seam at which the faults that pydantic finds get our words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from cni_netkit.spec import words
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import LIST, WORD

ADVICE = "mend the named keys; docs/reference.md has every key with its values"


TOLD = 50
TOLD_CHARACTERS = 1000
"""Of faults in one error: a configuration of megabytes has megabytes of them."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the value at a path, which is "" for the whole.

    `unknown`: there is no such key, and `text` is what to know of it; else `text` is the fault.
    """

    path: str
    text: str
    value: object = None
    unknown: bool = False

    def told(self, name: str) -> str:
        """As a part of a sentence; `name` is what to call the path."""
        if self.unknown:
            return f"{name} is not supported" + _in_brackets(self.text)
        if self.text.startswith("is missing"):
            return f"{name} {self.text}"
        return f"{name}: {self.text}" if name else self.text


def read(error: ValidationError, model: type[BaseModel], at: str = "") -> Iterator[Fault]:
    """Every fault that a model found; `at` is the path of what it was given."""
    for raw in error.errors(include_url=False):
        loc = [part for part in raw["loc"] if part not in (WORD, LIST)]
        path = ".".join(map(str, [*filter(None, [at]), *loc]))
        yield _read(path, model, loc, raw)


def refusal(
    faults: Sequence[Fault],
    what: str = "the network configuration",
    named: Callable[[str], str] = str,
) -> CNIError:
    """Error 2 where there are only keys that are not supported, else 7: every fault in one text."""
    unknown = [fault for fault in faults if fault.unknown]
    if len(unknown) == len(faults):
        return CNIError(
            Code.UNSUPPORTED_FIELD,
            f"{what} has keys that are not supported: "
            + _joined(", ", [named(fault.path) + _in_brackets(fault.text) for fault in unknown]),
            _joined("; ", [f"{fault.path}: {words.shown(fault.value)}" for fault in unknown]),
        )
    ordered = [fault for fault in faults if not fault.unknown] + unknown
    told = _joined("; ", [fault.told(named(fault.path)) for fault in ordered])
    return CNIError(Code.INVALID_CONFIGURATION, f"{what} is not valid: {told}", ADVICE)


def _read(path: str, model: type[BaseModel], loc: Sequence[int | str], raw: Any) -> Fault:
    from cni_netkit.spec import accepted  # where there is a fault

    value, kind = raw["input"], raw["type"]
    if kind == "extra_forbidden":
        near = words.meant(loc[-1], accepted.keys(accepted.at(model, loc[:-1])))
        return Fault(path, near and f"did you mean {near}?", value, unknown=True)
    wanted = accepted.at(model, loc)
    if kind == "missing":
        return Fault(path, f"is missing; it must be {wanted.words}")
    said = str(raw["ctx"]["error"]) if kind == "value_error" else ""
    if said:
        # What is wrong with an object as a whole, the text names by its keys.
        whole = not path or isinstance(value, dict)
        return Fault(path, said if whole else f"{said} (found {words.shown(value)})", value)
    of_another_type = kind.endswith("_type") or (wanted.reads and not isinstance(value, str))
    shown = words.found(value) if of_another_type else words.shown(value)
    near = words.meant(value, wanted.choices)
    hint = f", did you mean {words.shown(near)}?" if near else ""
    return Fault(path, f"must be {wanted.words} (found {shown}{hint})", value)


def _joined(by: str, texts: Sequence[str]) -> str:
    """As many as somebody may read, each cut where it is long."""
    more = len(texts) - TOLD
    told = [text[:TOLD_CHARACTERS] for text in texts[:TOLD]]
    return by.join([*told, *([f"and {more} more"] if more > 0 else [])])


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
