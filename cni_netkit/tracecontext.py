"""W3C Trace Context (level 2, section 3.2, "Traceparent Header") in the environment of a plugin.

libcni sets TRACEPARENT, TRACESTATE and BAGGAGE where the runtime traces. They are passed on with
the rest of the environment; here is read what trace a request belongs to.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRACEPARENT, TRACESTATE = "TRACEPARENT", "TRACESTATE"
SAMPLED = 1

_FORM = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
"""Later versions may have more fields behind those that are known."""


@dataclass(frozen=True)
class Parent:
    """The caller's span: ids in hexadecimal, and whether it records what it does."""

    trace_id: str
    span_id: str
    sampled: bool


def parent(environment: Mapping[str, str]) -> Parent | None:
    """Whose part a request is; None where that is not said, or not in the form it must have."""
    found = _FORM.fullmatch(environment.get(TRACEPARENT, ""))
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    return Parent(found["trace"], found["span"], bool(int(found["flags"], 16) & SAMPLED))


def words(environment: Mapping[str, str]) -> dict[str, Any]:
    """What lines of the log say of it."""
    found = parent(environment)
    return {"trace_id": found.trace_id, "span_id": found.span_id} if found else {}
