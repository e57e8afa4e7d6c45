"""Deletions that wait at the same time are carried out together, and nobody else's device is."""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.link import deletion
from cni_netkit.kernel.link.deletion import Deletions
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket, opened
from cni_netkit.kernel.uapi import NETLINK_ROUTE, RTM_DELLINK
from tests.kernel import judge
from tests.kernel.conftest import Node

pytestmark = [pytest.mark.any_kernel, pytest.mark.once]

CALLERS = 30


@dataclass
class Crowd:
    """Callers of one `Deletions`, and what is asked of the kernel for them.

    The first one is held up at the kernel's door until all others wait, so that the number of
    requests does not depend on time.
    """

    deletions: Deletions
    executor: ThreadPoolExecutor
    requests: list[Sequence[str]] = field(default_factory=list)
    faults: dict[str, BaseException] = field(default_factory=dict)
    """What a request ends with, by words that are in what it asks."""

    expected: int = 0
    first: threading.Event = field(default_factory=threading.Event)

    def ask(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The spy at the door."""

        def spy(sock: NetlinkSocket, *batch: Ask, **options: Any) -> Any:
            self.requests.append([each.asked for each in batch])
            if batch[0].type == RTM_DELLINK and not self.first.is_set():
                self.first.set()
                judge.wait_for(
                    lambda: len(self.deletions._waiting) == self.expected, "all others wait"
                )
            for words, fault in self.faults.items():
                if words in batch[0].asked:
                    raise fault
            return original(sock, *batch, **options)

        return spy

    def delete(self, *devices: Link) -> dict[str, Future[None]]:
        """One caller a device, all at the same time; the first alone in the first round."""
        self.expected = len(devices) - 1
        first, *others = devices
        calls = {first.name: self.executor.submit(self._call, first)}
        assert self.first.wait(judge.DEADLINE)
        calls.update({each.name: self.executor.submit(self._call, each) for each in others})
        return calls

    def failures(self, *devices: Link) -> dict[str, str]:
        """What the callers were told that had no success."""
        told = {name: call.exception() for name, call in self.delete(*devices).items()}
        return {name: str(error) for name, error in told.items() if error}

    def _call(self, device: Link) -> None:
        host = Namespace.current()
        sock = opened(host.netns, NETLINK_ROUTE)
        try:
            self.deletions.delete(sock, device)
        finally:
            sock.close()
            host.close()


@pytest.fixture
def crowd(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    with ThreadPoolExecutor(CALLERS) as executor:
        made = Crowd(Deletions(), executor)
        monkeypatch.setattr(NetlinkSocket, "ask", made.ask(NetlinkSocket.ask))
        yield made


def pairs(number: int) -> list[Link]:
    """Fresh pairs, and beside them two that nobody asks to delete: of group 0 and of another."""
    for name in ("bystander0", "bystander7"):
        judge.run("ip", "link", "add", name, "type", "veth", "peer", f"peer-{name}")
    judge.run("ip", "link", "set", "bystander7", "group", "7")
    for each in range(number):
        judge.run("ip", "link", "add", f"d{each}", "type", "veth", "peer", f"peer-d{each}")
    host = Namespace.current()
    try:
        return [found for found in host.links.all() if found.name.startswith("d")]
    finally:
        host.close()


def names() -> set[str]:
    """Every device of ours and lo, without the peers; kernels put some of their own beside."""
    found = {each["ifname"] for each in judge.ip("link")}
    return {name for name in found if name == "lo" or name.startswith(("d", "bystander"))}


BYSTANDERS = {"lo", "bystander0", "bystander7"}


def test_thirty_at_once_are_three_requests(crowd: Crowd) -> None:
    """The first alone; the others put into a group, and that deleted."""
    devices = pairs(CALLERS)
    crowd.requests.clear()
    assert crowd.failures(*devices) == {}
    assert names() == BYSTANDERS
    alone, joined, together = crowd.requests
    assert alone == [f"delete the device {devices[0].name}"]
    assert sorted(joined) == sorted(
        f"put the device {each.name} into a link group" for each in devices[1:]
    )
    (asked,) = together
    assert all(each.name in asked for each in devices[1:])


def test_all_callers_have_their_answer_only_when_it_is_done(crowd: Crowd) -> None:
    """Nobody is told before."""
    devices = pairs(5)
    seen: list[set[str]] = []

    class Watched(Deletions):
        def delete(self, socket: NetlinkSocket, device: Link) -> None:
            super().delete(socket, device)
            seen.append({device.name} & names())

    crowd.deletions = Watched()
    assert crowd.failures(*devices) == {}
    assert seen == [set()] * 5


def test_lone_deletion_is_one_request(crowd: Crowd) -> None:
    """It is in no group, and does not wait for company."""
    (device,) = pairs(1)
    crowd.requests.clear()
    assert crowd.failures(device) == {}
    assert crowd.requests == [["delete the device d0"]]
    assert names() == BYSTANDERS


def test_deletions_one_after_the_other_are_alone(crowd: Crowd) -> None:
    """A round leaves nothing behind for the next."""
    devices = pairs(3)
    crowd.requests.clear()
    for device in devices:
        assert crowd.failures(device) == {}
    assert crowd.requests == [[f"delete the device {each.name}"] for each in devices]


@pytest.mark.parametrize("gone", [["d0"], ["d3"], ["d1", "d2", "d3"], ["d0", "d1", "d2", "d3"]])
def test_device_that_is_gone_hurts_nobody(crowd: Crowd, gone: list[str]) -> None:
    """It counts as deleted, alone or in a group, or a whole group."""
    devices = pairs(4)
    for name in gone:
        judge.run("ip", "link", "del", name)
    crowd.requests.clear()
    assert crowd.failures(*devices) == {}
    assert len(crowd.requests) == 3, "nobody was tried alone but for the first"
    assert names() == BYSTANDERS


def test_failure_is_told_to_its_caller_alone(crowd: Crowd, node: Node) -> None:
    """A device that no one can delete, the loopback one: the group is refused, then it alone."""
    devices = pairs(4)
    host = Namespace.current()
    loopback = host.links.get("lo")
    host.close()
    assert loopback is not None
    told = crowd.failures(*devices[:2], loopback, *devices[2:])
    assert set(told) == {"lo"}
    assert "delete the device lo" in told["lo"]
    assert "not supported" in told["lo"]
    assert names() == BYSTANDERS


def test_failure_of_the_first_is_told_to_the_first(crowd: Crowd) -> None:
    """Who leads works for the others all the same."""
    devices = pairs(4)
    crowd.faults["delete the device d0"] = KernelError("delete the device d0", errno.EBUSY)
    told = crowd.failures(*devices)
    assert list(told) == ["d0"]
    assert "EBUSY" in told["d0"]
    assert names() == BYSTANDERS | {"d0"}


@pytest.mark.parametrize("refused", ["into a link group", "delete the devices"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ETIMEDOUT])
def test_group_that_is_refused_is_deleted_one_by_one(
    crowd: Crowd, refused: str, number: int
) -> None:
    """Whatever the reason, each is tried alone before anybody is told of a failure."""
    devices = pairs(5)
    crowd.requests.clear()
    crowd.faults[refused] = KernelError(refused, number)
    crowd.faults["delete the device d3"] = KernelError("delete the device d3", errno.EBUSY)
    told = crowd.failures(*devices)
    assert list(told) == ["d3"]
    assert names() == BYSTANDERS | {"d3"}
    asked = [each for request in crowd.requests for each in request]
    assert sum(each.startswith("delete the device ") for each in asked) == 5


def test_group_of_nobody_else(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is another one each time, and never 0, in which all devices are at first."""
    seen = set()
    original = deletion._join

    def spy(device: Link, group: int) -> Ask:
        seen.add(group)
        return original(device, group)

    monkeypatch.setattr(deletion, "_join", spy)
    for round_ in range(4):
        for name in BYSTANDERS - {"lo"}:
            judge.run("ip", "link", "del", name, check=False)
        crowd.first.clear()
        assert crowd.failures(*pairs(3)) == {}
        assert len(seen) == round_ + 1
    assert 0 not in seen
    assert names() == BYSTANDERS


def test_device_of_a_namespace_that_went_meanwhile(node: Node) -> None:
    """Its id leads nowhere when the device is to be deleted: that is no failure."""
    judge.run("ip", "link", "add", "d0", "type", "veth", "peer", "peer-d0")
    host = Namespace.current()
    try:
        found = host.links.get("d0")
        assert found is not None
        host.links.delete(found, nsid=4711)
        assert host.links.get("d0") is not None, "it is not looked for here"
    finally:
        host.close()
