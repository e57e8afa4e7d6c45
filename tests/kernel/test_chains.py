"""Our plugin before and behind the reference plugins, as links of one list."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import judge
from tests.kernel.chain import Chain, PluginFailure, needs_plugins
from tests.kernel.conftest import DUAL_STACK, JSON, Node

pytestmark = needs_plugins

MAPPING = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
PORTMAP = {
    "type": "portmap",
    "capabilities": {"portMappings": True},
    "backend": "nftables",
    "snat": True,
}
FIREWALL = {"type": "firewall", "backend": "iptables"}
MAC = "02:00:00:00:00:77"
HOST, OUTSIDE = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
CONTAINER = ("10.1.0.2", "fd00:1::2")
MODES = pytest.mark.parametrize("mode", ["l3", "l2"])


def netkit(**keys: Any) -> JSON:
    """Ours with dual stack; a key that is None is left out."""
    plugin = {"type": "netkit", "ipam": copy.deepcopy(DUAL_STACK), **keys}
    return {key: value for key, value in plugin.items() if value is not None}


def chain(
    node: Node, *plugins: JSON, version: str = "1.1.0", capabilities: JSON | None = None
) -> Chain:
    """A list of these plugins."""
    conflist = {"cniVersion": version, "name": "net", "plugins": list(plugins)}
    return Chain(node, conflist, capabilities or {})


def outside(node: Node) -> str:
    """A neighbour of the host that reaches the containers through it."""
    name = node.container()
    judge.run("ip", "link", "add", "uplink", "type", "veth", "peer", "up0", "netns", name)
    for device, netns, addresses in (("uplink", "", HOST), ("up0", name, OUTSIDE)):
        where = ["-n", netns] if netns else []
        for address, size in zip(addresses, ("24", "64"), strict=True):
            options = ["nodad"] if ":" in address else []
            judge.run("ip", *where, "addr", "add", f"{address}/{size}", "dev", device, *options)
        judge.run("ip", *where, "link", "set", device, "up")
    for gateway, destination in zip(HOST, ("10.0.0.0/8", "fd00::/16"), strict=True):
        judge.run("ip", "-n", name, "route", "add", destination, "via", gateway)
    return name


def rules_of(address: str) -> list[str]:
    """Lines of the packet filter, by whatever plugin, that have an address in them."""
    return [line for line in judge.run("nft", "list", "ruleset").splitlines() if address in line]


def setting(path: str, netns: str = "") -> str:
    """A value under /proc/sys."""
    return judge.run("cat", f"/proc/sys/{path}", netns=netns).strip()


@MODES
def test_portmap(node: Node, mode: str) -> None:
    """A connection to the host's port arrives, from outside with its own address, and from here."""
    client, c = outside(node), node.container()
    listed = chain(node, netkit(mode=mode), PORTMAP, capabilities=MAPPING)
    for host in HOST:
        assert not judge.connects(client, host, 8080, c, 80)
    listed.add(c)
    for host, source in zip(HOST, OUTSIDE, strict=True):
        assert judge.connects(client, host, 8080, c, 80) == source
        # From the host to an address of its own, and from the container back into itself.
        assert judge.connects("", host, 8080, c, 80)
        assert judge.connects(c, host, 8080, c, 80)
    listed.check(c)
    listed.delete(c)
    for host, address in zip(HOST, CONTAINER, strict=True):
        assert rules_of(address) == []
        assert not judge.connects(client, host, 8080, c, 80)


@MODES
def test_portmap_on_the_loopback_address(node: Node, mode: str) -> None:
    """127.0.0.1 needs route_localnet on the host's end, which portmap finds by its route."""
    c = node.container()
    listed = chain(node, netkit(mode=mode), PORTMAP, capabilities=MAPPING)
    host = listed.add(c)["interfaces"][0]["name"]
    assert setting(f"net/ipv4/conf/{host}/route_localnet") == "1"
    assert judge.connects("", "127.0.0.1", 8080, c, 80)


@MODES
def test_tuning_sysctl(node: Node, mode: str) -> None:
    """Values hold in the container and nowhere else; IFNAME stands for our device."""
    c = node.container()
    before = setting("net/core/somaxconn")
    sysctl = {"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.log_martians": "1"}
    listed = chain(node, netkit(mode=mode), {"type": "tuning", "sysctl": sysctl})
    listed.add(c)
    assert setting("net/core/somaxconn", c) == "77"
    assert setting("net/ipv4/conf/eth0/log_martians", c) == "1"
    assert setting("net/core/somaxconn") == before != "77"
    listed.check(c)
    listed.delete(c)
    assert judge.link("eth0", c) is None


