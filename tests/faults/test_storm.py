"""Everything at once: 32 clients, the agent killed under them, NICs that go, and another plugin's IPAM.

What must be there in the end follows from the answers: of the requests for a container that no other one
followed, one was the last.
"""

import json
import queue
import random
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.endurance.agent import AgentProcess
from tests.endurance.looking import in_namespace, inside
from tests.kernel import judge
from tests.kernel.chain import PLUGINS, needs_plugins
from tests.kernel.conftest import DUAL_STACK, JSON, Answer, Conf, Node, in_process

CONTAINERS = 50
CLIENTS = 32
REQUESTS = 300
REQUESTS_OF_A_LONG_STORM = 3000
QUEUES = 32
KILLS = 4
NICS = 5
STORE = Path("/var/lib/cni")

TRY_AGAIN = 11
REFUSED = {101, 102, 104}
"""No queue is free; the NIC is gone, or was just going: nothing was done."""

THERE, GONE = True, False


@dataclass
class Request:
    """One that was answered: when, and what its answer says of the container."""

    began: float
    ended: float
    leaves: set[bool]


@dataclass
class Storm:
    """What clients do, and what it must come to."""

    node: Node
    agent: AgentProcess
    kinds: dict[str, JSON]
    history: defaultdict[str, list[Request]] = field(default_factory=lambda: defaultdict(list))
    counted: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    reference: list[str] = field(default_factory=list)

    def request(self, verb: str, configuration: JSON, container: str = "") -> Answer:
        """Through the agent mostly; in-process now and then."""
        calls = random.choices((self.agent.request, in_process), (3, 1))[0]
        answer = Node(calls).call(verb, configuration, container)
        self.counted[f"{verb} {code_of(answer) or 'done'}"] += 1
        return answer

    def kill(self) -> None:
        """End the agent in the middle of its work, and have another one in its place."""
        with self.one_at_a_time:
            self.running.clear()
            self.agent.end(signal.SIGKILL)
            self.agent.start()
            self.running.set()
            self.counted["agent killed"] += 1

    def turn_nic(self) -> None:
        """Take the NIC away with all that is leased, and bring it back."""
        with self.one_at_a_time:
            began = time.monotonic()
            self.node.remove_nic()
            self.node.nic(QUEUES)
            self.counted["NIC gone and back"] += 1
            # A device with leased queues goes with its NIC (drivers/net/netkit.c).
            leasing = [name for name, kind in self.kinds.items() if "lease" in kind]
            self.remember(began, leasing, {THERE, GONE})

    def add(self, container: str) -> int:
        began = time.monotonic()
        answer = self.request("ADD", self.kinds[container], container)
        return self.note(answer, began, [container], THERE, allowed={0, 103, TRY_AGAIN, *REFUSED})

    def delete(self, container: str) -> int:
        began = time.monotonic()
        answer = self.request("DEL", self.kinds[container], container)
        return self.note(answer, began, [container], GONE, allowed={0, TRY_AGAIN})

    def renew(self, container: str) -> int:
        """DEL, and ADD again."""
        return self.delete(container) or self.add(container)

    def check(self, container: str) -> int:
        """Changes nothing, so it says nothing either."""
        previous = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}
        configuration = {**self.kinds[container], "prevResult": previous}
        answer = self.request("CHECK", configuration, container)
        return self.note(answer, 0.0, [], THERE, allowed={0, 105, TRY_AGAIN})

    def collect(self, kept: list[str]) -> int:
        """GC: all others are not valid."""
        began = time.monotonic()
        names = [f"container-{name}" for name in kept] + [f"reference-{i}" for i in range(10_000)]
        valid = [{"containerID": name, "ifname": "eth0"} for name in names]
        some = next(iter(self.kinds.values()))
        answer = self.request("GC", {**some, "cni.dev/valid-attachments": valid})
        others = [name for name in self.kinds if name not in kept]
        return self.note(answer, began, others, GONE, allowed={0, TRY_AGAIN})

    def use_reference(self, number: int) -> None:
        """The reference host-local takes an address of the same network, or gives one back."""
        name = f"reference-{number}"
        verb = "ADD"
        with suppress(IndexError):
            if number % 2:
                verb, name = "DEL", self.reference.pop()
        done = subprocess.run(
            [PLUGINS / "host-local"],
            input=json.dumps({"cniVersion": "1.0.0", "name": "net", "ipam": DUAL_STACK}).encode(),
            env={
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": name,
                "CNI_NETNS": "/run/netns/none",
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(PLUGINS),
            },
            stdout=subprocess.PIPE,
        )
        self.counted[f"reference {verb}"] += 1
        if done.returncode:
            self.unexpected.append(f"reference {verb}: {done.stdout!r}")
        elif verb == "ADD":
            self.reference.append(name)

    def note(
        self,
        answer: Answer,
        began: float,
        containers: list[str],
        leaves: bool,
        *,
        allowed: set[int],
    ) -> int:
        """An error but "try again" changed nothing; after that one nobody knows. The code."""
        code = code_of(answer)
        if code not in allowed:
            self.unexpected.append(f"{containers}: {answer}")
        if code in (0, TRY_AGAIN):
            self.remember(began, containers, {THERE, GONE} if code else {leaves})
        return code

    def remember(self, began: float, containers: list[str], states: set[bool]) -> None:
        for container in containers:
            self.history[container].append(Request(began, time.monotonic(), states))

    def may_be(self, container: str) -> set[bool]:
        """Whether a container may have its attachment, by the requests that none came after."""
        requests = self.history[container]
        last_begin = max((each.began for each in requests), default=0.0)
        last = [each.leaves for each in requests if each.ended >= last_begin]
        return set().union(*last) if last else {GONE}


