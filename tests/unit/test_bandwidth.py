"""The bandwidth capability: what is believed, and which token buckets follow from it."""

from typing import Any

import pytest

from cni_netkit.kernel.model import Bucket, FoundBucket
from cni_netkit.spec.config import validate
from cni_netkit.spec.runtime import Limits
from cni_netkit.steps.bandwidth import bucket
from tests.unit.given import conf, refused

CONTAINERD = {
    "IngressRate": 10_000_000,
    "IngressBurst": 4294967295,
    "EgressRate": 5_000_000,
    "EgressBurst": 4294967295,
}
MOST = 8 * 0xFFFFFFFF - 1


def limits(given: Any, **more: Any) -> Limits | None:
    """The limits of a configuration to which a runtime added `given`."""
    return validate(conf(runtimeConfig={"bandwidth": given}, **more)).limits


def test_as_containerd_writes_it() -> None:
    """Keys in Go's case, bursts of 32 bits."""
    given = limits(CONTAINERD)
    assert given is not None
    assert (given.ingress_rate, given.ingress_burst) == (10_000_000, 4294967295)
    assert (given.egress_rate, given.egress_burst) == (5_000_000, 4294967295)


def test_the_key_itself_in_any_case() -> None:
    """Go's JSON would take it, so we do."""
    given = validate(conf(runtimeConfig={"Bandwidth": {"egressrate": 8, "EGRESSBURST": 16}})).limits
    assert given is not None
    assert (given.egress_rate, given.egress_burst, given.ingress_rate) == (8, 16, 0)


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        {},
        {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
        {"ingressRate": None, "egressRate": 0},
        {"unshapedSubnets": [], "shapedSubnets": None},
    ],
)
def test_no_limits(given: Any) -> None:
    """Zero, null and nothing at all mean that nothing is shaped, for a single device too."""
    assert limits(given) is None
    assert limits(given, pairing="single") is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ingressRate": 1000}, ["ingressRate needs ingressBurst"]),
        ({"ingressBurst": 1000}, ["ingressBurst needs ingressRate"]),
        ({"egressRate": 1000, "egressBurst": 0}, ["egressRate needs egressBurst"]),
        ({"ingressRate": 1000, "egressBurst": 1000}, ["needs ingressBurst"]),
        ({"ingressRate": 7, "ingressBurst": 8}, ["ingressRate", "from 8 to", "found 7"]),
        ({"ingressRate": 8, "ingressBurst": 7}, ["ingressBurst", "from 8 to", "found 7"]),
        ({"egressRate": -8, "egressBurst": 8}, ["runtimeConfig.bandwidth.egressRate", "-8"]),
        ({"egressRate": 8, "egressBurst": MOST + 1}, ["egressBurst", str(MOST)]),
        ({"egressRate": 2**64, "egressBurst": 8}, ["egressRate", str(2**64 - 1)]),
        (
            {"egressRate": "1M", "egressBurst": 8},
            ["egressRate", "from 8 to", '(found the string "1M")'],
        ),
        ({"egressRate": 1e6, "egressBurst": 8}, ["egressRate", "from 8 to", "1000000.0"]),
        ({"egressRate": True, "egressBurst": 8}, ["egressRate", "from 8 to", "(found true)"]),
        ("10M", ["runtimeConfig.bandwidth"]),
    ],
    ids=str,
)
def test_faults(given: Any, words: list[str]) -> None:
    """Error 7 names the key and what is wrong with it."""
    with refused(7, *words):
        limits(given)


@pytest.mark.parametrize("key", ["unshapedSubnets", "shapedSubnets"])
def test_subnets_are_refused(key: str) -> None:
    """Passed over, they would shape what shall not be shaped: error 2."""
    with refused(2, f"runtimeConfig.bandwidth.{key}", "10.0.0.0/8"):
        limits({"egressRate": 8000, "egressBurst": 8000, key: ["10.0.0.0/8"]})


def test_a_single_device_has_no_end_to_shape() -> None:
    """Error 7 says why."""
    with refused(7, 'bandwidth needs pairing "pair"', "no device of the host"):
        limits(CONTAINERD, pairing="single")


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        # What the reference plugin 1.9.1 sets, read with tc(8); bytes, limit is rate * 25 ms + burst.
        (1_000_000, 800_000, Bucket(125_000, 100_000, 103_125)),
        (10_000_000, 4294967295, Bucket(1_250_000, 536_870_911, 536_902_161)),
        (123, 456, Bucket(15, 57, 57)),
        (8, 8, Bucket(1, 1, 1)),
        # The largest burst leaves no room for more: nothing wraps around.
        (8 * 10**9, MOST, Bucket(10**9, 0xFFFFFFFE, 0xFFFFFFFF)),
        (400 * 10**9, 8 * 10**9, Bucket(50 * 10**9, 10**9, 2_250_000_000)),
    ],
)
def test_buckets(rate: int, burst: int, expected: Bucket) -> None:
    """Whole bytes, and 25 ms to wait."""
    assert bucket(rate, burst) == expected


@pytest.mark.parametrize(
    ("rate", "burst", "ticks"),
    [
        # As Linux 6.18 tells it: the burst in bytes at that rate, in 64 ns, of which 32 bits.
        (125_000, 100_000, 12_500_000),
        (125_000, 536_870_911, 2_684_354_435),
        (1_953_000, 536_870_911, 274_887),
    ],
)
def test_a_burst_is_known_again(rate: int, burst: int, ticks: int) -> None:
    """Also where only the low bits are told; another burst is another one."""
    for rounding in (-1, 0, 1):
        assert FoundBucket(rate, 0, ticks + rounding).has_burst(burst)
    assert not FoundBucket(rate, 0, ticks).has_burst(burst + 100)
    assert not FoundBucket(rate, 0, ticks).has_burst(burst - 100)
    assert not FoundBucket(rate, 0, (ticks + 5000) % 2**32).has_burst(burst)


def test_a_burst_in_bytes() -> None:
    """For the text of a difference."""
    assert FoundBucket(125_000, 0, 12_500_000).burst == 100_000


def test_a_bucket_without_a_rate_has_no_burst() -> None:
    """Nothing is divided by zero."""
    assert not FoundBucket(0, 0, 0).has_burst(100)
