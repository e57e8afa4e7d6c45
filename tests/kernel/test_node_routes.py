"""Routes to other nodes' ranges: three nodes on a link, dual stack, judged by ip(8)."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from cni_netkit.kernel.link.protocol import Found, ProtocolRoutes
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.kernel.netlink.socket import BATCH
from cni_netkit.node.routes import PROTOCOL, NodeRoute, Routes
from tests.kernel import judge
from tests.kernel.conftest import Node

pytestmark = [pytest.mark.any_kernel, pytest.mark.once]

RANGES = {"b": ("10.244.2.0/24", "fd00:244:2::/64"), "c": ("10.244.3.0/24", "fd00:244:3::/64")}
PODS = {"b": ("10.244.2.9", "fd00:244:2::9"), "c": ("10.244.3.9", "fd00:244:3::9")}
ADDRESSES = {"b": ("192.0.2.2", "2001:db8::2"), "c": ("192.0.2.3", "2001:db8::3")}
OWN = (NodeRoute("a", "10.244.1.0/24"), NodeRoute("a", "fd00:244:1::/64"))


def to(*nodes: str) -> set[NodeRoute]:
    """The routes to nodes."""
    return {
        NodeRoute(node, range_, via)
        for node in nodes
        for range_, via in zip(RANGES[node], ADDRESSES[node], strict=True)
    }


def moved() -> set[NodeRoute]:
    """The routes where node c has the ranges of node b."""
    return {
        NodeRoute("c", range_, via) for range_, via in zip(RANGES["b"], ADDRESSES["c"], strict=True)
    }


def routes(*more: str) -> list[Any]:
    """What ip(8) shows of both families."""
    return [each for family in ("-4", "-6") for each in judge.ip(family, "route", "show", *more)]


def ours() -> dict[str, str]:
    """Where our routes lead: to a gateway, or what type they are of."""
    found = routes("table", "main", "proto", str(PROTOCOL))
    assert len({each["dst"] for each in found}) == len(found)
    return {each["dst"]: each.get("gateway", each["type"]) for each in found}


def as_wanted(wanted: set[NodeRoute]) -> dict[str, str]:
    return {each.range: each.via or "unreachable" for each in wanted}


def foreign() -> list[str]:
    """Every route that is neither ours nor the kernel's own, whatever it is like."""
    return sorted(
        str(each)
        for each in routes("table", "all")
        if each.get("protocol") != "kernel"
        and (each.get("protocol"), each.get("table", "main")) != (str(PROTOCOL), "main")
    )


@pytest.fixture(autouse=True)
def nodes(node: Node) -> None:
    """Two other nodes, ports of a bridge on which this one is, each with a pod."""
    for name, addresses in ADDRESSES.items():
        netns = node.container()
        judge.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "eth0", "netns", netns)
        judge.run("ip", "link", "set", f"to-{name}", "up")
        for command in (
            *(("addr", "add", f"{each}/{_length(each)}", "dev", "eth0") for each in addresses),
            ("link", "set", "eth0", "up"),
            *(("addr", "add", each, "dev", "lo") for each in PODS[name]),
            ("link", "set", "lo", "up"),
        ):
            judge.run("ip", "-n", netns, *command)
    make_link()


def make_link() -> None:
    """This node's own device on the link."""
    judge.run("ip", "link", "add", "br0", "type", "bridge")
    for name in ADDRESSES:
        judge.run("ip", "link", "set", f"to-{name}", "master", "br0")
    bring_up()


def bring_up() -> None:
    judge.run("ip", "addr", "replace", "192.0.2.1/24", "dev", "br0")
    judge.run("ip", "addr", "replace", "2001:db8::1/64", "dev", "br0", "nodad")
    judge.run("ip", "link", "set", "br0", "up")


def _length(address: str) -> int:
    return 64 if ":" in address else 24