def code_of(answer: Answer) -> int:
    """0 where it worked."""
    return int(answer.output["code"]) if answer.status and answer.output else 0


def present() -> tuple[set[str], set[str]]:
    """The container ids of all records, and of the marks on the host's devices."""
    records = {path.name.partition(":")[0] for path in (STORE / "netkit").rglob("*:*.json")}
    marked = {each["ifalias"].split()[2] for each in judge.ip("link") if "ifalias" in each}
    return records, marked


def owners() -> dict[str, str]:
    """Who has which address."""
    return {
        path.name: path.read_text().split()[0]
        for path in (STORE / "networks" / "net").iterdir()
        if path.name not in ("lock", "owners") and not path.name.startswith("last_reserved_ip.")
    }


@pytest.fixture
def storm(node: Node, agent: AgentProcess, conf: Conf) -> Storm:
    """Five kinds of containers: pairs of both modes and families, and leases of one NIC."""
    nic = node.nic(QUEUES)
    kinds = [
        conf(ipam=DUAL_STACK, ipMasq=True),
        conf(ipam=DUAL_STACK, mode="l2"),
        conf(ipam=DUAL_STACK, lease={"device": nic}),
        conf(pairing="single", ipam=DUAL_STACK, lease={"device": nic, "count": 2}),
        conf(pairing="single", ipam=None),
    ]
    names = [node.container() for _ in range(CONTAINERS)]
    return Storm(node, agent, {name: kinds[i % len(kinds)] for i, name in enumerate(names)})