def test_tuning_gives_another_mac(node: Node) -> None:
    """CHECK believes what tuning says of our device, and nothing beyond that."""
    c = node.container()
    listed = chain(node, netkit(mode="l2"), {"type": "tuning", "mac": MAC})
    result = listed.add(c)
    assert result["interfaces"][1]["mac"] == MAC == judge.link("eth0", c)["address"]
    for address in CONTAINER:
        assert judge.pings(address)
    listed.check(c)
    judge.run("ip", "-n", c, "link", "set", "eth0", "address", "02:00:00:00:00:78")
    with pytest.raises(AssertionError, match=f"expected {MAC}, found 02:00:00:00:00:78"):
        listed.check(c)


def test_tuning_changes_the_mtu_behind_our_back(node: Node) -> None:
    """Its result does not say so: for CHECK that is a difference. Ours has a key of its own."""
    c = node.container()
    tuned = chain(node, netkit(), {"type": "tuning", "mtu": 1400})
    tuned.add(c)
    with pytest.raises(AssertionError, match=r"MTU of device eth0 .* found 1400"):
        tuned.check(c)
    tuned.delete(c)
    own = chain(node, netkit(mtu=1400), {"type": "tuning", "mtu": 1400})
    own.add(c)
    own.check(c)


@MODES
def test_firewall(node: Node, mode: str) -> None:
    """What the host would not forward is let through for the container, and only until DEL."""
    client, c, other = outside(node), node.container(), node.container()
    for command in ("iptables", "ip6tables"):
        judge.run(command, "-P", "FORWARD", "DROP")
    listed = chain(node, netkit(mode=mode), FIREWALL)
    listed.add(c)
    chain(node, netkit(mode=mode)).add(other)
    for address in OUTSIDE:
        assert judge.connects(c, address, 8080, client)
        assert not judge.connects(other, address, 8080, client)
    for address in CONTAINER:
        assert rules_of(address)
        assert not judge.connects(client, address, 8080, c), "nobody has asked to be let in"
    listed.check(c)
    listed.delete(c)
    for address in CONTAINER:
        assert rules_of(address) == []


@MODES
def test_sbr_on_a_second_interface(node: Node, mode: str) -> None:
    """From its address packets leave through it, others through eth0; CHECK finds its routes."""
    client, c = outside(node), node.container()
    first = chain(node, netkit(mode=mode))
    second = chain(node, netkit(mode=mode), {"type": "sbr"})
    second.conflist["name"] = "second"
    ipam = second.conflist["plugins"][0]["ipam"]
    ipam["ranges"] = [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]
    first.add(c)
    before = judge.world(c)
    # The kernel has one default route a table: sbr moves its own away, so it must not be in eth0's.
    ipam["routes"] = [{"dst": "198.51.100.0/24"}, {"dst": "2001:db8:1::/48"}]
    second.add(c, "net1")
    for option, source, target in (
        ("-4", "10.2.0.2", "198.51.100.1"),
        ("-6", "fd00:2::2", "2001:db8:1::1"),
    ):
        rules = judge.ip(option, "rule", netns=c)
        tables = [each["table"] for each in rules if each.get("src") == source]
        assert tables
        assert not {"main", "local"}.intersection(tables)
        (chosen,) = judge.ip(option, "route", "get", target, "from", source, netns=c)
        assert chosen["dev"] == "net1"
        (other,) = judge.ip(option, "route", "get", target, netns=c)
        assert other["dev"] == "eth0"
    for address in ("10.2.0.2", "fd00:2::2", *CONTAINER):
        assert judge.pings(address)
    assert judge.connects(client, CONTAINER[0], 8080, c) == OUTSIDE[0]
    first.check(c)
    second.check(c, "net1")
    judge.run("ip", "-n", c, "-6", "route", "flush", "table", tables[0])
    with pytest.raises(AssertionError, match="route in the container through net1"):
        second.check(c, "net1")
    second.delete(c, "net1")
    assert judge.world(c) == before
    first.check(c)


BEFORE_US: dict[str, JSON] = {
    "ptp": {"type": "ptp", "ipam": DUAL_STACK},
    "bridge": {
        "type": "bridge",
        "bridge": "br0",
        "isDefaultGateway": True,
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
    },
}