@pytest.fixture
def kept(node: Node) -> Iterator[Routes]:
    with closing(Namespace.current()) as host:
        yield Routes(host)


def test_pods_of_other_nodes_answer(kept: Routes) -> None:
    """By either family."""
    assert not judge.pings(PODS["b"][0])
    assert kept.keep(to("b", "c")) == {}
    assert ours() == as_wanted(to("b", "c"))
    for pod in (*PODS["b"], *PODS["c"]):
        judge.wait_for(partial(judge.pings, pod), f"{pod} answers")


def test_nodes_come_and_go(kept: Routes) -> None:
    """As often as it is asked for; the same again changes nothing."""
    for wanted in (to("b"), to("b", "c"), to("b", "c"), to("c"), set(), to("b"), to("c")):
        assert kept.keep(wanted) == {}
        assert ours() == as_wanted(wanted)


def test_what_a_process_left_that_was_killed(kept: Routes) -> None:
    """Whoever comes after it knows it by the protocol's number, also where it was cut off."""
    assert kept.keep(to("b", "c")) == {}
    proto = ("proto", str(PROTOCOL))
    v4, v6 = (("via", each) for each in ADDRESSES["b"])
    for odd in (
        ("append", RANGES["c"][0], *v4, *proto),
        ("append", RANGES["c"][1], *v6, *proto),
        ("add", RANGES["b"][0], *v4, "metric", "50", *proto),
        ("add", RANGES["b"][1], *v6, "metric", "50", *proto),
        ("add", "10.99.0.0/16", "dev", "br0", *proto),
        ("add", "fd99::/16", "dev", "br0", *proto),
        ("add", "fd98::/16", *proto, "nexthop", *v6, "nexthop", "via", ADDRESSES["c"][1]),
        ("add", "blackhole", "10.97.0.0/16", *proto),
        ("add", "blackhole", "fd97::/16", *proto),
        ("add", "default", *v4, *proto),
        ("add", "default", *v6, *proto),
    ):
        judge.run("ip", "route", *odd)
    # Not every kernel has it.
    hops = ("nexthop", *v4, "nexthop", "via", ADDRESSES["c"][0])
    judge.run("ip", "route", "add", "10.98.0.0/16", *proto, *hops, check=False)
    with closing(Namespace.current()) as host:
        assert Routes(host).keep(to("c")) == {}
    assert ours() == as_wanted(to("c"))


def test_what_stands_in_the_way_is_ours(kept: Routes) -> None:
    """A route to the range that leads elsewhere than any of ours is replaced like one of them."""
    for range_ in RANGES["b"]:
        judge.run("ip", "route", "add", range_, "dev", "br0", "proto", str(PROTOCOL))
    assert kept.keep(to("b")) == {}
    assert ours() == as_wanted(to("b"))


FOREIGN = [
    ("default", "via", "192.0.2.3"),
    ("default", "via", "2001:db8::3"),
    ("10.244.0.0/16", "via", "192.0.2.3", "proto", "bird"),
    ("fd00:244::/48", "via", "2001:db8::3", "proto", "bird"),
    ("10.244.2.0/24", "via", "192.0.2.3", "metric", "7"),
    ("fd00:244:2::/64", "via", "2001:db8::3", "metric", "7", "proto", "static"),
    ("10.244.2.0/24", "via", "192.0.2.3", "table", "100", "proto", str(PROTOCOL)),
    ("fd00:244:2::/64", "via", "2001:db8::3", "table", "100", "proto", str(PROTOCOL)),
    ("10.244.2.9/32", "dev", "br0"),
    ("blackhole", "10.244.9.0/24"),
]