@needs_plugins
def test_what_the_answers_say_is_what_there_is(
    storm: Storm, long: bool, figures: list[str]
) -> None:
    """And when all have been deleted, nothing is left, of any of them."""
    storm.running.set()
    storm.add(next(iter(storm.kinds)))
    storm.delete(next(iter(storm.kinds)))
    before = judge.world()
    nics = before.pop("leases")
    untouched = {name: in_namespace(name, inside) for name in storm.kinds}

    requests = REQUESTS_OF_A_LONG_STORM if long else REQUESTS
    run(storm, requests)
    storm.agent.end(signal.SIGKILL)
    storm.agent.start()
    assert storm.unexpected == []

    records, marked = present()
    given = Counter(owners().values())
    unknown = 0
    for name, kind in storm.kinds.items():
        container, may_be = f"container-{name}", storm.may_be(name)
        found = in_namespace(name, inside)
        if len(may_be) > 1:
            unknown += 1
        elif may_be == {THERE}:
            assert "eth0" in found[0], name
            assert container in records, name
            assert (container in marked) == ("pairing" not in kind), name
            assert given[container] == (2 if "ipam" in kind else 0), name
        else:
            assert (found, container in records | marked | set(given)) == (
                untouched[name],
                False,
            ), name
    assert all(given[name] == 2 for name in storm.reference)
    assert unknown < 2 * CONTAINERS / 3, storm.counted

    half = random.sample(list(storm.kinds), CONTAINERS // 2)
    for name in half:
        storm.delete(name)
    storm.collect([])
    while storm.reference:
        storm.use_reference(1)
    assert storm.unexpected == []
    after = judge.world()
    assert all(leases == {} for leases in after.pop("leases").values()), nics
    assert {name: in_namespace(name, inside) for name in storm.kinds} == untouched
    assert without_nics(after) == without_nics(before)
    told = ", ".join(f"{what}: {number}" for what, number in sorted(storm.counted.items()))
    figures.append(f"storm of {requests} requests by {CLIENTS} clients, nothing left: {told}")
    figures.append(
        f"of {CONTAINERS} containers {unknown} were left in doubt by the answers themselves"
    )


def without_nics(world: JSON) -> JSON:
    """The NIC came back with another index."""
    nics = {"eth0", "eth1"}
    return {
        what: {name: each for name, each in found.items() if name not in nics}
        if isinstance(found, dict)
        else found
        for what, found in world.items()
    }


def run(storm: Storm, requests: int) -> None:
    """All requests, by all clients, in random order; between them the agent dies, and the NIC goes."""
    work: queue.SimpleQueue[Callable[[], int | None]] = queue.SimpleQueue()
    # In the second half all goes well, and in the end half of all containers are sure to have been
    # asked for, so that it is known what must be there.
    bad = requests // 2
    disasters = {number * bad // KILLS: storm.kill for number in range(1, KILLS)}
    disasters |= {number * bad // NICS + 1: storm.turn_nic for number in range(1, NICS)}
    for number in range(requests):
        if number in disasters:
            work.put(disasters[number])
        work.put(chosen(storm, number))
    for number, name in enumerate(random.sample(list(storm.kinds), CONTAINERS // 2)):
        work.put(partial(storm.renew if number % 2 else storm.delete, name))
    clients = [threading.Thread(target=serve, args=(storm, work)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def chosen(storm: Storm, number: int) -> Callable[[], int | None]:
    """One request."""
    names = list(storm.kinds)
    name = random.choice(names)
    kept = random.sample(names, random.randint(CONTAINERS // 2, CONTAINERS))
    choices: dict[Callable[[], int | None], int] = {
        partial(storm.add, name): 40,
        partial(storm.delete, name): 25,
        partial(storm.check, name): 15,
        partial(storm.collect, kept): 3,
        partial(storm.use_reference, number): 15,
    }
    return random.choices(list(choices), list(choices.values()))[0]


def serve(storm: Storm, work: "queue.SimpleQueue[Callable[[], int | None]]") -> None:
    """A client: one request after the other, until there are no more."""
    with suppress(queue.Empty):
        while True:
            request = work.get_nowait()
            try:
                # A runtime comes again, when it is told to.
                while request() == TRY_AGAIN:
                    assert storm.running.wait(judge.DEADLINE), "there is an agent again"
            except Exception as error:
                storm.unexpected.append(f"{request}: {error!r}")