@pytest.mark.parametrize(
    ("kind", "version"),
    [("ptp", "0.3.1"), ("bridge", "0.4.0"), ("ptp", "1.0.0"), ("bridge", "1.1.0")],
)
def test_single_device_behind(node: Node, kind: str, version: str) -> None:
    """prevResult is passed on to the letter, ours appended; CHECK and DEL of the whole list."""
    nic, c = node.nic(), node.container()
    if kind == "bridge":  # It stays for good; what is compared is what a container brings.
        other = chain(node, BEFORE_US[kind])
        other.add(c)
        other.delete(c)
    before = judge.world(c)
    single = netkit(pairing="single", ipam=None, ifName="zc0", lease={"device": nic, "count": 2})
    listed = chain(node, BEFORE_US[kind], single, version=version)
    result = listed.add(c)
    previous = listed.passed_on[0]
    ours: JSON = {"name": "zc0", "mac": "00:00:00:00:00:00", "sandbox": f"/run/netns/{c}"}
    ours |= {"mtu": 1500} if version == "1.1.0" else {}
    if not previous.get("dns", True):
        del previous["dns"]  # Some write it, with nothing in it.
    assert result == {**previous, "interfaces": [*previous["interfaces"], ours]}
    assert len(judge.leases(nic)) == 2
    if version != "0.3.1":
        listed.check(c)
    listed.delete(c)
    assert judge.leases(nic) == {}
    assert judge.world(c) == before


@pytest.mark.parametrize("kind", BEFORE_US)
def test_gc_behind(node: Node, kind: str) -> None:
    """What is not valid loses its single device and leases; what is valid keeps everything."""
    nic, keep, drop = node.nic(), node.container(), node.container()
    single = netkit(pairing="single", ipam=None, ifName="zc0", lease={"device": nic})
    listed = chain(node, BEFORE_US[kind], single)
    listed.add(keep)
    listed.add(drop)
    listed.collect(keep)
    assert judge.link("zc0", drop) is None
    assert set(judge.leases(nic)) == {7}
    listed.check(keep)
    for c in (keep, drop):
        listed.delete(c)
        assert judge.link("eth0", c) is None


@pytest.mark.parametrize(
    "later",
    [
        # An l3 device has no MAC address to change.
        {"type": "tuning", "mac": MAC},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.no_such_setting": "1"}},
    ],
    ids=["mac", "sysctl"],
)
def test_a_later_plugin_fails(node: Node, later: JSON) -> None:
    """The runtime sends DEL through the whole list, and nothing is left."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    lease = {"device": nic, "count": 2}
    listed = chain(node, netkit(ipMasq=True, lease=lease), PORTMAP, later)
    with pytest.raises(PluginFailure, match=str(later["type"])):
        listed.add(c)
    assert len(judge.leases(nic)) == 2, "netkit had done its part"
    listed.delete(c)
    assert judge.world(c) == before
    listed.delete(c)


@pytest.mark.without_netkit
def test_veth_in_its_place(node: Node) -> None:
    """On a kernel without netkit the usual list does the same with a veth pair."""
    client, c = outside(node), node.container()
    sysctl = {"net.core.somaxconn": "77"}
    listed = chain(
        node,
        netkit(fallback="veth", ipMasq=True),
        PORTMAP,
        FIREWALL,
        {"type": "tuning", "sysctl": sysctl, "mac": MAC},
        capabilities=MAPPING,
    )
    listed.add(c)
    assert judge.link("eth0", c)["linkinfo"]["info_kind"] == "veth"
    for family in (0, 1):
        assert judge.connects(client, HOST[family], 8080, c, 80) == OUTSIDE[family]
    assert setting("net/core/somaxconn", c) == "77"
    listed.check(c)
    listed.delete(c)
    assert judge.link("eth0", c) is None
    for address in CONTAINER:
        assert rules_of(address) == []


def test_all_of_them(node: Node) -> None:
    """A list as nodes have it, with two containers that reach each other, and GC in the end."""
    listed = chain(
        node,
        netkit(ipMasq=True),
        PORTMAP,
        FIREWALL,
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "77"}},
        capabilities=MAPPING,
    )
    client, one, two = outside(node), node.container(), node.container()
    listed.add(one)
    listed.capabilities = {}
    listed.add(two)
    for c in (one, two):
        listed.check(c)
    assert judge.connects(client, HOST[0], 8080, one, 80) == OUTSIDE[0]
    assert judge.connects(two, CONTAINER[0], 80, one)
    # What leaves the node has the node's address.
    assert judge.connects(one, OUTSIDE[0], 8080, client) == HOST[0]
    listed.collect(one)
    assert judge.link("eth0", two) is None
    assert judge.link("eth0", one) is not None
    listed.check(one)
    listed.delete(one)
    listed.delete(two)
    assert not rules_of(CONTAINER[0])
    assert not list(Path("/var/lib/cni/netkit").glob("net/*.json"))
