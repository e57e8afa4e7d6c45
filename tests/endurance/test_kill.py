"""The agent is killed, or works for long: what is left, and what it has open.

Takes some minutes and is left out of a plain `pytest`: `./test tests/endurance`, where `--rounds`
says how often the agent is killed. It needs root, a C compiler and a kernel with netkit or veth.
"""

import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest

from cni_netkit.agent import server
from tests.endurance.agent import AgentProcess
from tests.endurance.looking import in_namespace, inside
from tests.kernel import judge
from tests.kernel.conftest import DUAL_STACK, JSON, Conf, Node, links

CONTAINERS = 200
AT_ONCE = 24
"""Launchers that run at the same time."""

ADDS_OF_THE_LONG_RUN = 3000
STORE = Path("/var/lib/cni")


def attached() -> list[str]:
    """The container ids in the aliases of the host's devices; of each device one."""
    return [each["ifalias"].split()[2] for each in judge.ip("link") if "ifalias" in each]


def records() -> list[str]:
    """The container ids of all records."""
    return [path.name.partition(":")[0] for path in (STORE / "netkit").rglob("*:*.json*")]


def owners() -> list[str]:
    """The container ids of all addresses given away; one an address.

    A file whose writer was killed before the first byte has no owner yet; GC removes it.
    """
    texts = [
        path.read_text()
        for path in (STORE / "networks" / "net").iterdir()
        if path.name != "lock" and not path.name.startswith("last_reserved_ip.")
    ]
    return [text.split()[0] for text in texts if text]


@dataclass
class Fleet:
    """Many containers of one node."""

    node: Node
    configuration: JSON
    names: list[str]
    executor: ThreadPoolExecutor

    def add_until(self, answers: int, then: Callable[[], None]) -> set[str]:
        """ADD all; call `then` when so many were answered. Which ones were told success."""
        calls = {
            self.executor.submit(self.node.call, "ADD", self.configuration, name): name
            for name in random.sample(self.names, len(self.names))
        }
        done = set()
        for number, call in enumerate(as_completed(calls), 1):
            answer = call.result()
            if answer.status == 0:
                done.add(calls[call])
            else:
                # Not begun, or nobody knows how it ended; never anything else.
                assert answer.error["code"] == 11, answer
            if number == answers:
                then()
        return done

    def delete(self, names: list[str]) -> None:
        """DEL, of some as if their namespace was gone."""
        calls = [
            self.executor.submit(
                self.node.call,
                "DEL",
                self.configuration,
                name if number % 2 else "",
                cid=f"container-{name}",
            )
            for number, name in enumerate(names)
        ]
        assert all(call.result().ok for call in calls)

    def collect(self, kept: list[str]) -> None:
        """GC: only `kept` are valid."""
        valid = [{"containerID": f"container-{name}", "ifname": "eth0"} for name in kept]
        assert self.node.call("GC", {**self.configuration, "cni.dev/valid-attachments": valid}).ok


@pytest.fixture
def fleet(agent: AgentProcess, node: Node, conf: Conf) -> Iterator[Fleet]:
    configuration = conf(fallback="veth", ipMasq=True, ipam=DUAL_STACK)
    with ThreadPoolExecutor(AT_ONCE) as executor:
        names = [node.container() for _ in range(CONTAINERS)]
        one = Fleet(node, configuration, names, executor)
        # The first ADD of a node switches forwarding on, and makes folders.
        node.add(configuration, names[0])
        one.delete(names[:1])
        yield one


def test_killed_agent_leaves_nothing_that_stays(
    agent: AgentProcess, fleet: Fleet, request: pytest.FixtureRequest
) -> None:
    """In the middle of 200 ADDs, time and again: each ADD was done once or not at all.

    What was told to have worked is there; the successor's sweep releases what was half done; DEL
    and GC leave nothing of what remains.
    """
    before = judge.world()
    untouched = {name: in_namespace(name, inside) for name in fleet.names}
    interrupted = 0
    for _ in range(request.config.getoption("--rounds")):
        moment = random.randint(1, CONTAINERS - AT_ONCE)
        done = fleet.add_until(moment, lambda: agent.end(signal.SIGKILL))
        agent.start()

        there = sorted(attached())
        assert sorted(records()) == there
        assert sorted(owners()) == sorted(there * 2), "one address of each family"
        assert len(set(there)) == len(there), "a container has two devices"
        assert {f"container-{name}" for name in done} <= set(there)
        given = []
        for name in fleet.names:
            devices, addresses, routes = in_namespace(name, inside)
            if f"container-{name}" in there:
                assert (devices, len(addresses), routes > 0) == ({"eth0"}, 2, True)
                given += addresses
            else:
                assert (devices, addresses, routes) == untouched[name]
        assert len(set(given)) == len(given), "two containers have the same address"
        interrupted += len(there) < CONTAINERS

        half = set(random.sample(fleet.names, CONTAINERS // 2))
        fleet.delete([name for name in fleet.names if name in half])
        left = {f"container-{name}" for name in fleet.names if name not in half} & set(there)
        assert set(attached()) == left
        fleet.collect([name for name in fleet.names if name not in half])
        assert set(attached()) == left
        fleet.collect([])
        assert {name: in_namespace(name, inside) for name in fleet.names} == untouched
        assert judge.world() == before
    assert interrupted, "the agent was always too late to be killed"


def test_long_run_needs_no_more_than_a_short_one(agent: AgentProcess, fleet: Fleet) -> None:
    """Descriptors and threads after some thousand ADDs and DELs are those after a few."""

    def work(number: int) -> None:
        for _ in range(number // CONTAINERS):
            assert len(fleet.add_until(0, lambda: None)) == CONTAINERS
            fleet.delete(fleet.names)

    def files() -> list[str]:
        return sorted(links(f"/proc/{agent.process.pid}/fd/*"))

    work(CONTAINERS)
    # A worker may be about to close its connection while the launcher has ended already.
    before = judge.wait_for(lambda: quiet(files), "the agent is idle")
    work(ADDS_OF_THE_LONG_RUN)
    judge.wait_for(lambda: files() == before, "nothing else is open")
    assert len(os.listdir(f"/proc/{agent.process.pid}/task")) <= server.WORKERS + 2


def quiet(files: Callable[[], list[str]]) -> list[str]:
    """What is open, if there is no connection but for the agent's own sockets.

    It listens at two (xsk.sock is the other), and has two pairs to be woken with.
    """
    found = files()
    return found if sum(each.startswith("socket:") for each in found) == 6 else []
