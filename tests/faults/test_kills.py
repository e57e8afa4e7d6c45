"""Killed at any moment: what is left, DEL or GC alone takes away, and the next ADD works.

SIGKILL before and after every system call that changes something (`tracer.py`). What was killed
before a call is taken back by GC, what was killed after one by DEL: where one call ends and the next
has not begun the world is the same, so each state is tried with both. Short: some moments of each
verb, at random; --long: every one.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import sample
from threading import Thread
from typing import cast

import pytest

from tests.ethtool.fake import FakeNic
from tests.ethtool.patched import put_in
from tests.faults import tracer
from tests.faults.kills import Call, InAgent, InLauncher, InProcess, Kills, Place, command
from tests.faults.shared import SharedNic, shared
from tests.faults.tracer import Ended, Point
from tests.kernel import judge
from tests.kernel.conftest import JSON, Answer, Node
from tests.kernel.examples import EXAMPLES
from tests.kernel.promises import ARGUMENTS, claimed

FEW = 1
"""Moments of each verb before a call, and as many after one, where there is no time for all."""

VETH = next(each for each in EXAMPLES if each.stem == "40-veth-fallback")

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
            self._result = self.node.add(self._chained(plugin), self.netns, args=ARGUMENTS)

    def delete(self) -> None:
        """DEL, of all, last first."""
        for plugin in reversed(self.plugins):
            assert self.node.call("DEL", plugin, self.netns, args=ARGUMENTS).ok

    def add_and_delete(self) -> None:
        """Both, of all."""
        self.add()
        self.delete()

    def collect(self) -> None:
        """GC, where nothing is valid."""
        for plugin in self.plugins:
            assert self.node.call("GC", self._collecting(plugin)).ok

    def call(self, verb: str, plugin: JSON) -> Call:
        """One request, which others preceded."""
        made: list[Call] = []

        def keep(environment: dict[str, str], stdin: bytes) -> Answer:
            made.append(Call(environment, stdin))
            return Answer(0, None)

        conf = self._chained(plugin) if verb == "ADD" else plugin
        conf = self._collecting(plugin) if verb == "GC" else conf
        Node(keep).call(verb, conf, "" if verb == "GC" else self.netns, args=ARGUMENTS)
        return made[0]

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
            "pins": pins(),
        }


def pins() -> list[str]:
    """What is pinned in bpffs."""
    return sorted(str(path) for path in Path("/sys/fs/bpf").rglob("*"))


@pytest.fixture
def nics(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], SharedNic]]:
    """NICs of the lab with what they lack, for this process and its children."""
    with ExitStack() as stack:

        def make() -> SharedNic:
            kept = stack.enter_context(shared(FakeNic(node.nic()), tmp_path))
            put_in(monkeypatch, cast(FakeNic, kept), judge.generic_family("ethtool"))
            return kept

        yield make


@pytest.fixture
def nic(nics: Callable[[], SharedNic]) -> SharedNic:
    """One."""
    return nics()


@pytest.fixture
def chain_of(
    node: Node, nics: Callable[[], SharedNic], request: pytest.FixtureRequest
) -> Callable[[Path], Chain]:
    """Our plugins of an example, with a NIC of the lab where it names eth0."""

    def make(example: Path) -> Chain:
        conflist = json.loads(example.read_text())
        common = {key: conflist[key] for key in ("cniVersion", "name")}
        asked = {"runtimeConfig": ASKED[example.stem]} if example.stem in ASKED else {}
        every = [{**common, **plugin, **asked} for plugin in conflist["plugins"]]
        plugins = [plugin for plugin in every if plugin["type"] == "netkit"]
        chain = Chain(node, plugins, node.container())
        for lease in [plugin["lease"] for plugin in plugins if "lease" in plugin]:
            lease["device"] = prepared(chain, lease.get("workload"))
        return chain

    def prepared(chain: Chain, role: str | None) -> str:
        if not chain.nics:
            chain.nics.append(nics())
            if role == "af_xdp":
                request.getfixturevalue("xdp_program")
            if role:
                node.prepare(chain.nics[0].name, role, "4-7")
        return chain.nics[0].name

    return make


@pytest.mark.any_kernel
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
    assert (ended.calls, ended.killed) == (["mkdir"] * 3, True)
    assert [name.exists() for name in names] == [True, True, after, False]


def few(long: bool, number: int = FEW) -> int | None:
    """At how many moments: None is all."""
    return None if long else number


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_killed_in_process(
    chain_of: Callable[[Path], Chain], example: Path, long: bool, figures: list[str]
) -> None:
    """ADD, DEL and GC of every example."""
    chain = chain_of(example)
    for kills in verbs_of(chain, InProcess(), example.stem):
        figures.append(str(kills.run(few(long))))


@pytest.mark.parametrize("place", [InAgent, InLauncher])
def test_killed_in_agent_and_launcher(
    chain_of: Callable[[Path], Chain],
    launcher: Path,
    tmp_path: Path,
    place: type[InAgent | InLauncher],
    long: bool,
    figures: list[str],
) -> None:
    """The launcher says that it is not known; what a killed launcher asked for is not done later."""
    for example in EXAMPLES if long else sample(EXAMPLES, 2):
        for kills in verbs_of(chain_of(example), place(launcher, tmp_path), example.stem):
            figures.append(str(kills.run(few(long))))


@pytest.mark.parametrize("place", [None, InAgent, InLauncher])
def test_killed_with_claims(
    node: Node,
    nic: SharedNic,
    launcher: Path,
    tmp_path: Path,
    place: type[InAgent | InLauncher] | None,
    long: bool,
    figures: list[str],
) -> None:
    """Two devices that are added to an attachment without one, and DEL and GC of it."""
    common = {"cniVersion": "1.1.0", "name": "net", "type": "netkit"}
    chain = Chain(node, [{**common, **claimed(nic.name)}], node.container(), [nic])
    made = place(launcher, tmp_path) if place else InProcess()
    for kills in verbs_of(chain, made, "claims"):
        figures.append(str(kills.run(few(long, 2))))


@pytest.mark.any_kernel
@pytest.mark.parametrize("place", [None, InAgent, InLauncher])
def test_killed_with_veth(
    chain_of: Callable[[Path], Chain],
    launcher: Path,
    tmp_path: Path,
    place: type[InAgent | InLauncher] | None,
    long: bool,
    figures: list[str],
) -> None:
    """The same on the machine's own kernel, where every call takes a minute or two."""
    made = place(launcher, tmp_path) if place else InProcess()
    for kills in verbs_of(chain_of(VETH), made, VETH.stem):
        figures.append(str(kills.run(few(long, 2))))


