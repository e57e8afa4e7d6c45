"""A plugin of an example on a node of its own, and what is promised of its answers in trouble."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ethtool.fake import FakeNic
from tests.faults import inject
from tests.faults.examples import Attached, plugins_of
from tests.faults.inject import Faults
from tests.faults.world import Kernel
from tests.kernel import judge
from tests.kernel.conftest import JSON, Answer, Node, links

SHOWN = 40
PROMPT_SECONDS = 10.0
"""Nobody waits for an answer that the kernel will never give."""

CODES = frozenset((5, 11, 50, 104))
"""What trouble may be told as: it says nothing of addresses, names, features, NICs."""

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
            f"{what}: {self.faults} times; worked all the same {self.worked}, "
            f"errors by code {codes or 'none'}"
        )


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

    where: str = ""

    def expect(self, holds: object, what: str) -> None:
        """Note what does not hold, and go on."""
        if not holds:
            self.broken.append(what)

    def fails(self, nth: int, verb: str, **keys: object) -> Answer | None:
        """The verb with its nth fault; None where it has no such."""
        trouble = self.faults.armed(nth)
        return self.within(trouble, f"fault {nth}", verb, keys, lambda: not self.faults.left)

    def within(
        self,
        trouble: AbstractContextManager[None],
        name: str,
        verb: str,
        keys: Mapping[str, object],
        has_come: Callable[[], bool] = lambda: True,
    ) -> Answer | None:
        """The verb in trouble; None where none came. Its answer is a clear one, and prompt."""
        descriptors = sorted(links("/proc/self/fd/*"))
        with trouble:
            began = time.monotonic()
            answer = self.attached.call(verb, **keys)
            took = time.monotonic() - began
            if not has_come():
                return None
        self.told.faults += 1
        self.where = f"{verb}, {name} in {self.faults.where}"
        self.expect(took < PROMPT_SECONDS, f"{self.where}: an answer after {took:.1f} s")
        left = sorted(links("/proc/self/fd/*"))
        self.expect(left == descriptors, f"{self.where}: open {left}, before {descriptors}")
        self._look_at(answer)
        return answer

    def _look_at(self, answer: Answer) -> None:
        if answer.status == 0:
            self.told.worked += 1
            return
        error = answer.error
        self.told.codes[error["code"]] += 1
        clear = error["code"] in CODES and not error["msg"].startswith(UNCLEAR)
        self.expect(clear, f"{self.where}: {error}")

    def is_as(self, before: dict[str, Any], what: str) -> None:
        """Nothing is left, and nothing is missing. What is left for ever ends the test."""
        found = self.kernel.becomes(before)
        self.expect(not found, f"{what} ({self.where}): {found}")
        if found:
            assert self.attached.call("GC").ok
            assert not self.kernel.becomes(self.empty), self.broken
            self.attached.add_before()
        for nic in self.nics:
            if before is self.empty:
                self.expect(not (nic.rules or nic.contexts), f"{what}: flows are left")

    def is_as_or_on_record(self, answer: Answer, before: dict[str, Any], what: str) -> None:
        """As before; or what could not be undone for the same reason is told, and on record."""
        if "undoing failed" not in answer.error["details"]:
            self.is_as(before, what)
            return
        records = [name for name in judge.files("/var/lib/cni/netkit") if "/container-" in name]
        self.expect(records, f"{what}: nobody will undo it: {answer.error}")

    def verdict(self) -> None:
        """Fail where something did not hold."""
        assert not self.broken, f"{len(self.broken)}:\n" + "\n".join(self.broken[:SHOWN])

    def add(self) -> None:
        """An ADD that works."""
        answer = self.attached.call("ADD")
        assert answer.status == 0, f"ADD after {self.where}: {answer.output}; {self.broken}"
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


def sum_up(figures: list[str], totals: dict[str, Told], what: str, told: Told) -> None:
    """One line for all that is of one name, over all examples."""
    total = totals.setdefault(what, Told())
    total.faults += told.faults
    total.worked += told.worked
    total.codes += told.codes
    kept = [each for each in figures if not each.startswith(f"{what}: ")]
    figures[:] = [*kept, total.line(what)]
