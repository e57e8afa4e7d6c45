"""Masquerading: whose address somebody outside sees, and what of it is in nftables."""

import threading
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node

pytestmark = pytest.mark.any_kernel

V4, V6 = "192.0.2.2", "2001:db8::2"
"""Somebody outside; the node is .1 there."""


@pytest.fixture
def masquerading(conf: Conf, dual_stack: JSON) -> Conf:
    """A network that masquerades, dual stack, also where there is no netkit."""
    return lambda **keys: conf(**{"ipam": dual_stack, "ipMasq": True, "fallback": "veth"} | keys)


@pytest.fixture
def outside(node: Node) -> str:
    """A namespace behind the node, which knows the way to the containers."""
    outside = node.container()
    judge.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", outside)
    for arguments in (
        ("addr", "add", "192.0.2.1/24", "dev", "up0"),
        ("addr", "add", "2001:db8::1/64", "dev", "up0", "nodad"),
        ("link", "set", "up0", "up"),
        ("-n", outside, "addr", "add", f"{V4}/24", "dev", "up1"),
        ("-n", outside, "addr", "add", f"{V6}/64", "dev", "up1", "nodad"),
        ("-n", outside, "link", "set", "up1", "up"),
        ("-n", outside, "route", "add", "10.0.0.0/8", "via", "192.0.2.1"),
        ("-n", outside, "route", "add", "fd00::/16", "via", "2001:db8::1"),
    ):
        judge.run("ip", *arguments)
    for address in (V4, V6):
        judge.wait_for(partial(judge.pings, address), f"{address} is found by its neighbour")
    return outside


def seen(c: str, outside: str) -> dict[str, str]:
    """What somebody outside sees who is connected to from a container, by where to."""
    return {address: judge.connects(c, address, 5000, outside) for address in (V4, V6)}


def own_addresses(result: JSON) -> dict[str, str]:
    """Those of a container, by which of the two it connects to with them."""
    found = {}
    for each in result["ips"]:
        address = each["address"].partition("/")[0]
        found[V6 if ":" in address else V4] = address
    return found


NODE = {V4: "192.0.2.1", V6: "2001:db8::1"}


def nft(kind: str) -> dict[str, Any]:
    """Objects of a kind as nft(8) lists them, by name."""
    listed = judge.nft("list", "ruleset")
    return {each[kind]["name"]: each[kind] for each in listed if kind in each}


def ranges(version: int = 4) -> list[list[str]]:
    """What is in the sets of an IP version, one list a network, as prefixes or first-last."""
    kind = {4: "ipv4_addr", 6: "ipv6_addr"}[version]
    return [
        [_told(element) for element in found.get("elem", [])]
        for found in nft("set").values()
        if found["type"] == kind
    ]


def _told(element: Any) -> str:
    if isinstance(element, str):
        return element
    if "range" in element:
        return "-".join(element["range"])
    return f"{element['prefix']['addr']}/{element['prefix']['len']}"


def test_what_goes_out_bears_the_nodes_address(
    node: Node, masquerading: Conf, outside: str
) -> None:
    """IPv4 and IPv6; what goes to the gateway does not."""
    c = node.container()
    result = node.add(masquerading(ipMasq=False), c)
    assert seen(c, outside) == own_addresses(result)
    assert node.call("DEL", masquerading(ipMasq=False), c).ok
    node.add(masquerading(), c)
    assert seen(c, outside) == NODE
    assert judge.pings("10.1.0.1", c)


@pytest.mark.parametrize("excluded", [[V4], [V6], [V4, V6], ["all"]], ids=str)
def test_what_goes_to_excepted_ranges_does_not(
    node: Node, masquerading: Conf, outside: str, excluded: list[str]
) -> None:
    """Each family by its own ranges."""
    given = {V4: "192.0.2.0/24", V6: "2001:db8::/64", "all": "::/0"}
    c = node.container()
    configuration = masquerading(
        nonMasqueradeCIDRs=["198.51.100.0/24", *(given[each] for each in excluded)]
    )
    result = node.add(configuration, c)
    without = excluded if excluded != ["all"] else [V6]
    own = own_addresses(result)
    assert seen(c, outside) == NODE | {each: own[each] for each in without}
    assert node.check(configuration, c, result).ok


def test_the_newest_list_holds_for_all(node: Node, masquerading: Conf, outside: str) -> None:
    """Containers that run already follow it, that of another network does not."""
    first, second, other = (node.container() for _ in range(3))
    own = own_addresses(node.add(masquerading(), first))
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}]]}
    node.add(masquerading(name="other", ipam={**ipam, "routes": [{"dst": "0.0.0.0/0"}]}), other)
    assert seen(first, outside) == NODE
    node.add(masquerading(nonMasqueradeCIDRs=["192.0.2.0/25", "2001:db8::/32"]), second)
    assert seen(first, outside) == own
    assert judge.connects(other, V4, 5000, outside) == NODE[V4]
    assert node.call("DEL", masquerading(), second).ok
    assert seen(first, outside) == own
    node.add(masquerading(nonMasqueradeCIDRs=["192.0.2.128/25"]), second)
    assert seen(first, outside) == NODE


def test_ranges_that_change(node: Node, masquerading: Conf, outside: str, host: Namespace) -> None:
    """While containers run: without a request of a runtime."""
    c = node.container()
    own = own_addresses(node.add(masquerading(), c))
    host.masquerading.exclude("net", ["192.0.2.0/24"])
    assert seen(c, outside) == NODE | {V4: own[V4]}
    host.masquerading.exclude("net", ["2001:db8::/64"])
    assert seen(c, outside) == NODE | {V6: own[V6]}
    host.masquerading.exclude("net", [])
    assert seen(c, outside) == NODE


