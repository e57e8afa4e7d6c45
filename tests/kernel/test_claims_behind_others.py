"""Claims of a pod whose network is another plugin's: the lists that docs/queues.md names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_netkit.claims import Share
from tests.ethtool.fake import FakeNic
from tests.kernel import judge
from tests.kernel.chain import Chain, PluginFailure, needs_plugins
from tests.kernel.conftest import JSON, Node
from tests.kernel.promises import ARGUMENTS, prepare
from tests.kernel.test_flows import shown

pytestmark = needs_plugins

DRA = Path(__file__).parents[2] / "conf/kubernetes/dra"


def behind_bridge(node: Node) -> Chain:
    conflist: JSON = json.loads((DRA / "behind-bridge.conflist").read_text())
    return Chain(node, conflist, environment={"CNI_ARGS": ARGUMENTS})


def test_behind_bridge(node: Node, fake_nic: Callable[..., FakeNic]) -> None:
    """Rules lead what is sent to the address of `bridge` to the queues; all of it goes again."""
    nic, c = node.nic(), node.container()
    rules = fake_nic(nic)
    chain = behind_bridge(node)
    prepare(Share("queues", nic, 2, {"flows": "address"}))
    result = chain.add(c)
    assert [each["name"] for each in result["interfaces"]][-2:] == ["eth0", "zc0"]
    index = judge.link("zc0", c)["ifindex"]
    assert judge.leases(nic) == {7: (index, 1), 6: (index, 2)}
    (address,) = {each["address"].partition("/")[0] for each in result["ips"]}
    assert address.startswith("10.87.23.")
    assert {to for _, to, *_ in shown(rules)} == {address}
    chain.check(c)
    chain.delete(c)
    assert judge.leases(nic) == {}
    assert not rules.rules


def test_a_pod_without_claims_has_what_bridge_made(node: Node) -> None:
    """And nothing of ours."""
    nic, c = node.nic(), node.container()
    chain = behind_bridge(node)
    result = chain.add(c)
    assert result["interfaces"] == chain.passed_on[0]["interfaces"]
    assert judge.leases(nic) == {}
    chain.check(c)
    chain.delete(c)


@pytest.mark.parametrize("flows", ["none", "address"])
def test_as_an_additional_network(node: Node, fake_nic: Callable[..., FakeNic], flows: str) -> None:
    """As Multus asks for it: after the main network, with a name of its own, and no addresses known."""
    nic, c = node.nic(), node.container()
    conf: JSON = json.loads((DRA / "multus-claims.conf").read_text())
    shared = {name: conf.pop(name) for name in ("cniVersion", "name")}
    chain = Chain(node, {**shared, "plugins": [conf]}, environment={"CNI_ARGS": ARGUMENTS})
    fake_nic(nic)
    prepare(Share("queues", nic, 2, {"flows": flows}))
    before = judge.world(c)
    if flows == "address":
        with pytest.raises(PluginFailure) as failure:
            chain.add(c, "net1")
        assert failure.value.error["code"] == 7
        assert "need addresses" in failure.value.error["msg"]
    else:
        result = chain.add(c, "net1")
        assert [each["name"] for each in result["interfaces"]] == ["zc0"]
        assert len(judge.leases(nic)) == 2
        chain.check(c, "net1")
        chain.delete(c, "net1")
    assert judge.leases(nic) == {}
    assert judge.world(c) == before
