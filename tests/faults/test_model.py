"""One request after the other, in any order, with accidents between them: a model says what must be there.

hypothesis looks for a history that the model does not agree with, and tells the shortest it finds.
"""

import json
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.kernel import judge
from tests.kernel.chain import PLUGINS, needs_plugins
from tests.kernel.conftest import DUAL_STACK, JSON, own_node

CONTAINERS = 4
EXAMPLES, EXAMPLES_OF_A_LONG_RUN = 8, 400
STEPS = 30
QUEUES = 8

numbers = some.integers(0, CONTAINERS - 1)
KINDS: dict[str, JSON] = {
    "masqueraded pair": {"ipMasq": True},
    "l2 pair": {"mode": "l2"},
    "pair with a lease": {"lease": {"count": 1}},
    "single with leases": {"pairing": "single", "lease": {"count": 2}},
}


class History(RuleBasedStateMachine):
    """Four containers and a NIC on a node of their own; `attached` is what the model knows."""

    done: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.node = self.stack.enter_context(own_node())
        self.nic = self.node.nic(QUEUES)
        self.containers = [self.node.container() for _ in range(CONTAINERS)]
        self.attached: dict[str, tuple[JSON, JSON]] = {}
        self.broken: set[str] = set()
        self.reference: set[str] = set()
        self.before: JSON = {}

    @initialize()
    def begin(self) -> None:
        """The first ADD of a node switches forwarding on, and makes folders."""
        conf = self.configuration("masqueraded pair")
        self.node.add(conf, self.containers[0])
        assert self.node.call("DEL", conf, self.containers[0]).ok
        self.before = judge.world(*self.containers)

    def configuration(self, kind: str) -> JSON:
        """Of the one network that there is."""
        base = {"cniVersion": "1.1.0", "name": "net", "type": "netkit", "ipam": DUAL_STACK}
        conf: JSON = json.loads(json.dumps({**base, **KINDS[kind]}))
        if "lease" in conf:
            conf["lease"]["device"] = self.nic
        return conf

    @rule(number=numbers, kind=some.sampled_from(sorted(KINDS)))
    def add(self, number: int, kind: str) -> None:
        name, conf = self.containers[number], self.configuration(kind)
        answer = self.node.call("ADD", conf, name)
        self.done["ADD"] += 1
        if name in self.attached:
            assert answer.error["code"] == 103
        elif self.leased() + conf.get("lease", {}).get("count", 0) > QUEUES - 1:
            assert answer.error["code"] == 101
        else:
            self.attached[name] = conf, answer.result

    @rule(number=numbers, netns=some.booleans())
    def delete(self, number: int, netns: bool) -> None:
        """With and without the namespace, attached or not."""
        name = self.containers[number]
        conf = self.attached.pop(name, (self.configuration("l2 pair"), {}))[0]
        path = name if netns else ""
        assert self.node.call("DEL", conf, path, cid=f"container-{name}").ok
        self.broken.discard(name)
        self.done["DEL"] += 1

    @rule(number=numbers)
    def check(self, number: int) -> None:
        name = self.containers[number]
        self.done["CHECK"] += 1
        if name not in self.attached:
            result = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}
            answer = self.node.check(self.configuration("l2 pair"), name, result)
            assert answer.error["code"] == 105
            return
        conf, result = self.attached[name]
        answer = self.node.check(conf, name, result)
        assert answer.error["code"] == 105 if name in self.broken else answer.ok

    @rule(kept=some.sets(numbers))
    def collect(self, kept: set[int]) -> None:
        names = [f"container-{self.containers[number]}" for number in kept]
        valid = [{"containerID": each, "ifname": "eth0"} for each in [*names, *self.reference]]
        conf = {**self.configuration("l2 pair"), "cni.dev/valid-attachments": valid}
        assert self.node.call("GC", conf).ok
        gone = set(self.containers) - {self.containers[number] for number in kept}
        for name in gone & self.attached.keys():
            del self.attached[name]
            self.broken.discard(name)
        self.done["GC"] += 1

    @precondition(lambda self: self.sound())
    @rule(data=some.data())
    def lose_device(self, data: some.DataObject) -> None:
        """A pod that may do so takes its device away."""
        name = data.draw(some.sampled_from(sorted(self.sound())))
        judge.run("ip", "-n", name, "link", "delete", "eth0")
        self.broken.add(name)
        self.done["device deleted"] += 1

    @precondition(lambda self: self.leased())
    @rule()
    def lose_nic(self) -> None:
        """Devices that lease from it go with it; it comes back with another index."""
        self.node.remove_nic()
        self.nic = self.node.nic(QUEUES)
        self.broken |= {name for name, (conf, _) in self.attached.items() if "lease" in conf}
        self.done["NIC gone and back"] += 1

    @precondition(lambda self: self.attached)
    @rule(data=some.data())
    def lose_namespace(self, data: some.DataObject) -> None:
        """The container is killed, and another one has its place; its attachment stays on record."""
        name = data.draw(some.sampled_from(sorted(self.attached)))
        judge.run("ip", "netns", "del", name)
        judge.run("ip", "netns", "add", name)
        self.broken.add(name)
        self.done["namespace gone"] += 1

    @rule(name=some.sampled_from(["reference-1", "reference-2"]))
    def use_reference(self, name: str) -> None:
        """The reference host-local takes two addresses of the network, or gives them back."""
        verb = "DEL" if name in self.reference else "ADD"
        conf = {"cniVersion": "1.0.0", "name": "net", "ipam": DUAL_STACK}
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": name,
            "CNI_NETNS": "/run/netns/none",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
        }
        subprocess.run(
            [PLUGINS / "host-local"],
            input=json.dumps(conf).encode(),
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        self.reference ^= {name}
        self.done[f"reference {verb}"] += 1

    @invariant()
    def what_is_there(self) -> None:
        """Records, addresses, devices and leases of what is attached, and no others."""
        ids = {name: f"container-{name}" for name in self.attached}
        store = Path("/var/lib/cni")
        records = [path.name.partition(":")[0] for path in (store / "netkit").rglob("*:*.json*")]
        assert sorted(records) == sorted(ids.values())
        assert owners(store) == Counter(2 * [*ids.values(), *self.reference])
        sound = self.sound()
        marked = {each["ifalias"].split()[2] for each in judge.ip("link") if "ifalias" in each}
        assert marked == {ids[name] for name in sound if "pairing" not in self.attached[name][0]}
        for name in self.containers:
            assert (judge.link("eth0", name) is not None) == (name in sound)
        assert len(judge.leases(self.nic)) == self.leased()

    def sound(self) -> set[str]:
        """What is attached, and has its device."""
        return self.attached.keys() - self.broken

    def leased(self) -> int:
        """How many queues are."""
        return sum(self.attached[name][0].get("lease", {}).get("count", 0) for name in self.sound())

    def teardown(self) -> None:
        try:
            for name in sorted(self.reference):
                self.use_reference(name)
            self.collect(set())
            if self.before:
                assert settled(judge.world(*self.containers)) == settled(self.before)
        finally:
            self.stack.close()


def owners(store: Path) -> Counter[str]:
    """How many addresses each has."""
    files = (store / "networks" / "net").glob("*")
    return Counter(
        path.read_text().split()[0]
        for path in files
        if path.name not in ("lock", "owners") and not path.name.startswith("last_reserved_ip.")
    )


def settled(world: JSON) -> JSON:
    """Without what differs since a NIC or a container came anew."""
    return {
        what: {name: each for name, each in found.items() if not name.startswith("eth")}
        if isinstance(found, dict)
        else found
        for what, found in world.items()
    }


@needs_plugins
def test_any_history(long: bool, figures: list[str], request: pytest.FixtureRequest) -> None:
    """Of requests and accidents: after each step there is what the model says, in the end nothing."""
    History.done = Counter()
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=EXAMPLES_OF_A_LONG_RUN if long else EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=True,
        ),
    )
    told = ", ".join(f"{what}: {number}" for what, number in sorted(History.done.items()))
    figures.append(f"histories that a model agrees with: {told}")
