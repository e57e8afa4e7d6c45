"""What must hold whatever comes in: a code, one document of JSON, never an error that nobody thought of."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from typing import Any

from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.version import SUPPORTED
from cni_netkit.verbs import Answer

JSON = dict[str, Any]


def strict(text: str | bytes) -> Any:
    """Read JSON as every other program does, without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def loose(text: bytes) -> Any:
    """Read JSON as the plugin does."""
    return json.loads(text)


def sound(value: object) -> None:
    """Can be written as JSON, and is the same when it has been read."""
    text = json.dumps(value)
    assert json.dumps(strict(text)) == text, text


def judge(answer: Answer) -> JSON:
    """An answer, which must be sound; its document, which is empty where there is none."""
    assert answer.status in (0, 1), answer
    if answer.output is None:
        assert answer.status == 0, "a failure that says nothing"
        return {}
    document = strict(json.dumps(answer.output))
    assert isinstance(document, dict), document
    assert document["cniVersion"] in SUPPORTED, document
    if answer.status:
        judge_error(document)
    return document


def judge_error(document: JSON) -> None:
    """An error object of the specification, section 5."""
    assert type(document["code"]) is int, document
    assert document["code"] != Code.INTERNAL, document
    assert 0 < document["code"] < 2**32, document
    assert isinstance(document["msg"], str), document
    assert document["msg"], document
    assert isinstance(document["details"], str), document


@contextlib.contextmanager
def refusing(*codes: int) -> Iterator[None]:
    """Within: nothing is raised but a CNIError, with one of the codes if there are any."""
    try:
        yield
    except CNIError as error:
        refusal = error
    else:
        return
    judge_error(strict(json.dumps(refusal.as_dict("1.1.0"))))
    assert not codes or refusal.code in codes, (int(refusal.code), refusal.message)


class Void(io.RawIOBase):
    """What /dev/null is, which cannot be opened here."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within: standard error is as on a node, only that nobody reads it."""
    before = sys.stderr
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(Void()), "utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        sys.stderr = before
