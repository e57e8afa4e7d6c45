"""Killed at any moment: what is left, DEL or GC alone takes away, and the next ADD works.

SIGKILL before and after every system call that changes something (`tracer.py`). What was killed
before a call is taken back by GC, what was killed after one by DEL: where one call ends and the next
has not begun the world is the same, so each state is tried with both. Short: some moments of each
verb, at random; --long: every one.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import sample
from threading import Thread
from typing import Any, cast

import pytest

from tests.ethtool.fake import FakeNic
from tests.ethtool.patched import put_in
from tests.faults import tracer
from tests.faults.shared import SharedNic, shared
from tests.faults.tracer import Point
from tests.kernel import judge
from tests.kernel.conftest import JSON, Node
from tests.kernel.examples import EXAMPLES

FEW = 1
"""Moments of each verb before a call, and as many after one, where there is no time for all."""

LIMITS = {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6}
ASKED: dict[str, JSON] = {
    "11-l2-pair": {"mac": "02:00:00:00:00:11", "ips": ["10.87.11.99"]},
    "14-bandwidth": {"bandwidth": LIMITS},
    "15-pod-annotations": {"io.kubernetes.cri.pod-annotations": {"cni-netkit/mode": "l2"}},
}
"""What a runtime asks for by capabilities, so that the steps are done that the example is about."""


@dataclass
class Chain:
    """Our plugins of an example's list, called for a container as a runtime calls them."""

    node: Node
    plugins: list[JSON]
    netns: str
    nics: list[SharedNic] = field(default_factory=list)
    _result: JSON | None = None
    """That of the last ADD, for the next one."""

    def add(self, plugins: list[JSON] | None = None) -> None:
        """ADD, of all unless some are named."""
        self._result = None
        for plugin in self.plugins if plugins is None else plugins:
            self._result = self.node.add(self._chained(plugin), self.netns)

    def add_one(self, plugin: JSON) -> int:
        """The exit status of one ADD, which others preceded."""
        return self.status("ADD", self._chained(plugin), self.netns)

    def delete(self) -> None:
        """DEL, of all, last first."""
        for plugin in reversed(self.plugins):
            assert self.node.call("DEL", plugin, self.netns).ok

    def collect(self) -> None:
        """GC, where nothing is valid."""
        for plugin in self.plugins:
            assert self.node.call("GC", self._collecting(plugin)).ok

    def delete_one(self, plugin: JSON) -> int:
        """The exit status of one DEL."""
        return self.status("DEL", plugin, self.netns)

    def collect_one(self, plugin: JSON) -> int:
        """The exit status of one GC."""
        return self.status("GC", self._collecting(plugin))

    def status(self, verb: str, conf: JSON, netns: str = "") -> int:
        """The exit status of a verb; what went wrong is printed."""
        answer = self.node.call(verb, conf, netns)
        if answer.status:
            print(verb, answer.output)
        return answer.status

    def _chained(self, plugin: JSON) -> JSON:
        return plugin if self._result is None else {**plugin, "prevResult": self._result}

    def _collecting(self, plugin: JSON) -> JSON:
        return {**plugin, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}

    def world(self) -> JSON:
        """Everything that there is, of the fake NICs and of BPF, too."""
        return {
            **judge.world(self.netns),
            "rules": [sorted(nic.rules) for nic in self.nics],
            "contexts": [nic.contexts for nic in self.nics],
            "pins": sorted(str(path) for path in Path("/sys/fs/bpf").rglob("*")),
        }


@pytest.fixture
def chain_of(
    node: Node,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Callable[[Path], Chain]]:
    """Our plugins of an example, with a NIC of the lab where it names eth0."""
    with ExitStack() as stack:

        def make(example: Path) -> Chain:
            conflist = json.loads(example.read_text())
            common = {key: conflist[key] for key in ("cniVersion", "name")}
            asked = {"runtimeConfig": ASKED[example.stem]} if example.stem in ASKED else {}
            plugins = [
                {**common, **plugin, **asked}
                for plugin in conflist["plugins"]
                if plugin["type"] == "netkit"
            ]
            chain = Chain(node, plugins, node.container())
            for lease in [plugin["lease"] for plugin in plugins if "lease" in plugin]:
                if not chain.nics:
                    if lease.get("workload") == "af_xdp":
                        request.getfixturevalue("xdp_program")
                    nic = node.nic()
                    kept = stack.enter_context(shared(FakeNic(nic), tmp_path))
                    put_in(monkeypatch, cast(FakeNic, kept), judge.generic_family("ethtool"))
                    chain.nics.append(kept)
                    if role := lease.get("workload"):
                        node.prepare(nic, role, "4-7")
                lease["device"] = chain.nics[0].name
            return chain

        yield make


