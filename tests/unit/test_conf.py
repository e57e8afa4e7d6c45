"""The examples in conf/ can all be installed on one node: no two networks give the same addresses."""

import ipaddress
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SUBNET = ipaddress.IPv4Network | ipaddress.IPv6Network


def subnets(given: Any) -> Iterator[SUBNET]:
    """Every subnet and every address that is named anywhere in a configuration's IPAM."""
    if isinstance(given, dict):
        for key in ("subnet", "address"):
            if isinstance(given.get(key), str):
                yield ipaddress.ip_network(given[key], strict=False)
        given = list(given.values())
    for each in given if isinstance(given, list) else ():
        yield from subnets(each)


def networks() -> dict[str, list[SUBNET]]:
    """Network and subnets of each example, and of the README's.

    A node has one of the lists in conf/kubernetes, and they are of one network.
    """
    found = {}
    readme = (ROOT / "README.md").read_text().partition("```json\n")[2].partition("```")[0]
    paths = set((ROOT / "conf").rglob("*.conf*")) - set((ROOT / "conf/kubernetes/dra").iterdir())
    for text in (readme, *(path.read_text() for path in sorted(paths))):
        given = json.loads(text)
        plugins = given.get("plugins", [given])
        ranges = [each for plugin in plugins for each in subnets(plugin.get("ipam"))]
        assert given["name"] not in found, "two examples are one network"
        found[given["name"]] = ranges
    return found


def test_there_are_ranges_to_compare() -> None:
    """All examples but those for programs that write the ranges themselves."""
    assert {name for name, ranges in networks().items() if not ranges} == {
        *("cbr0", "kubernetes", "leased-queue", "pods")
    }


def test_no_two_examples_share_addresses() -> None:
    """On one node the second container with an address would fail (error 103)."""
    for (one, its), (other, others) in itertools.combinations(networks().items(), 2):
        shared = [(a, b) for a in its for b in others if a.version == b.version and a.overlaps(b)]
        assert not shared, f"{one} and {other}"
