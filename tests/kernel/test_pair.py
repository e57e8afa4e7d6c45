"""Pairs: connectivity directly after ADD, the devices as configured, nothing left after DEL."""

import threading

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
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


def test_the_empty_table_of_a_delete_that_was_killed(node: Node, conf: Conf) -> None:
    """The rules are gone and the table is not: the next DEL takes it away."""
    c = node.container()
    configuration = conf(ipMasq=True)
    before = judge.world(c)
    node.add(configuration, c)
    (chain,) = [each["ifname"] for each in judge.ip("link") if each["ifname"].startswith("nk")]
    judge.run("nft", "flush", "map", "inet", "cni-netkit", "masquerade4")
    judge.run("nft", "delete", "chain", "inet", "cni-netkit", chain)
    assert node.call("DEL", configuration, c).ok
    assert judge.world(c) == before


def test_masqueraded_to_a_third_namespace(node: Node, conf: Conf, dual_stack: JSON) -> None:
    """A host outside that knows no route back sees the node's address, IPv4 and IPv6."""
    outside = node.container()
    judge.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", outside)
    for arguments in (
        ("addr", "add", "192.0.2.1/24", "dev", "up0"),
        ("addr", "add", "2001:db8::1/64", "dev", "up0", "nodad"),
        ("link", "set", "up0", "up"),
        ("-n", outside, "addr", "add", "192.0.2.2/24", "dev", "up1"),
        ("-n", outside, "addr", "add", "2001:db8::2/64", "dev", "up1", "nodad"),
        ("-n", outside, "link", "set", "up1", "up"),
    ):
        judge.run("ip", *arguments)
    c = node.container()
    plain = conf(ipam=dual_stack)
    node.add(plain, c)
    assert not judge.pings("192.0.2.2", c), "without masquerading there is no way back"
    assert node.call("DEL", plain, c).ok
    node.add(conf(ipam=dual_stack, ipMasq=True), c)
    assert judge.pings("192.0.2.2", c)
    assert judge.pings("2001:db8::2", c)
    assert judge.pings("10.1.0.1", c), "the gateway is reached without"


def test_table_that_comes_and_goes(node: Node) -> None:
    """The last attachment takes the table with it, just when another one comes: nobody is refused."""
    failures: list[KernelError] = []

    def come_and_go(number: int) -> None:
        host = Namespace.current()
        try:
            for _ in range(60):
                address = f"10.1.0.{number + 2}/24"
                host.masquerading.add(f"nk{number}", "a comment", [address])
                host.masquerading.remove(f"nk{number}", [address])
        except KernelError as failure:
            failures.append(failure)
        finally:
            host.close()

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert judge.run("nft", "list", "ruleset") == ""
