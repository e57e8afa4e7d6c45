"""A whole request through `handle`: environment and standard input, each verb carried out for real.

The file: `NAME=VALUE` and a NUL for each variable, one NUL more, then the standard input. Where
CNI_COMMAND is missing it is ADD. After an ADD that worked come CHECK, DEL and DEL once more.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from cni_netkit.verbs import Answer, handle
from tests.faults.fuzz import cell, mutation, oracle

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": cell.NETNS,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}


@dataclass
class Cell:
    """The thread that is inside the container, and the world as it was when nothing had happened."""

    inside: int = 0
    before: dict[str, Any] = field(default_factory=dict)


CELL = Cell()


def prepare(inside: int) -> None:
    """Remember how it was, after the first ADD and DEL: they make the store's folders and the lock."""
    CELL.inside = inside
    CELL.before = cell.world(inside)


def one(data: bytes) -> None:
    """Carry it out, take it back; nothing may be left, nothing that was refused may have an effect."""
    environment, stdin = read(data)
    with oracle.silent():
        answer = ask(environment, stdin)
        if environment["CNI_COMMAND"] == "ADD" and answer.status == 0:
            take_back(environment, stdin, answer)
    after = cell.world(CELL.inside)
    assert after == CELL.before, difference(CELL.before, after)


def ask(environment: dict[str, str], stdin: bytes) -> Answer:
    """One request."""
    answer = handle(environment, lambda: stdin)
    oracle.judge(answer)
    return answer


def take_back(environment: dict[str, str], stdin: bytes, answer: Answer) -> None:
    """CHECK may find fault with what it is told; DEL may not."""
    config = json.loads(stdin)
    config["prevResult"] = answer.output
    ask({**environment, "CNI_COMMAND": "CHECK"}, json.dumps(config).encode())
    for _ in range(2):
        gone = ask({**environment, "CNI_COMMAND": "DEL"}, stdin)
        assert gone.status == 0, gone


def read(data: bytes) -> tuple[dict[str, str], bytes]:
    """Environment and standard input of a file."""
    block, _, stdin = data.partition(b"\0\0")
    entries = (os.fsdecode(each).partition("=") for each in block.split(b"\0"))
    return {**ENVIRONMENT, **{name: value for name, _, value in entries if name}}, stdin


def mutate(data: bytes, seed: int) -> bytes | None:
    """Change the JSON, and leave the environment as it is."""
    block, found, stdin = data.partition(b"\0\0")
    changed = mutation.mutate(stdin, seed)
    return None if changed is None else block + (found or b"\0\0") + changed


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Where two worlds differ."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return "; ".join(f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys)