def test_ranges_of_a_network_without_containers(
    node: Node, masquerading: Conf, host: Namespace
) -> None:
    """Nothing is made for them: not without a table, and not in that of others."""
    host.masquerading.exclude("net", ["10.0.0.0/8"])
    assert judge.run("nft", "list", "ruleset") == ""
    node.add(masquerading(), node.container())
    before = judge.run("nft", "list", "ruleset")
    host.masquerading.exclude("other", ["10.0.0.0/8"])
    assert judge.run("nft", "list", "ruleset") == before


def test_sets_do_not_grow_with_containers(node: Node, masquerading: Conf) -> None:
    """One pair of them, and one rule a container and family."""
    configuration = masquerading(nonMasqueradeCIDRs=["10.244.0.0/16", "fd00:244::/48"])
    for _ in range(3):
        node.add(configuration, node.container())
    assert (ranges(4), ranges(6)) == ([["10.244.0.0/16"]], [["fd00:244::/48"]])
    (comments,) = {each["comment"] for each in nft("set").values()}
    assert comments == "net"
    rules = [each["rule"] for each in judge.nft("list", "ruleset") if "rule" in each]
    assert len([each for each in rules if each["chain"].startswith("nk")]) == 3 * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"], ["10.0.0.0/8"]),
        (["10.0.0.0/9", "10.128.0.0/9"], ["10.0.0.0/8"]),
        (["10.1.1.0/24", "10.1.2.0/24"], ["10.1.1.0/24", "10.1.2.0/24"]),
        (["0.0.0.0/0"], ["0.0.0.0/0"]),
        (["0.0.0.0/8", "255.0.0.0/8"], ["0.0.0.0/8", "255.0.0.0/8"]),
        (["255.255.255.255/32", "0.0.0.0/32"], ["0.0.0.0", "255.255.255.255"]),
        (["::/0", "fd00::/8"], []),
        ([], []),
    ],
    ids=str,
)
def test_any_ranges(node: Node, masquerading: Conf, given: list[str], expected: list[str]) -> None:
    """Overlapping, adjacent, and up to both ends, where the kernel's intervals have none."""
    node.add(masquerading(nonMasqueradeCIDRs=given), node.container())
    assert ranges() == [expected]


def test_as_many_ranges_as_there_may_be(node: Node, masquerading: Conf, host: Namespace) -> None:
    """More than go into one message, of either family; and fewer again."""
    many4 = [f"10.{each // 128}.{each % 128 * 2}.0/24" for each in range(1024)]
    many6 = [f"fd00:0:0:{each * 2:x}::/64" for each in range(1, 1025)]
    node.add(masquerading(nonMasqueradeCIDRs=many6), node.container())
    assert [set(each) for each in ranges(6)] == [set(many6)]
    host.masquerading.exclude("net", many4)
    assert (ranges(4), ranges(6)) == ([sorted(many4, key=_place)], [[]])
    host.masquerading.exclude("net", many4[:1])
    assert ranges(4) == [many4[:1]]


def _place(text: str) -> int:
    return int(ip_address(text.partition("/")[0]))


def test_each_network_takes_its_sets_with_it(node: Node, masquerading: Conf) -> None:
    """With its last container, whoever else is there; the last of all takes the table."""
    before = judge.world()
    added: list[tuple[JSON, str]] = []
    for name, network in (("one", 1), ("one", 1), ("two", 2)):
        ranges_ = [[{"subnet": f"10.{network}.0.0/24"}], [{"subnet": f"fd00:{network}::/64"}]]
        configuration = masquerading(
            name=name,
            ipam={"type": "host-local", "ranges": ranges_},
            nonMasqueradeCIDRs=[f"10.{network}.0.0/16"],
        )
        added.append((configuration, node.container()))
        node.add(*added[-1])
    both = [["10.1.0.0/16"], ["10.2.0.0/16"]]
    assert sorted(ranges()) == both
    for left in (both, both[1:], []):
        assert node.call("DEL", *added.pop(0)).ok
        assert sorted(ranges()) == left
    assert judge.world() == before


def test_the_empty_table_of_a_delete_that_was_killed(node: Node, masquerading: Conf) -> None:
    """The rules are gone and the table is not: the next DEL takes it away."""
    c = node.container()
    configuration = masquerading()
    before = judge.world(c)
    node.add(configuration, c)
    (chain,) = (name for name in nft("chain") if name.startswith("nk"))
    for version in (4, 6):
        judge.run("nft", "flush", "map", "inet", "cni-netkit", f"masquerade{version}")
    judge.run("nft", "delete", "chain", "inet", "cni-netkit", chain)
    assert node.call("DEL", configuration, c).ok
    assert judge.world(c) == before


def test_table_that_comes_and_goes(node: Node) -> None:
    """The last attachment takes the table with it, just when another one comes: nobody is refused.

    So does the last one of a network with the network's sets.
    """
    failures: list[KernelError] = []

    def come_and_go(number: int) -> None:
        host, network = Namespace.current(), f"net{number % 3}"
        try:
            for _ in range(60):
                address = f"10.1.0.{number + 2}/24"
                host.masquerading.add(f"nk{number}", "a comment", [address], network)
                host.masquerading.remove(f"nk{number}", [address], network)
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