def test_foreign_routes_are_left_alone(kept: Routes) -> None:
    """Also to the same range with another metric, and ours in another table."""
    for each in FOREIGN:
        judge.run("ip", "route", "add", *each)
    before = foreign()
    for wanted in (to("b", "c"), moved() | set(OWN), to("b"), set()):
        assert kept.keep(wanted) == {}
        assert ours() == as_wanted(wanted)
        assert foreign() == before


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_foreign_route_to_the_same_range(kept: Routes, family: int) -> None:
    """It is told, left alone, and does not keep the others from being made; ours comes after it."""
    (refused,) = (each for each in to("b") if each.range == RANGES["b"][family])
    judge.run("ip", "route", "add", refused.range, "via", ADDRESSES["c"][family])
    before = foreign()
    for _ in range(2):
        failures = kept.keep(to("b", "c"))
        assert {each: error.errno for each, error in failures.items()} == {refused: errno.EEXIST}
        assert f"add the route {refused.range} via {refused.via}" in str(failures[refused])
        assert ours() == as_wanted(to("b", "c") - {refused})
        assert foreign() == before
    judge.run("ip", "route", "del", refused.range)
    assert kept.keep(to("b", "c")) == {}
    assert ours() == as_wanted(to("b", "c"))


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_foreign_route_beside_ours(kept: Routes, family: int) -> None:
    """Somebody puts another one behind ours: it stays when ours changes, and when ours goes."""
    # Of IPv6 two of the same metric are one route with two next hops, and one protocol.
    other = ("via", "2001:db8::77", "metric", "2000") if family else ("via", "192.0.2.77")
    assert kept.keep(to("b")) == {}
    judge.run("ip", "route", "append", RANGES["b"][family], *other)
    before = foreign()
    for wanted in (moved(), set()):
        assert kept.keep(wanted) == {}
        assert foreign() == before
        assert [each.get("gateway") for each in routes("proto", str(PROTOCOL))] == [
            each.via for each in sorted(wanted, key=lambda each: ":" in each.via)
        ]


@pytest.mark.parametrize("default", [False, True], ids=["", "with a default route"])
def test_node_that_is_on_no_link(kept: Routes, default: bool) -> None:
    """The kernel refuses it, also where a router could be asked: what comes back says so."""
    if default:
        judge.run("ip", "route", "add", "default", "via", "192.0.2.3")
        judge.run("ip", "route", "add", "default", "via", "2001:db8::3")
    far = {
        NodeRoute("far", "10.244.4.0/24", "198.51.100.4"),
        NodeRoute("far", "fd00:244:4::/64", "2001:db8:4::4"),
    }
    failures = kept.keep(to("b") | far)
    assert set(failures) == far
    assert {error.errno for error in failures.values()} == {errno.ENETUNREACH, errno.EHOSTUNREACH}
    assert any("Nexthop has invalid gateway" in str(error) for error in failures.values())
    assert ours() == as_wanted(to("b"))


def test_range_that_two_nodes_have(kept: Routes) -> None:
    """One of them has it, always the same one; of the other the kernel says that it has one."""
    for _ in range(2):
        failures = kept.keep(to("b") | moved())
        assert set(failures) == moved()
        assert {error.errno for error in failures.values()} == {errno.EEXIST}
        assert ours() == as_wanted(to("b"))


def test_range_that_moves(kept: Routes) -> None:
    """To another node: the new route is there before the old one goes; both families."""
    assert kept.keep(to("b")) == {}
    with judge.RouteChanges() as changes:
        assert kept.keep(moved()) == {}
        seen = changes.so_far()
    assert ours() == as_wanted(moved())
    for range_, old, new in zip(RANGES["b"], ADDRESSES["b"], ADDRESSES["c"], strict=True):
        network = range_.partition("/")[0]
        appeared, went = (each[1:] for each in seen if each[0] == network)
        assert appeared[0] == "add"
        assert new in appeared[1]
        assert went == ("del", {old})


def test_range_that_moves_to_where_there_is_no_way(kept: Routes) -> None:
    """The route to the node that had it goes all the same."""
    assert kept.keep(to("b")) == {}
    far = NodeRoute("far", RANGES["b"][0], "198.51.100.4")
    assert set(kept.keep({far})) == {far}
    assert ours() == {}


