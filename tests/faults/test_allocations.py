"""One allocation of the kernel fails, in each verb of each example: the 1st, the 2nd, ... the last.

Whatever fails: the verb worked, or there is a clear error and the world is as it was; then DEL and GC
leave nothing. A sample without --long, all of them with it.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from typing import Any

import pytest

from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.errors import KernelError, LackingKind, NoThread
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.kernel.netns import Netns
from tests.faults.bench import CODES, PROMPT_SECONDS, Bench, Told, bench, faults, sum_up
from tests.faults.examples import CASES, NAMES
from tests.faults.inject import Faults
from tests.kernel import judge
from tests.kernel.conftest import Node, links

__all__ = ["bench", "faults"]

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
SAMPLE = 12
FEWEST = 10
"""Less can fail only where faults do not reach the plugin."""

TOTALS: dict[str, Told] = {}


def points(last: int, *, everything: bool) -> list[int]:
    """Which faults: all, or some from the first to the last."""
    if everything or last <= SAMPLE:
        return list(range(1, last + 1))
    return sorted(random.sample(range(1, last + 1), SAMPLE))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("bench", CASES, ids=NAMES, indirect=True)
def test_allocation_that_fails(bench: Bench, verb: str, long: bool, figures: list[str]) -> None:
    """In one verb of one example."""
    TRIALS[verb](bench, long)
    assert bench.told.faults
    sum_up(figures, TOTALS, f"an allocation fails in {verb}", bench.told)
    bench.verdict()


def try_add(bench: Bench, everything: bool) -> None:
    """Done, or not at all."""
    attached = bench.attached
    attached.add_before()
    before = bench.kernel.world()
    last = bench.faults.count(bench.add)
    assert attached.call("DEL").ok
    for nth in points(last, everything=everything):
        answer = bench.fails(nth, "ADD")
        if answer and answer.status:
            bench.is_as(before, f"ADD {nth} failed: {answer.error}")
        elif answer:
            result = answer.result
            assert attached.call("CHECK", prevResult=result).ok
        assert attached.call("DEL").ok
        bench.is_as(before, f"DEL after ADD {nth}")
    assert attached.call("GC").ok
    bench.is_as(bench.empty, "GC")


def try_check(bench: Bench, everything: bool) -> None:
    """Changes nothing."""
    _unchanging(bench, everything, "CHECK", lambda: {"prevResult": bench.result})


def try_status(bench: Bench, everything: bool) -> None:
    """Changes nothing."""
    _unchanging(bench, everything, "STATUS", dict)


def _unchanging(
    bench: Bench, everything: bool, verb: str, keys: Callable[[], dict[str, Any]]
) -> None:
    bench.attached.add_before()
    bench.add()
    before = bench.kernel.world()
    last = bench.faults.count(lambda: bench.attached.call(verb, **keys()).ok)
    for nth in points(last, everything=everything):
        bench.fails(nth, verb, **keys())
        bench.is_as(before, f"{verb} {nth}")
    assert bench.attached.call("GC").ok
    bench.is_as(bench.empty, "GC")


def try_del(bench: Bench, everything: bool) -> None:
    """What it could not take back the next one does, or GC."""
    attached = bench.attached
    attached.add_before()
    before = bench.kernel.world()
    bench.add()
    last = bench.faults.count(lambda: attached.call("DEL").ok)
    for nth in points(last, everything=everything):
        bench.add()
        answer = bench.fails(nth, "DEL")
        if answer and answer.status:
            assert attached.call("DEL").ok
        bench.is_as(before, f"DEL {nth}")
    assert attached.call("GC").ok
    bench.is_as(bench.empty, "GC")


def try_gc(bench: Bench, everything: bool) -> None:
    """What it could not take back the next one does; what is valid stays."""
    attached = bench.attached
    attached.add_before()
    bench.add()
    last = bench.faults.count(lambda: attached.call("GC").ok)
    for nth in points(last, everything=everything):
        attached.add_before()
        bench.add()
        answer = bench.fails(nth, "GC")
        if answer and answer.status:
            assert attached.call("GC").ok
        bench.is_as(bench.empty, f"GC {nth}")


def each_fault(faults: Faults, action: Callable[[], object]) -> Iterator[None]:
    """Try an action with one fault after the other until there is none; after each that failed."""
    for nth in count(1):
        descriptors = sorted(links("/proc/self/fd/*"))
        began, failed = time.monotonic(), True
        with faults.armed(nth):
            with suppress(KernelError, NoThread, OSError):
                action()
                failed = False
            if faults.left:
                assert nth > FEWEST
                return
        assert time.monotonic() - began < PROMPT_SECONDS, faults.where
        assert sorted(links("/proc/self/fd/*")) == descriptors, faults.where
        if failed:
            yield


def test_transaction_that_is_turned_down(faults: Faults, node: Node) -> None:
    """The kernel answers one request of many, and that at once; what is half deleted goes later."""
    chain, addresses = "nk0123456789a", ["10.1.0.2/24", "fd00:1::2/64"]

    def add() -> None:
        with closing(Namespace.current()) as host:
            host.masquerading.add(chain, "text", addresses, "net", ["10.0.0.0/8"])

    def remove() -> None:
        with closing(Namespace.current()) as host:
            host.masquerading.remove(chain, addresses, "net")

    for _ in each_fault(faults, add):
        remove()
        assert judge.run("nft", "list", "ruleset") == ""
    for _ in each_fault(faults, remove):
        remove()
        assert judge.run("nft", "list", "ruleset") == ""
        add()


def test_namespace_that_cannot_be_opened(faults: Faults, node: Node) -> None:
    """No descriptor stays open."""
    container = node.container()

    def look() -> None:
        with closing(Namespace.at(f"/run/netns/{container}")) as inside:
            assert inside.links.all()

    for _ in each_fault(faults, look):
        pass


def test_namespace_for_a_trial(faults: Faults, node: Node) -> None:
    """The kernel answers EEXIST where it had no memory for a part of one: nothing exists already."""

    def make() -> None:
        try:
            Netns.temporary().close()
        except (KernelError, NoThread, OSError) as error:
            failure = as_cni_error(error)
            if failure.code not in CODES:
                pytest.fail(f"{faults.where}: {failure.code}, {failure.message}")
            raise

    for _ in each_fault(faults, make):
        pass


@pytest.fixture
def shaped(node: Node) -> int:
    """The index of a device with addresses, routes and a token bucket."""
    for command in (
        "link add d0 type dummy",
        "link set d0 addrgenmode none",
        "link set d0 up",
        "addr add 10.1.0.1/24 dev d0",
        "addr add fd00:1::1/64 dev d0 nodad",
        "route add default via 10.1.0.9",
        "route add default via fd00:1::9",
    ):
        judge.run("ip", *command.split())
    judge.run(
        *[
            "tc",
            "qdisc",
            "add",
            "dev",
            "d0",
            "root",
            "handle",
            "1:",
            "tbf",
            "rate",
            "8mbit",
            "burst",
            "64k",
            "latency",
            "25ms",
        ]
    )
    return int(judge.link("d0")["ifindex"])


def test_list_that_is_broken_off(faults: Faults, shaped: int) -> None:
    """It is no shorter list (NLMSG_DONE has an errno), and what is not told is not absent."""

    def look() -> tuple[object, ...]:
        with closing(Namespace.current()) as host:
            links = host.links
            return (
                {each.name for each in links.all()},
                links.addresses(shaped),
                links.routes(shaped),
                host.shaping.bucket(shaped),
            )

    whole = look()

    def compare() -> None:
        assert look() == whole, faults.where

    for _ in each_fault(faults, compare):
        pass


def test_shaping_that_fails(faults: Faults, node: Node) -> None:
    """Short of memory is not lacking a feature."""
    for nth in count(1):
        # What it fails at is made once for a device.
        judge.run("ip", "link", "add", "d0", "type", "dummy")
        with (
            suppress(KernelError, OSError),
            faults.armed(nth),
            closing(Namespace.current()) as host,
        ):
            device, target = host.links.get(name="d0"), host.links.get(name="lo")
            assert device
            assert target
            try:
                host.shaping.redirect(device.index, "d0", target)
            except LackingKind as error:
                pytest.fail(f"{faults.where}: {error}")
            if faults.left:
                break
        judge.run("ip", "link", "del", "d0")
    assert nth > FEWEST


TRIALS = {"ADD": try_add, "CHECK": try_check, "DEL": try_del, "GC": try_gc, "STATUS": try_status}
