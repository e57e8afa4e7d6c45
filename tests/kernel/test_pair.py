"""Pairs: connectivity directly after ADD, the devices as configured, nothing left after DEL."""

import pytest

from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node

MODES = pytest.mark.parametrize("mode", ["l3", "l2"])


@MODES
def test_host_and_container_reach_each_other_directly_after_add(
    node: Node, conf: Conf, dual_stack: JSON, mode: str
) -> None:
    """IPv4 and IPv6, both directions, first packet answered."""
    c = node.container()
    node.add(conf(mode=mode, ipam=dual_stack), c)
    assert judge.pings("fd00:1::2")
    assert judge.pings("10.1.0.2")
    assert judge.pings("10.1.0.1", c)
    assert judge.pings("fd00:1::1", c)


@MODES
def test_containers_reach_each_other(node: Node, conf: Conf, dual_stack: JSON, mode: str) -> None:
    """From container to container through the host, IPv4 and IPv6."""
    one, two = node.container(), node.container()
    node.add(conf(mode=mode, ipam=dual_stack), one)
    node.add(conf(mode=mode, ipam=dual_stack), two)
    assert judge.pings("10.1.0.3", one)
    assert judge.pings("fd00:1::3", one)
    assert judge.pings("10.1.0.2", two)


@MODES
def test_result_describes_what_the_kernel_has(
    node: Node, conf: Conf, dual_stack: JSON, mode: str
) -> None:
    """Interfaces, MTU, MAC (l3: all zero), sandbox, addresses with their interface."""
    c = node.container()
    result = node.add(conf(mode=mode, ipam=dual_stack, mtu=1400), c)
    host, inside = result["interfaces"]
    assert judge.link(host["name"])["mtu"] == 1400 == host["mtu"]
    assert inside["name"] == "eth0"
    assert inside["sandbox"] == f"/run/netns/{c}"
    assert "sandbox" not in host
    assert inside["mac"] == judge.link("eth0", c)["address"]
    assert host["mac"] == judge.link(host["name"])["address"]
    assert (inside["mac"] == "00:00:00:00:00:00") == (mode == "l3")
    assert {each["address"] for each in result["ips"]} == judge.addresses("eth0", c)
    assert all(each["interface"] == 1 for each in result["ips"])
    assert judge.netkit("eth0", c)["mode"] == mode


@MODES
def test_host_end_speaks_no_ipv6_where_the_container_has_no_address_of_it(
    node: Node, conf: Conf, mode: str
) -> None:
    """A link-local address would open the host's services to the container, past every policy."""
    result = node.add(conf(mode=mode), node.container())
    (host,) = judge.ip("addr", "show", "dev", result["interfaces"][0]["name"])
    assert "UP" in host["flags"]
    assert [each["local"] for each in host["addr_info"]] == ["10.1.0.1"]


def test_del_leaves_nothing(node: Node, conf: Conf, dual_stack: JSON) -> None:
    """Links, addresses, routes, rules, files and records are as before, and DEL can be repeated."""
    c = node.container()
    before = judge.world(c)
    configuration = conf(ipam=dual_stack, ipMasq=True)
    node.add(configuration, c)
    assert judge.world(c) != before
    for _ in range(3):
        assert node.call("DEL", configuration, c).ok
    assert judge.world(c) == before


def test_device_attributes_are_as_configured(node: Node, conf: Conf) -> None:
    """Policies, scrub, headroom, tailroom as ip(8) shows them; name and alias as promised."""
    c = node.container()
    result = node.add(
        conf(
            policy="blackhole",
            peerPolicy="blackhole",
            scrub="none",
            peerScrub="none",
            headroom=64,
            tailroom=32,
        ),
        c,
    )
    name = result["interfaces"][0]["name"]
    assert name.startswith("nk")
    assert len(name) == 13
    found = judge.netkit(name)
    assert (found["policy"], found["peer_policy"]) == ("blackhole", "blackhole")
    assert (found["scrub"], found["peer_scrub"]) == ("none", "none")
    assert judge.netkit_room(name) == (64, 32)
    assert judge.link(name)["ifalias"] == f"cni-netkit net container-{c} eth0"
