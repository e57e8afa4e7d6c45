"""Ranges of many nodes, put together (cni_netkit.node.ranges)."""

import random
from ipaddress import ip_network

import pytest

from cni_netkit.node.ranges import as_few
from cni_netkit.spec.addresses import Network


def node_ranges(version: int, share: float) -> list[Network]:
    """Those of a share of 5000 nodes, of which the others are gone."""
    chosen = random.Random(7)
    kept = [number for number in range(5000) if chosen.random() < share]
    if version == 4:
        return [ip_network((10 << 24 | number << 8, 24)) for number in kept]
    return [ip_network((0xFD00 << 112 | number << 64, 64)) for number in kept]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("share", [1, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("most", [1, 16, 512])
def test_all_of_them_are_in_few(version: int, share: float, most: int) -> None:
    """And what is in them that is no node's range lies between such."""
    given = node_ranges(version, share)
    few = as_few(given, most)
    assert len(few) <= most
    assert all(any(each.subnet_of(wide) for wide in few) for each in given[::50])  # type: ignore[arg-type]
    for wide in few:
        assert any(each.subnet_of(wide) for each in given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["10.0.0.0/24", "10.0.1.0/24"], ["10.0.0.0/23"]),
        (["10.0.0.0/24", "10.0.2.0/24"], ["10.0.0.0/24", "10.0.2.0/24"]),
        (["fd00::/64", "fd00:0:0:1::/64", "fd00::/48"], ["fd00::/48"]),
    ],
    ids=str,
)
def test_few_are_left_as_they_are(given: list[str], expected: list[str]) -> None:
    """Put together where that is exact."""
    assert [str(each) for each in as_few(map(ip_network, given), 2)] == expected


def test_the_smallest_are_widened() -> None:
    """Large ones stay as they are while there are smaller ones."""
    given = ["10.0.0.0/16", "10.2.0.0/24", "10.2.2.0/24", "10.2.5.0/24"]
    assert [str(each) for each in as_few(map(ip_network, given), 2)] == [
        "10.0.0.0/16",
        "10.2.0.0/21",
    ]
