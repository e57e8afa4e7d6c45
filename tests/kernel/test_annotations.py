"""Pods that choose by annotation: what they chose is made, checked and taken back."""

from collections.abc import Callable

import pytest

from cni_netkit.spec.annotations import CAPABILITY
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node

Pod = Callable[..., JSON]


@pytest.fixture
def pod(conf: Conf) -> Pod:
    """A configuration that lets pods choose mode, mtu and lease; `of()` adds what a pod chose."""

    def of(chosen: dict[str, str] | None = None, **keys: object) -> JSON:
        return conf(
            allowAnnotations=["mode", "mtu", "lease"],
            capabilities={CAPABILITY: True},
            runtimeConfig=None if chosen is None else {CAPABILITY: chosen},
            **keys,
        )

    return of


def test_a_pod_has_the_device_that_it_chose(node: Node, pod: Pod) -> None:
    """Its mode and MTU, and its neighbour has the configured ones; CHECK passes, DEL leaves nothing."""
    c, other = node.container(), node.container()
    before = judge.world(c, other)
    chosen = pod({"cni-netkit/mode": "l2", "cni-netkit/mtu": "1400"})
    result = node.add(chosen, c)
    ordinary = node.add(pod({}), other)
    device, neighbour = judge.link("eth0", c), judge.link("eth0", other)
    assert (device["linkinfo"]["info_data"]["mode"], device["mtu"]) == ("l2", 1400)
    assert (neighbour["linkinfo"]["info_data"]["mode"], neighbour["mtu"]) == ("l3", 1500)
    assert {each["mtu"] for each in result["interfaces"]} == {1400}
    assert judge.pings(result["ips"][0]["address"].split("/")[0])
    assert node.check(chosen, c, result).ok
    assert node.check(pod({}), other, ordinary).ok
    assert node.call("DEL", chosen, c).ok
    assert node.call("DEL", pod({}), other).ok
    assert judge.world(c, other) == before


def test_the_record_knows_what_was_chosen(node: Node, pod: Pod) -> None:
    """CHECK finds a difference from it, and DEL and GC need no annotations."""
    c, other = node.container(), node.container()
    before = judge.world(c, other)
    result = node.add(pod({"cni-netkit/mode": "l2", "cni-netkit/mtu": "1400"}), c)
    assert node.check(pod(), c, result).ok
    judge.run("ip", "-n", c, "link", "set", "eth0", "mtu", "1500")
    error = node.check(pod(), c, result).error
    assert error["code"] == 105
    assert "1400" in error["msg"]
    assert node.call("DEL", pod(), c).ok
    node.add(pod({"cni-netkit/mode": "l2"}), other)
    assert node.call("STATUS", pod()).ok
    assert node.call("GC", {**pod(), "cni.dev/valid-attachments": []}).ok
    assert judge.world(c, other) == before


def test_a_pod_chooses_how_many_queues(node: Node, pod: Pod) -> None:
    """Of the NIC and the pool that are configured; DEL gives all of them back."""
    nic, c = node.nic(), node.container()
    lease = {"device": nic, "queues": "3-5"}
    chosen = pod({"cni-netkit/lease": '{"count": 2}'}, lease=lease)
    result = node.add(chosen, c)
    index = judge.link("eth0", c)["ifindex"]
    assert judge.leases(nic) == {5: (index, 1), 4: (index, 2)}
    assert node.check(chosen, c, result).ok
    assert node.call("DEL", chosen, c).ok
    assert judge.leases(nic) == {}


@pytest.mark.parametrize("key", ["device", "queues"])
def test_a_pod_does_not_choose_which(node: Node, pod: Pod, key: str) -> None:
    """Neither NIC nor queues, unless they are listed themselves; nothing is left of the attempt."""
    nic, other, c = node.nic(), node.nic(), node.container()
    before = judge.world(c)
    value = {"device": f'{{"device": "{other}"}}', "queues": '{"queues": [1]}'}[key]
    asked = pod({"cni-netkit/lease": value}, lease={"device": nic, "queues": "4-7"})
    error = node.call("ADD", asked, c).error
    assert error["code"] == 7
    assert f"annotation cni-netkit/lease: lease.{key} is not in allowAnnotations" in error["msg"]
    # As a runtime does after an ADD that failed.
    assert node.call("DEL", asked, c).ok
    assert judge.world(c) == before
    asked["allowAnnotations"] = [f"lease.{key}"]
    node.add(asked, c)
    assert judge.leases(other if key == "device" else nic).keys() == {7 if key == "device" else 1}


def test_status_tells_of_a_key_that_no_pod_may_choose(node: Node, conf: Conf) -> None:
    """Before there is a pod that could fail."""
    listed = conf(allowAnnotations=["mode", "log"], capabilities={CAPABILITY: True})
    error = node.call("STATUS", listed).error
    assert error["code"] == 7
    assert "allowAnnotations.1: is no key that a pod may choose" in error["msg"]
