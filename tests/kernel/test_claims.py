"""Queues by a pod's ResourceClaims: a single device for each NIC, chained behind what connects the pod."""

from collections.abc import Callable
from typing import Any

import pytest

from cni_netkit.claims import Claim, Claims, Share
from tests.kernel import judge
from tests.kernel.conftest import JSON, Node
from tests.kernel.test_flows import PORT, FakeNics, shown

POD = "11111111-2222-3333-4444-555555555555"
ARGUMENTS = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod;K8S_POD_UID={POD}"

SAID = {"workload": "io_uring", "flows": "address"}
"""What holds for this workload also where it is not said."""

Promise = Callable[..., Claim]
Chained = Callable[..., JSON]


@pytest.fixture
def promise(node: Node) -> Promise:
    """Writes the row of a claim that the pod has, as `cni-netkit dra` does."""
    del node  # whose namespaces the rows are in

    def make(*shares: Share, name: str = "claim", pod: str = POD) -> Claim:
        claim = Claim("default", name, f"{name}-uid", pod, shares)
        Claims().save(claim)
        return claim

    return make


@pytest.fixture
def chained(node: Node) -> Chained:
    """A configuration behind one that gave the container an address."""

    def make(container: str, **keys: Any) -> JSON:
        judge.run("ip", "link", "add", "eth0", "type", "dummy", netns=container)
        judge.run("ip", "addr", "add", "10.1.0.2/24", "dev", "eth0", netns=container)
        return {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "netkit",
            "pairing": "single",
            "claims": True,
            "prevResult": {
                "cniVersion": "1.1.0",
                "interfaces": [{"name": "eth0", "sandbox": f"/run/netns/{container}"}],
                "ips": [{"address": "10.1.0.2/24", "interface": 0}],
            },
            **keys,
        }

    return make


def share(nic: str, count: int, ifname: str = "", request: str = "queues", **lease: Any) -> Share:
    return Share(request, nic, count, lease, ifname)


def test_a_pod_has_the_queues_of_its_claims(
    node: Node, promise: Promise, chained: Chained, fake_nic: FakeNics
) -> None:
    """A device for each NIC; CHECK knows them, DEL gives all of it back."""
    one, two, c = node.nic(), node.nic(), node.container()
    before = judge.world(c)
    promise(share(one, 2), share(two, 1, ifname="fast0", request="other"), name="a")
    promise(share(one, 3), share(one, 1, request="for-ports", flows=PORT), name="b")
    flows = fake_nic(one)
    config = chained(c)
    with_address = judge.world(c)
    result = node.add(config, c, args=ARGUMENTS)
    assert [each["name"] for each in result["interfaces"]] == ["eth0", "zc0", "fast0", "zc2"]
    assert result["ips"] == config["prevResult"]["ips"]
    index = {name: judge.link(name, c)["ifindex"] for name in ("zc0", "fast0", "zc2")}
    assert judge.leases(one) == {
        **{7 - n: (index["zc0"], 1 + n) for n in range(5)},
        2: (index["zc2"], 1),
    }
    assert shown(flows) == {("tcp", "10.1.0.2", 9000, "queue", 2)}
    assert judge.leases(two) == {7: (index["fast0"], 1)}
    assert node.check(config, c, result, args=ARGUMENTS).ok
    judge.run("ip", "link", "del", "fast0", netns=c)
    failure = node.check(config, c, result, args=ARGUMENTS)
    assert failure.error["code"] == 105
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == with_address
    assert before != with_address
    assert (flows.rules, flows.contexts) == ({}, {})


def test_requests_for_one_nic_are_one_device(
    node: Node, promise: Promise, chained: Chained, fake_nic: FakeNics
) -> None:
    """With rules for the flows over all of its queues: two devices would be in each other's way."""
    nic, c = node.nic(), node.container()
    flows = fake_nic(nic)
    node.prepare(nic, "io_uring", "4-7")
    promise(share(nic, 1, **SAID), share(nic, 2, workload="io_uring"), name="a")
    promise(share(nic, 1, workload="io_uring"), name="b")
    config = chained(c)
    before = judge.world(c)
    result = node.add(config, c, args=ARGUMENTS)
    assert [each["name"] for each in result["interfaces"]] == ["eth0", "zc0"]
    index = judge.link("zc0", c)["ifindex"]
    assert judge.leases(nic) == {7 - n: (index, n + 1) for n in range(4)}
    assert shown(flows) == {("tcp", "10.1.0.2", 0, "context", 1)}
    assert set(flows.contexts[1]) == {4, 5, 6, 7}
    assert node.check(config, c, result, args=ARGUMENTS).ok
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == before
    assert (flows.rules, flows.contexts) == ({}, {})


def test_a_pod_without_claims_has_nothing_more(
    node: Node, promise: Promise, chained: Chained
) -> None:
    """Nor one that has somebody else's; its result is what came before."""
    nic, c = node.nic(), node.container()
    promise(share(nic, 2), pod="another-pod")
    config = chained(c)
    before = judge.world(c)
    assert node.add(config, c, args=ARGUMENTS) == config["prevResult"]
    assert judge.leases(nic) == {}
    assert node.check(config, c, config["prevResult"], args=ARGUMENTS).ok
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == before


def test_all_or_nothing(node: Node, promise: Promise, chained: Chained) -> None:
    """Where the second claim's queues are not there, the first one's are given back."""
    nic, c = node.nic(queues=4), node.container()
    promise(share(nic, 2), name="a")
    promise(share(nic, 2), name="b")
    config = chained(c)
    before = judge.world(c)
    failure = node.call("ADD", config, c, args=ARGUMENTS)
    assert failure.error["code"] == 101
    assert judge.world(c) == before
    Claims().remove("b-uid")
    node.add(config, c, args=ARGUMENTS)
    assert len(judge.leases(nic)) == 2
