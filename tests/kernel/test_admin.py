"""The command cni-netkit on a node: what it says is what the judges see."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import main as admin
from tests.kernel import judge
from tests.kernel.conftest import Conf, Node

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till-0"


class Command:
    """cni-netkit, run in the node's namespaces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Its standard output."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
        assert admin.main() == status
        return self._capsys.readouterr().out

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Its report."""
        return json.loads(self(*arguments, "--json", status=status))


@pytest.fixture
def cni_netkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_leases(node: Node, conf: Conf, cni_netkit: Command, pairing: str) -> None:
    """Each leased queue with its device and its pod; after DEL all are free."""
    nic, c = node.nic(), node.container()
    configuration = conf(pairing=pairing, lease={"device": nic, "count": 2})
    node.add(configuration, c, args=POD)
    taken = judge.leases(nic)
    assert len(taken) == 2
    (found,) = cni_netkit.json("leases")["nics"]
    assert (found["name"], found["index"]) == (nic, judge.link(nic)["ifindex"])
    assert [queue["number"] for queue in found["queues"]] == list(range(8))
    leased = {each["number"]: each["lease"] for each in found["queues"] if each["lease"]}
    assert {
        number: (lease["deviceIndex"], lease["deviceQueue"]) for number, lease in leased.items()
    } == taken
    ids = {each["nsid"] for each in judge.ip("netns", "list-id") if each.get("name") == c}
    assert {lease["netnsID"] for lease in leased.values()} == ids
    for lease in leased.values():
        assert lease["attachment"] == {
            "network": "net",
            "containerID": f"container-{c}",
            "ifname": "eth0",
            "podNamespace": "shop",
            "podName": "till-0",
        }
    assert cni_netkit("leases").count("shop/till-0 on network net") == 2
    assert node.call("DEL", configuration, c).ok
    (found,) = cni_netkit.json("leases")["nics"]
    assert {queue["state"] for queue in found["queues"]} == {"free"}


def test_leases_of_others_and_of_nics_that_are_down(
    node: Node, conf: Conf, cni_netkit: Command
) -> None:
    """Without record the device's index is told; a NIC that is down has no queues to show."""
    nic, down, c = node.nic(), node.nic(up=False), node.container()
    node.add(conf(lease={"device": nic}), c)
    (record,) = Path("/var/lib/cni/netkit").rglob("*.json")
    record.unlink()
    seen = {each["name"]: each for each in cni_netkit.json("leases")["nics"]}
    assert set(seen) == {nic, down}
    lease = seen[nic]["queues"][7]["lease"]
    assert (lease["deviceIndex"], lease["attachment"]) == (judge.link("eth0", c)["ifindex"], None)
    assert (seen[down]["up"], seen[down]["queues"]) == (False, [])


def test_list(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """What was attached, under the names that the kernel has."""
    nic, c = node.nic(), node.container()
    configuration = conf(lease={"device": nic})
    node.add(configuration, c, args=POD)
    (found,) = cni_netkit.json("list")["attachments"]
    assert judge.link(found["hostDevice"])["linkinfo"]["info_kind"] == found["kind"] == "netkit"
    assert judge.addresses(found["ifname"], c) == set(found["addresses"])
    assert found["leases"] == [{"nic": nic, "queue": 7, "deviceQueue": 1}]
    assert (found["netns"], found["state"]) == (f"/run/netns/{c}", "complete")
    assert node.call("DEL", configuration, c).ok
    assert cni_netkit.json("list") == {"attachments": []}