@dataclass
class Kills:
    """Kills one call of a chain's, at many moments, and sees what becomes of it."""

    chain: Chain
    long: bool
    what: str
    prepare: Callable[[], None]
    killed: Callable[[], int]
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many were killed before and after a call, and what took away what was left."""

    def all(self) -> None:
        """At every moment, or at some."""
        before = self.chain.world()
        self.prepare()
        whole = tracer.run(self.killed)
        assert whole.status == 0, f"{self.what}, not killed: {whole}"
        self.chain.delete()
        assert self.chain.world() == before
        for point in self._points(len(whole.calls)):
            self._one(point, before)

    def _points(self, calls: int) -> list[Point]:
        every = [[Point(each, after) for each in range(calls)] for after in (False, True)]
        return [point for each in every for point in (each if self.long else sample(each, FEW))]

    def _one(self, point: Point, before: JSON) -> None:
        self.prepare()
        ended = tracer.run(self.killed, point)
        assert ended.status is None, f"{self.what} was to be killed {point}: {ended}"
        at = f"{self.what} was killed {point}, {ended.calls[-1]}"
        left = difference(before, self.chain.world())
        first, second = self.chain.collect, self.chain.delete
        if point.after:
            first, second = second, first
        first()
        by = "DEL" if point.after else "GC"
        assert not difference(before, self.chain.world()), f"{at}; {by} left something of {left}"
        second()
        self.chain.add()
        self.chain.delete()
        assert not difference(before, self.chain.world()), f"{at}, and the next DEL left something"
        self.outcomes["after a call" if point.after else "before one"] += 1
        self.outcomes[f"cleaned by {by}" if left else "nothing left"] += 1


def difference(before: JSON, after: JSON) -> JSON:
    """What is not as it was."""
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def told(what: str, outcomes: Counter[str]) -> str:
    """A line of figures."""
    return f"{what}: {', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}"


@pytest.mark.parametrize("after", [False, True])
def test_killed_where_it_is_meant(tmp_path: Path, after: bool) -> None:
    """Before a call it was not carried out, after it it was; threads are killed, too."""
    names = [tmp_path / str(number) for number in range(4)]

    def act() -> int:
        for name in names:
            maker = Thread(target=name.mkdir)
            maker.start()
            maker.join()
        return 0

    ended = tracer.run(act, Point(2, after))
    assert (ended.calls, ended.status) == (["mkdir"] * 3, None)
    assert [name.exists() for name in names] == [True, True, after, False]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_killed_in_process(
    chain_of: Callable[[Path], Chain], example: Path, long: bool, figures: list[str]
) -> None:
    """ADD, DEL and GC of every example."""
    chain = chain_of(example)
    # The first ADD of a node switches forwarding on, and makes folders.
    chain.add()
    chain.delete()
    for verb, kills in verbs_of(chain, long):
        kills.all()
        figures.append(told(f"{verb} of {example.stem} in-process", kills.outcomes))


def verbs_of(chain: Chain, long: bool) -> Iterator[tuple[str, Kills]]:
    """Each verb of each of the chain's plugins; GC is the network's."""

    def of(verb: str, prepare: Callable[[], Any], killed: Callable[[], int]) -> tuple[str, Kills]:
        return verb, Kills(chain, long, verb, prepare, killed)

    for number, plugin in enumerate(chain.plugins):
        others = chain.plugins[:number]
        yield of("ADD", partial(chain.add, others), partial(chain.add_one, plugin))
        yield of("DEL", chain.add, partial(chain.delete_one, plugin))
    yield of("GC", chain.add, partial(chain.collect_one, chain.plugins[0]))
