"""Changing a JSON document where its structure matters: one value, key or place, now and then more."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.request import _decode

JSON = Any

NESTS = [900, 100_000]
NAMES = [
    *(
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/etc",
        "a/b",
        "a b",
        "a\nb",
        "\x1b[31mred",
        "\u202e",
        "a\0b",
    ),
    *("exactly15bytes_", "sixteen_bytes_no", "ä" * 8, "c" * 300, "lock", "nics", "all", "default"),
    *(
        "\ud800",
        "\udfff\ud800",
        "{}",
        "%s%n",
        "$(id)",
        "';--",
        "-1",
        "null",
        "true",
        "eth0",
        "nic0",
    ),
]
VALUES: list[JSON] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        15,
        16,
        2**31,
        2**32,
        2**63,
        2**64,
        -(2**63),
        10**400,
        1.0,
        1e308,
    ),
    *(float("nan"), float("inf"), float("-inf"), -0.0),
    *([], {}, [[]], [None], {"": {}}, [{}], {"type": "host-local"}),
    *(
        "10.1.0.0/24",
        "10.1.0.5",
        "fd00:1::/64",
        "::ffff:10.1.0.1",
        "0.0.0.0/0",
        "10.1.0.0/33",
        "fe80::1%eth0",
    ),
    *(
        "host-local",
        "static",
        "dhcp",
        "l2",
        "l3",
        "pair",
        "single",
        "veth",
        "none",
        "02:00:00:00:00:01",
    ),
    *NAMES,
]


class Nest:
    """A list in a list in a list: written by hand, since no encoder goes so deep."""

    def __init__(self, depth: int) -> None:
        self.text = "[" * depth + "]" * depth


def mutate(text: str | bytes, seed: int) -> bytes | None:
    """Another document, or None where it is none or shall be changed as bytes."""
    chance = random.Random(seed)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if chance.random() < 0.2:
        return None
    try:
        return mutated(document, chance)
    except RecursionError:  # read, but not written: it has a nest already
        return None


def decoded(data: bytes) -> JSON:
    """The document that a file is, as a request is decoded; None where it is none."""
    try:
        return _decode(b'{"given": ' + data + b"}")["given"]
    except CNIError:
        return None


def mutated(document: JSON, chance: random.Random) -> bytes:
    """The document with some changes, as bytes."""
    twice: list[str] = []
    nests: list[Nest] = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        document = _changed(document, chance, twice, nests)
    text = json.dumps(document)
    for nest in nests:
        text = text.replace('"(nest)"', nest.text, 1)
    if twice and text.startswith("{"):
        # Nothing of Python makes a key twice, and everything reads it.
        text = "{" + "".join(f"{key}, " for key in twice) + text[1:]
    return text.encode()


def _changed(document: JSON, chance: random.Random, twice: list[str], nests: list[Nest]) -> JSON:
    there = list(places(document))
    if not there:
        return _any(chance)
    inside, key = chance.choice(there)
    how = chance.randrange(12)
    if how < 6:
        inside[key] = _any(chance)
    elif how == 6:
        del inside[key]
    elif how == 7 and isinstance(inside, dict):
        inside[chance.choice(NAMES)] = inside.pop(key)
    elif how == 8:
        other, its = chance.choice(there)
        inside[key] = _copied(other, its)
    elif how == 9 and isinstance(inside, list):
        inside.insert(key, _copied(inside, key))
    elif how == 10:
        twice.append(f"{json.dumps(str(key))}: {json.dumps(_any(chance))}")
    elif how == 11 and chance.random() < 0.3:
        nests.append(Nest(chance.choice(NESTS)))
        inside[key] = "(nest)"
    else:
        inside[key] = _alike(inside[key], chance)
    return document


def _any(chance: random.Random) -> JSON:
    return copy.deepcopy(chance.choice(VALUES))


def _copied(inside: JSON, key: JSON) -> JSON:
    try:
        return json.loads(json.dumps(inside[key]))
    except (KeyError, IndexError):
        return None


def _alike(value: JSON, chance: random.Random) -> JSON:
    """Nearly the same."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value + chance.choice([-1, 1, 2**16, 2**32])
    if isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        return (
            value[:at]
            + chance.choice(["", "\n", "/", "\0", ".", ":", "ä", " ", "0", "\ud800"])
            + value[at + 1 :]
        )
    return [value]


def places(value: JSON) -> Iterator[tuple[JSON, JSON]]:
    """Every place at which something stands: what it is in, and its key or number."""
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, dict):
            keys: list[JSON] = list(inside)
        elif isinstance(inside, list):
            keys = list(range(len(inside)))
        else:
            continue
        for key in keys:
            yield inside, key
            waiting.append(inside[key])