def verbs_of(chain: Chain, place: Place, example: str) -> Iterator[Kills]:
    """Each verb of each of the chain's plugins; GC is the network's."""
    # The first ADD of a node switches forwarding on, and makes folders.
    chain.add_and_delete()

    def of(verb: str, plugin: JSON, prepare: Callable[[], None]) -> Kills:
        def killed(point: Point | None, at_once: Callable[[], None]) -> Ended:
            return place(chain.call(verb, plugin), point, at_once)

        mends = (("GC", chain.collect), ("DEL", chain.delete))
        what = f"{verb} of {example} {place.name}"
        at_once = isinstance(place, InLauncher)
        return Kills(what, chain.world, prepare, killed, mends, chain.add_and_delete, at_once)

    for number, plugin in enumerate(chain.plugins):
        yield of("ADD", plugin, partial(chain.add, chain.plugins[:number]))
        yield of("DEL", plugin, chain.add)
    yield of("GC", chain.plugins[0], chain.add)


def works(*arguments: str) -> None:
    """Run a command that must work."""
    assert command(*arguments) == 0, arguments


def in_child(*arguments: str) -> Callable[[Point | None, Callable[[], None]], Ended]:
    """A command, to be killed."""

    def killed(point: Point | None, at_once: Callable[[], None]) -> Ended:
        return tracer.run(partial(command, *arguments), point)

    return killed


@pytest.mark.parametrize("role", ["io_uring", "af_xdp"])
def test_killed_while_a_nic_is_prepared_or_restored(
    nic: SharedNic, xdp_program: Path, role: str, long: bool, figures: list[str]
) -> None:
    """`nic restore` puts back everything, as often as it takes; the next `nic prepare` works."""
    copy = ["--copy"] if role == "af_xdp" else []
    options = [nic.name, "--role", role, "--queues", "4-7", *copy]
    prepare, restore = ("nic", "prepare", *options), ("nic", "restore", nic.name)
    judge.set_rings(nic.name, tcp_data_split=1, hds_thresh=100)

    def world() -> JSON:
        (link,) = judge.ip("link", "show", "dev", nic.name)
        return {
            **judge.world(),
            "rings": judge.rings(nic.name),
            "channels": judge.channels(nic.name),
            "fake": (nic.table, nic.ntuple, nic.contexts, sorted(nic.rules)),
            "xdp": link.get("xdp", {}).get("mode"),
            "pins": pins(),
        }

    def put_back() -> None:
        # There may be nothing to be put back, which is an error where somebody asks for it.
        if Path(f"/var/lib/cni/netkit/nics/{nic.name}.json").exists():
            works(*restore)

    def again() -> None:
        works(*prepare)
        works(*restore)

    mends = (("nic restore", put_back), ("nic restore", put_back))
    again()
    for words, before in ((prepare, put_back), (restore, partial(works, *prepare))):
        what = f"{' '.join(words[:2])} for {role}"
        kills = Kills(what, world, before, in_child(*words), mends, again)
        figures.append(str(kills.run(few(long, 2))))


def test_killed_while_leases_are_added_or_removed(
    chain_of: Callable[[Path], Chain], nic: SharedNic, long: bool, figures: list[str]
) -> None:
    """GC or DEL of the container takes along what is half there."""
    chain = chain_of(next(each for each in EXAMPLES if each.stem == "10-l3-pair"))
    container = f"container-{chain.netns}"
    chain.nics.append(nic)
    add = ("lease", "add", container, "--device", nic.name, "--count", "2", "--flows", "address")
    remove = ("lease", "remove", container)

    def added() -> None:
        chain.add()
        works(*add)

    def again() -> None:
        added()
        works(*remove)
        chain.delete()

    again()
    mends = (("GC", chain.collect), ("DEL", chain.delete))
    for words, before in ((add, chain.add), (remove, added)):
        kills = Kills(" ".join(words[:2]), chain.world, before, in_child(*words), mends, again)
        figures.append(str(kills.run(few(long, 2))))