def test_link_that_goes_down(kept: Routes) -> None:
    """Its routes go with it, and come back with the next look after it."""
    assert kept.keep(to("b", "c")) == {}
    judge.run("ip", "link", "set", "br0", "down")
    assert ours() == {}
    assert set(kept.keep(to("b", "c"))) == to("b", "c")
    bring_up()
    assert kept.keep(to("b", "c")) == {}
    assert ours() == as_wanted(to("b", "c"))


def test_link_that_is_another(kept: Routes) -> None:
    """The same addresses on a new device."""
    assert kept.keep(to("b", "c")) == {}
    judge.run("ip", "link", "del", "br0")
    assert ours() == {}
    make_link()
    assert kept.keep(to("b", "c")) == {}
    assert ours() == as_wanted(to("b", "c"))


def test_routes_that_go_meanwhile(kept: Routes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between list and deletion somebody deletes one: it is gone, as it was to be."""
    assert kept.keep(to("b", "c")) == {}
    delete = ProtocolRoutes._delete

    def after_somebody(self: ProtocolRoutes, stale: Sequence[Found]) -> None:
        for range_ in RANGES["b"]:
            judge.run("ip", "route", "del", range_)
        delete(self, stale)

    monkeypatch.setattr(ProtocolRoutes, "_delete", after_somebody)
    assert kept.keep(set()) == {}
    assert ours() == {}


def test_the_nodes_own_range(kept: Routes) -> None:
    """What no pod has is unreachable, and is not sent to the default gateway; what one has is not."""
    judge.run("ip", "route", "add", "default", "via", "192.0.2.3")
    judge.run("ip", "route", "add", "default", "via", "2001:db8::3")
    assert kept.keep({*OWN, *to("b")}) == {}
    assert ours() == as_wanted({*OWN, *to("b")})
    judge.run("ip", "route", "add", "10.244.1.2/32", "dev", "br0")
    assert judge.ip("route", "get", "10.244.1.2")[0]["dev"] == "br0"
    for address in ("10.244.1.3", "fd00:244:1::3"):
        with pytest.raises(AssertionError, match="No route to host"):
            judge.ip("route", "get", address)


def test_the_nodes_own_range_on_a_device(kept: Routes) -> None:
    """Another plugin has a bridge there: its route goes first, whoever came first."""
    assert kept.keep(OWN) == {}
    judge.run("ip", "link", "add", "cni0", "type", "bridge")
    judge.run("ip", "link", "set", "cni0", "up")
    judge.run("ip", "addr", "add", "10.244.1.1/24", "dev", "cni0")
    judge.run("ip", "addr", "add", "fd00:244:1::1/64", "dev", "cni0", "nodad")
    assert kept.keep(OWN) == {}
    for address in ("10.244.1.3", "fd00:244:1::3"):
        assert judge.ip("route", "get", address)[0]["dev"] == "cni0"


def test_many(kept: Routes) -> None:
    """More than are asked for at a time, of which some are refused."""
    first = {
        4: (int(ip_address("10.0.0.0")), 24, ADDRESSES["b"][0], "198.51.100.4"),
        6: (int(ip_address("fd00::")), 64, ADDRESSES["b"][1], "2001:db8:4::4"),
    }
    wanted: set[NodeRoute] = set()
    far: set[NodeRoute] = set()
    for version, (start, length, near_via, far_via) in first.items():
        size = 1 << (32 if version == 4 else 128) - length
        for number in range(3 * BATCH):
            range_ = f"{ip_address(start + number * size)}/{length}"
            is_far = number % 2 == 1
            (far if is_far else wanted).add(
                NodeRoute(str(number), range_, far_via if is_far else near_via)
            )
    assert set(kept.keep(wanted | far)) == far
    assert ours() == as_wanted(wanted)
    assert kept.keep(set()) == {}
    assert ours() == {}
