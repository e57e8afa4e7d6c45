"""Leased queues: taken in ADD, seen from the NIC, given back, never twice, never half."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.agent.metrics import Metrics
from cni_netkit.kernel.queues.queues import Queues
from tests.kernel import judge
from tests.kernel.conftest import JSON, Answer, Conf, Node

PAIRINGS = pytest.mark.parametrize("pairing", ["pair", "single"])


@PAIRINGS
def test_leased_queues_point_at_queues_1_and_2(node: Node, conf: Conf, pairing: str) -> None:
    """The highest two of the NIC belong to the container's device; DEL frees them."""
    nic, c = node.nic(), node.container()
    configuration = conf(pairing=pairing, lease={"device": nic, "count": 2})
    node.add(configuration, c)
    device = judge.link("eth0", c)
    assert judge.leases(nic) == {7: (device["ifindex"], 1), 6: (device["ifindex"], 2)}
    assert device["num_rx_queues"] == 3
    assert device["ifalias"] == f"cni-netkit net container-{c} eth0 {nic}:7,6"
    if pairing == "pair":
        assert judge.pings("10.1.0.2")
    assert node.call("DEL", configuration, c).ok
    assert judge.leases(nic) == {}


def test_metrics_count_the_queues(node: Node, conf: Conf) -> None:
    """As the kernel has them at the moment, by what they are used for."""
    nic, c = node.nic(), node.container()
    figures, configuration = Metrics(), conf(lease={"device": nic, "count": 2})

    def queues() -> dict[str, str]:
        text = figures.text().decode()
        return dict(re.findall(rf'nic_queues{{nic="{nic}",state="([^"]+)"}} (\S+)', text))

    assert queues() == {"free": "8.0", "leased": "0.0", "in use": "0.0"}
    node.add(configuration, c)
    assert queues() == {"free": "6.0", "leased": "2.0", "in use": "0.0"}
    judge.run("ip", "link", "set", nic, "down")
    assert queues() == {}
    assert node.call("DEL", configuration, c).ok


def test_pool_is_respected(node: Node, conf: Conf) -> None:
    """Only queues of the pool are taken, the highest first."""
    nic, c = node.nic(), node.container()
    node.add(conf(lease={"device": nic, "count": 2, "queues": "1,3-4"}), c)
    assert set(judge.leases(nic)) == {4, 3}


def test_pool_without_names_spares_queue_0(node: Node, conf: Conf) -> None:
    """Every queue but 0 can be leased."""
    nic = node.nic(queues=4)
    node.add(conf(lease={"device": nic, "count": 3}), node.container())
    assert set(judge.leases(nic)) == {1, 2, 3}


@PAIRINGS
def test_too_few_free_queues_name_the_holders_and_leave_nothing(
    node: Node, conf: Conf, pairing: str
) -> None:
    """Error 101; the first container keeps what it has, the second gets nothing at all."""
    nic, one, two = node.nic(queues=4), node.container(), node.container()
    configuration = conf(pairing=pairing, lease={"device": nic, "count": 2})
    node.add(configuration, one)
    before = judge.world(one, two)
    error = node.call("ADD", configuration, two).error
    assert error["code"] == 101
    assert nic in error["msg"]
    assert f"queue 3 is held by eth0 of container container-{one}" in error["details"]
    assert judge.world(one, two) == before


def test_automatic_mtu_is_the_nics(node: Node, conf: Conf) -> None:
    """mtu 0 takes the MTU of lease.device."""
    nic, c = node.nic(), node.container()
    judge.run("ip", "link", "set", nic, "mtu", "1300")
    node.add(conf(lease={"device": nic}), c)
    assert judge.link("eth0", c)["mtu"] == 1300


