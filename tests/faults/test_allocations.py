"""One allocation of the kernel fails, in each verb of each example: the 1st, the 2nd, ... the last.

Whatever fails: the verb worked, or there is a clear error and the world is as it was; then DEL and GC
leave nothing. A sample without --long, all of them with it.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.kernel.errors import KernelError, NoThread
from cni_netkit.kernel.namespace import Namespace
from tests.ethtool.fake import FakeNic
from tests.faults import inject
from tests.faults.examples import CASES, NAMES, Attached, plugins_of
from tests.faults.inject import Faults
from tests.faults.world import Kernel
from tests.kernel import judge
from tests.kernel.conftest import JSON, Answer, Node, links

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
SAMPLE = 12
SHOWN = 40
FEWEST = 10
"""Less can fail only where faults do not reach the plugin."""

PROMPT_SECONDS = 10.0
"""Nobody waits for an answer that the kernel will never give."""

CODES = frozenset((5, 11, 50, 104))
"""What the kernel's trouble may be told as: it says nothing of addresses, names, features, NICs."""

UNCLEAR = "input or output"
"""An error that does not name what it is about begins so."""


@dataclass
class Told:
    """What became of the faults in one verb."""

    faults: int = 0
    worked: int = 0
    codes: Counter[int] = field(default_factory=Counter)

    def line(self, what: str) -> str:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        return (
            f"{what}: {self.faults} allocations failed; worked all the same {self.worked}, "
            f"errors by code {codes or 'none'}"
        )


TOTALS = {verb: Told() for verb in VERBS}


@dataclass
class Bench:
    """One plugin of an example on a node, with faults at hand."""

    attached: Attached
    kernel: Kernel
    nics: list[FakeNic]
    faults: Faults
    told: Told = field(default_factory=Told)
    empty: dict[str, Any] = field(default_factory=dict)
    result: JSON = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """What was promised and did not hold, in words."""

    def expect(self, holds: object, what: str) -> None:
        """Note what does not hold, and go on."""
        if not holds:
            self.broken.append(what)

    def fails(self, nth: int, verb: str, **keys: object) -> Answer | None:
        """The verb with its nth fault; None where it has no such. Its answer is a clear one."""
        descriptors = sorted(links("/proc/self/fd/*"))
        began = time.monotonic()
        with self.faults.armed(nth):
            answer = self.attached.call(verb, **keys)
            if self.faults.left:
                return None
        self.told.faults += 1
        where = f"{verb}, fault {nth} in {self.faults.where}"
        took = time.monotonic() - began
        self.expect(took < PROMPT_SECONDS, f"{where}: an answer after {took:.1f} s")
        left = sorted(links("/proc/self/fd/*"))
        self.expect(left == descriptors, f"{where}: open {left}, before {descriptors}")
        if answer.status == 0:
            self.told.worked += 1
            return answer
        error = answer.error
        self.told.codes[error["code"]] += 1
        clear = error["code"] in CODES and not error["msg"].startswith(UNCLEAR)
        self.expect(clear, f"{where}: {error}")
        return answer

    def is_as(self, before: dict[str, Any], what: str) -> None:
        """Nothing is left, and nothing is missing. What is left for ever ends the test."""
        found = self.kernel.becomes(before)
        self.expect(not found, f"{what}, fault in {self.faults.where}: {found}")
        if found:
            assert self.attached.call("GC").ok
            assert not self.kernel.becomes(self.empty), self.broken
            self.attached.add_before()
        for nic in self.nics:
            if before is self.empty:
                self.expect(not (nic.rules or nic.contexts), f"{what}: flows are left")

    def add(self) -> None:
        """An ADD that works."""
        answer = self.attached.call("ADD")
        where = f"{self.faults.where}, flows {[nic.rules for nic in self.nics]}"
        assert answer.status == 0, f"ADD after {where}: {answer.output}; {self.broken}"
        self.result = answer.result


@pytest.fixture(scope="session")
def faults() -> Faults:
    """What is to fail, set while /sys is that of the machine."""
    if not Path(inject.FAIL_NTH).exists():
        pytest.skip("this kernel was built without CONFIG_FAULT_INJECTION")
    inject.prepare()
    return Faults()


@pytest.fixture
def bench(
    faults: Faults, node: Node, fake_nic: Callable[..., FakeNic], request: pytest.FixtureRequest
) -> Iterator[Bench]:
    """The example that the test is for, and what it needs, once attached and detached."""
    example, number = request.param
    nics = [node.nic()] if '"lease"' in example.read_text() else []
    fakes = [fake_nic(each) for each in nics]
    plugins = plugins_of(example, number, *nics or [""])
    roles = {each["lease"].get("workload") for each in plugins if "lease" in each} - {None}
    for role in roles:
        node.prepare(nics[0], role, "4-7")
    container = node.container()
    attached = Attached(node, plugins, container)
    attached.prepare()
    kernel = Kernel(container)
    made = Bench(attached, kernel, fakes, faults)
    try:
        attached.add_before()
        made.add()
        assert attached.call("DEL").ok
        attached.delete_before()
        made.empty = kernel.world()
        yield made
    finally:
        kernel.close()


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
    sum_up(figures, verb, bench.told)
    assert not bench.broken, f"{len(bench.broken)}:\n" + "\n".join(bench.broken[:SHOWN])


def sum_up(figures: list[str], verb: str, told: Told) -> None:
    """One line a verb, over all examples."""
    total = TOTALS[verb]
    total.faults += told.faults
    total.worked += told.worked
    total.codes += told.codes
    kept = [each for each in figures if not each.startswith(f"{verb}: ")]
    figures[:] = [*kept, total.line(verb)]


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
            host.masquerading.add(chain, "text", addresses)

    def remove() -> None:
        with closing(Namespace.current()) as host:
            host.masquerading.remove(chain, addresses)

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


TRIALS = {"ADD": try_add, "CHECK": try_check, "DEL": try_del, "GC": try_gc, "STATUS": try_status}
