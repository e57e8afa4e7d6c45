"""Containers come and go, for an hour with --long: the agent needs in the end what it needed at the beginning."""

import os
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.endurance.agent import AgentProcess
from tests.endurance.looking import in_namespace, inside
from tests.kernel import judge
from tests.kernel.conftest import DUAL_STACK, JSON, Conf, Node, links

CLIENTS = 8
CONTAINERS = 32
SECONDS, SECONDS_OF_A_LONG_RUN = 40.0, 3600.0
MEGABYTES_MORE = 4.0
"""From the first tenth of the time to the last: what Python's allocator may still take its time with."""


@dataclass
class Sample:
    """The agent at rest, and how long an ADD took on the median in the time before, in seconds."""

    resident: float
    descriptors: int
    threads: int
    add: float


@dataclass
class Churn:
    """A node with an agent, and the configuration of each container."""

    node: Node
    agent: AgentProcess
    kinds: dict[str, JSON]
    cycles: int = 0

    def cycle(self, name: str) -> float:
        """ADD, CHECK and DEL, sometimes a GC in the place of DEL; the seconds of the ADD."""
        conf = self.kinds[name]
        began = time.monotonic()
        result = self.node.add(conf, name)
        seconds = time.monotonic() - began
        assert self.node.check(conf, name, result).ok
        if random.random() < 0.1:
            others = [f"container-{other}" for other in self.kinds if other != name]
            valid = [{"containerID": other, "ifname": "eth0"} for other in others]
            assert self.node.call("GC", {**conf, "cni.dev/valid-attachments": valid}).ok
        else:
            assert self.node.call("DEL", conf, name).ok
        return seconds

    def go_on(self, seconds: float) -> list[float]:
        """Cycles of all containers, some at a time, until so much time has passed."""
        until = time.monotonic() + seconds
        taken: list[float] = []
        with ThreadPoolExecutor(CLIENTS) as clients:
            while time.monotonic() < until:
                taken += clients.map(self.cycle, random.sample(list(self.kinds), CONTAINERS))
                self.cycles += CONTAINERS
        return taken

    def sample(self, taken: list[float]) -> Sample:
        process = f"/proc/{self.agent.process.pid}"
        # A worker may be about to close what the last request had open.
        descriptors = judge.wait_for(lambda: settled(process), "the agent is at rest")
        status = dict(
            line.split(":", 1) for line in Path(process, "status").read_text().splitlines()
        )
        return Sample(
            int(status["VmRSS"].split()[0]) / 1024,
            descriptors,
            len(os.listdir(f"{process}/task")),
            statistics.median(taken),
        )


def settled(process: str) -> int:
    """How many descriptors are open, if none of them is of a request's."""
    found = links(f"{process}/fd/*")
    return len(found) if sum(each.startswith("socket:") for each in found) == 6 else 0


@pytest.fixture
def churn(node: Node, agent: AgentProcess, conf: Conf) -> Churn:
    nic = node.nic(16)
    kinds = [
        conf(ipam=DUAL_STACK, ipMasq=True),
        conf(ipam=DUAL_STACK, mode="l2"),
        conf(ipam=DUAL_STACK, lease={"device": nic}),
        conf(pairing="single", ipam=DUAL_STACK, lease={"device": nic}),
    ]
    names = [node.container() for _ in range(CONTAINERS)]
    return Churn(node, agent, {name: kinds[number % 4] for number, name in enumerate(names)})


@contextmanager
def nothing_left(churn: Churn) -> Iterator[None]:
    """In the kernel, in the records, in IPAM's files."""
    churn.go_on(0.1)
    before = judge.world(), {name: in_namespace(name, inside) for name in churn.kinds}
    yield
    assert (judge.world(), {name: in_namespace(name, inside) for name in churn.kinds}) == before


def test_flat(churn: Churn, long: bool, figures: list[str]) -> None:
    """Memory, descriptors and threads of the last tenth of the time are those of the second."""
    tenth = (SECONDS_OF_A_LONG_RUN if long else SECONDS) / 10
    with nothing_left(churn):
        churn.go_on(tenth)
        samples = [churn.sample(churn.go_on(tenth)) for _ in range(9)]
    first, last = samples[0], samples[-1]
    figures.append(
        f"{churn.cycles} times ADD, CHECK, DEL or GC in {10 * tenth:.0f} s: memory {first.resident:.1f} MB, "
        f"then {last.resident:.1f}; descriptors {first.descriptors}, {last.descriptors}; threads "
        f"{first.threads}, {last.threads}; an ADD took {last.add / first.add:.2f} of what it did"
    )
    assert last.resident - first.resident < MEGABYTES_MORE, samples
    assert last.descriptors == first.descriptors, samples
    assert last.threads <= max(each.threads for each in samples[:5]) + 1, samples