def test_two_at_the_same_moment_get_different_queues(node: Node, conf: Conf) -> None:
    """Eight containers ask at once for one of seven queues: seven get one, one gets error 101."""
    nic = node.nic()
    configuration = conf(lease={"device": nic})
    containers = [node.container() for _ in range(8)]
    answers: dict[str, Answer] = {}
    start = threading.Barrier(len(containers))

    def ask(c: str) -> None:
        start.wait()
        answers[c] = node.call("ADD", configuration, c)

    threads = [threading.Thread(target=ask, args=(c,)) for c in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [answer.error["code"] for answer in answers.values() if answer.status]
    assert failed == [101]
    assert set(judge.leases(nic)) == {1, 2, 3, 4, 5, 6, 7}


def test_two_that_want_two_of_three_do_not_starve_each_other(node: Node, conf: Conf) -> None:
    """One of them gets both, never each one and both fail."""
    nic = node.nic(queues=4)
    configuration = conf(lease={"device": nic, "count": 2})
    containers = [node.container() for _ in range(2)]
    statuses: list[int] = []
    start = threading.Barrier(len(containers))

    def ask(c: str) -> None:
        start.wait()
        statuses.append(node.call("ADD", configuration, c).status)

    threads = [threading.Thread(target=ask, args=(c,)) for c in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 1]
    assert len(judge.leases(nic)) == 2


def test_lease_survives_link_down_and_up(node: Node, conf: Conf) -> None:
    """Bringing the container's device down and up keeps the queues."""
    nic, c = node.nic(), node.container()
    node.add(conf(lease={"device": nic}), c)
    before = judge.leases(nic)
    judge.run("ip", "-n", c, "link", "set", "eth0", "down")
    judge.run("ip", "-n", c, "link", "set", "eth0", "up")
    assert judge.leases(nic) == before


@PAIRINGS
def test_removal_of_the_nic_is_noticed_and_cleaned_up(node: Node, conf: Conf, pairing: str) -> None:
    """The kernel deletes the device with the NIC: CHECK says so, DEL and GC clean up the rest."""
    nic, one, two = node.nic(), node.container(), node.container()
    configuration = conf(pairing=pairing, lease={"device": nic})
    before = judge.files("/var/lib/cni/networks")
    result = node.add(configuration, one)
    node.add(configuration, two)
    node.remove_nic()
    judge.wait_for(lambda: judge.link("eth0", one) is None, "the kernel deletes the device")
    error = node.check(configuration, one, result).error
    assert error["code"] == 105
    assert "eth0" in error["msg"]
    assert node.call("DEL", configuration, one).ok
    assert node.call("GC", configuration).ok
    left = judge.files("/var/lib/cni/networks")
    assert {name for name in left if "/10." in name} == set(before)
    assert not list(Path("/var/lib/cni/netkit").rglob("*.json"))


def test_single_is_released_when_the_path_is_gone_but_the_namespace_lives(
    node: Node, conf: Conf
) -> None:
    """A process still holds the namespace; DEL without CNI_NETNS finds the device all the same."""
    nic, c = node.nic(), node.container()
    configuration = conf(pairing="single", lease={"device": nic})
    node.add(configuration, c)
    with open(f"/run/netns/{c}") as held:
        judge.run("ip", "netns", "del", c)
        assert judge.leases(nic) != {}
        assert node.call("DEL", configuration, cid=f"container-{c}").ok
        assert judge.leases(nic) == {}
        assert held.fileno() > 0


def test_status_does_not_mind_exhausted_queues(node: Node, conf: Conf) -> None:
    """Used up is no error: a 50 would make the node NotReady."""
    nic = node.nic(queues=2)
    configuration = conf(lease={"device": nic})
    node.add(configuration, node.container())
    assert node.call("ADD", configuration, node.container()).error["code"] == 101
    assert node.call("STATUS", configuration).ok


@pytest.mark.parametrize(("verb", "code"), [("DEL", 0), ("GC", 0), ("CHECK", 105)])
def test_nic_that_goes_meanwhile(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch, verb: str, code: int
) -> None:
    """It was there when it was looked up, and is not when its queues are."""
    nic, c = node.nic(), node.container()
    configuration = conf(pairing="single", ipam=None, lease={"device": nic})
    result = node.add(configuration, c)
    original = Queues.all

    def gone_meanwhile(self: Queues, index: int) -> Any:
        if node.nics:
            node.remove_nic()
        return original(self, index)

    monkeypatch.setattr(Queues, "all", gone_meanwhile)
    if verb == "CHECK":
        answer = node.check(configuration, c, result)
    else:
        more: JSON = {"cni.dev/valid-attachments": []} if verb == "GC" else {}
        answer = node.call(verb, {**configuration, **more}, c if verb == "DEL" else "")
    assert node.nics == []
    assert (answer.error["code"] if answer.status else 0) == code
    if code:
        assert f"NIC {nic}: expected a device, found none" in answer.error["msg"]
        assert node.call("DEL", configuration, c).ok
    assert not list(Path("/var/lib/cni/netkit/net").glob("*.json"))
    assert judge.link("eth0", c) is None
