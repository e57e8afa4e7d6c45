"""CHECK finds every difference, and names what differs, expected and found."""

from collections.abc import Callable

import pytest

from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node


class Attached:
    """A container with everything, and what was said about it."""

    def __init__(self, node: Node, configuration: JSON) -> None:
        self.node = node
        self.conf = configuration
        self.netns = node.container()
        self.result = node.add(configuration, self.netns)
        self.host = self.result["interfaces"][0]["name"]
        assert node.check(configuration, self.netns, self.result).ok

    def difference(self) -> str:
        """The text of the difference that CHECK must find."""
        error = self.node.check(self.conf, self.netns, self.result).error
        assert error["code"] == 105
        return str(error["msg"])

    def ip(self, *arguments: str) -> None:
        """Change something on the host."""
        judge.run("ip", *arguments)

    def inside(self, *arguments: str) -> None:
        """Change something in the container."""
        judge.run("ip", "-n", self.netns, *arguments)


@pytest.fixture
def attach(node: Node, conf: Conf, dual_stack: JSON) -> Callable[..., Attached]:
    """Attach a container with dual stack, and more keys if given."""
    return lambda **keys: Attached(node, conf(ipam=dual_stack, **keys))


Attach = Callable[..., Attached]


@pytest.mark.parametrize("mode", ["l3", "l2"])
def test_nothing_differs(attach: Attach, mode: str) -> None:
    """A fresh attachment passes, also with additions by others."""
    found = attach(mode=mode, ipMasq=True, scrub="none")
    found.inside("addr", "add", "192.0.2.9/32", "dev", "eth0")
    found.inside("route", "add", "192.0.2.128/25", "dev", "eth0")
    assert found.node.check(found.conf, found.netns, found.result).ok


@pytest.mark.parametrize("address", ["10.1.0.2/24", "fd00:1::2/64"])
def test_address(attach: Attach, address: str) -> None:
    """An address that was removed."""
    found = attach()
    found.inside("addr", "del", address, "dev", "eth0")
    text = found.difference()
    assert text.startswith("address of device eth0 in the container")
    assert f"expected {address}, found" in text


@pytest.mark.parametrize("mode", ["l3", "l2"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_route_in_the_container(attach: Attach, mode: str, family: str) -> None:
    """A default route that was removed."""
    found = attach(mode=mode)
    found.inside(family, "route", "del", "default")
    text = found.difference()
    assert text.startswith("route in the container through eth0")
    assert "/0 via" in text


@pytest.mark.parametrize(
    ("family", "destination"), [("-4", "10.1.0.2/32"), ("-6", "fd00:1::2/128")]
)
def test_route_on_the_host(attach: Attach, family: str, destination: str) -> None:
    """The host's route to the container was removed."""
    found = attach()
    found.ip(family, "route", "del", destination)
    text = found.difference()
    assert f"route on the host: expected {destination} through {found.host}, found" in text


def test_route_on_the_host_leads_elsewhere(attach: Attach) -> None:
    """The host's route was bent to another device."""
    found = attach()
    found.ip("link", "add", "d0", "type", "dummy")
    found.ip("link", "set", "d0", "up")
    found.ip("route", "replace", "10.1.0.2/32", "dev", "d0")
    assert "found 10.1.0.2/32 through d0" in found.difference()


def test_gateway_address_on_the_host(attach: Attach) -> None:
    """The host's end no longer answers as the gateway."""
    found = attach()
    found.ip("addr", "del", "10.1.0.1/32", "dev", found.host)
    assert f"address of device {found.host} on the host: expected 10.1.0.1/32" in found.difference()


def test_mtu_in_the_container(attach: Attach) -> None:
    """Another MTU in the container."""
    found = attach(mtu=1400)
    found.inside("link", "set", "eth0", "mtu", "1399")
    assert found.difference() == ("MTU of device eth0 in the container: expected 1400, found 1399")


def test_mtu_on_the_host(attach: Attach) -> None:
    """Another MTU on the host."""
    found = attach(mtu=1400)
    found.ip("link", "set", found.host, "mtu", "1399")
    assert (
        found.difference() == f"MTU of device {found.host} on the host: expected 1400, found 1399"
    )


def test_policy_of_the_primary(attach: Attach) -> None:
    """The primary's policy was changed."""
    found = attach()
    found.ip("link", "set", found.host, "type", "netkit", "forward", "peer", "forward")
    found.ip("link", "set", found.host, "type", "netkit", "blackhole")
    assert found.difference() == (
        f"policy of device {found.host} on the host: expected forward, found blackhole"
    )


def test_policy_of_the_peer(attach: Attach) -> None:
    """The peer's policy was changed."""
    found = attach()
    found.ip("link", "set", found.host, "type", "netkit", "peer", "blackhole")
    assert found.difference() == (
        f"peer policy of device {found.host} on the host: expected forward, found blackhole"
    )


@pytest.mark.parametrize("end", ["scrub", "peer scrub"])
def test_scrub(attach: Attach, end: str) -> None:
    """Scrubbing of either end is another; the kernel cannot change it, so the pair was remade."""
    found = attach()
    found.ip("link", "del", found.host)
    options = {"scrub": ["scrub", "none"], "peer scrub": ["peer", "scrub", "none"]}[end]
    remake(found, "netkit", *options)
    assert found.difference() == (
        f"{end} of device {found.host} on the host: expected default, found none"
    )


def test_mode(attach: Attach) -> None:
    """The pair was remade with another mode."""
    found = attach()
    found.ip("link", "del", found.host)
    remake(found, "netkit", mode="l2")
    text = found.difference()
    assert text.startswith((f"mode of device {found.host}", "MAC address of device eth0"))


def test_mac(attach: Attach) -> None:
    """Another hardware address in the container."""
    found = attach(mode="l2")
    was = found.result["interfaces"][1]["mac"]
    found.inside("link", "set", "eth0", "address", "02:00:00:00:00:07")
    assert found.difference() == (
        f"MAC address of device eth0 in the container: expected {was}, found 02:00:00:00:00:07"
    )


def test_mac_that_a_later_plugin_set(attach: Attach) -> None:
    """prevResult carries the address that a chained plugin gave: that one is expected."""
    found = attach(mode="l2")
    found.inside("link", "set", "eth0", "address", "02:00:00:00:00:07")
    found.result["interfaces"][1]["mac"] = "02:00:00:00:00:07"
    assert found.node.check(found.conf, found.netns, found.result).ok


def test_link_down_in_the_container(attach: Attach) -> None:
    """The container's end is down."""
    found = attach()
    found.inside("link", "set", "eth0", "down")
    assert found.difference() == "state of device eth0 in the container: expected up, found down"


def test_link_down_on_the_host(attach: Attach) -> None:
    """The host's end is down."""
    found = attach()
    found.ip("link", "set", found.host, "down")
    assert (
        found.difference() == f"state of device {found.host} on the host: expected up, found down"
    )


def test_another_kind_of_the_same_name_in_the_container(attach: Attach) -> None:
    """eth0 is a dummy by now."""
    found = attach()
    found.inside("link", "del", "eth0")
    found.inside("link", "add", "eth0", "type", "dummy")
    assert found.difference() == (
        "kind of device eth0 in the container: expected netkit, found dummy"
    )


def test_another_kind_of_the_same_name_on_the_host(attach: Attach) -> None:
    """The host's end was renamed, and a dummy took its name."""
    found = attach()
    found.ip("link", "set", found.host, "down")
    found.ip("link", "set", found.host, "name", "other")
    found.ip("link", "set", "other", "up")
    found.ip("link", "add", found.host, "type", "dummy")
    assert found.difference() == (
        f"kind of device {found.host} on the host: expected netkit, found dummy"
    )


def test_host_end_gone(attach: Attach) -> None:
    """The host's end was renamed: none of that name is left."""
    found = attach()
    found.ip("link", "set", found.host, "down")
    found.ip("link", "set", found.host, "name", "other")
    found.ip("link", "set", "other", "up")
    assert found.difference() == (
        f"device {found.host} on the host: expected a netkit device, found none"
    )


def test_pair_gone(attach: Attach) -> None:
    """The pair was deleted."""
    found = attach()
    found.ip("link", "del", found.host)
    assert found.difference() == (
        "device eth0 in the container: expected a netkit device, found none"
    )


@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_one_lease_lost(node: Node, conf: Conf, pairing: str) -> None:
    """One of two queues is no longer leased to the device."""
    nic = node.nic()
    keys: JSON = {"ipam": None} if pairing == "single" else {}
    found = Attached(node, conf(pairing=pairing, lease={"device": nic, "count": 2}, **keys))
    # A lease cannot be given back alone: remake the device with one lease instead of two.
    record = judge.files("/var/lib/cni/netkit")
    assert any(b'"leases":[[7,1],[6,2]]' in content for content in record.values())
    other = node.container()
    if pairing == "pair":
        found.ip("link", "del", found.host)
        node.add(conf(name="other", ipam=None, lease={"device": nic, "queues": [6]}), other)
        remake(found, "netkit", queues=3, nic=nic)
    else:
        found.inside("link", "del", "eth0")
        node.add(conf(name="other", ipam=None, lease={"device": nic, "queues": [7]}), other)
        node.add(
            conf(
                name="again", pairing="single", ipam=None,
                lease={"device": nic, "count": 2, "queues": "5-6"},
            ),
            found.netns,
        )  # fmt: skip
    text = found.difference()
    assert f"of {nic}: expected leased to queue" in text
    assert "of eth0 in the container, found" in text


@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_alias_of_a_device_with_leases(node: Node, conf: Conf, pairing: str) -> None:
    """It no longer tells which queues the device has."""
    nic = node.nic()
    found = Attached(node, conf(pairing=pairing, ipam=None, lease={"device": nic}))
    alias = f"cni-netkit net container-{found.netns} eth0"
    found.inside("link", "set", "eth0", "alias", alias)
    assert found.difference() == (
        f"alias of device eth0 in the container: expected {alias} {nic}:7, found {alias}"
    )


def test_lease_of_a_nic_that_is_down(node: Node, conf: Conf) -> None:
    """Leases are not to be seen while the NIC is down; that is the difference."""
    nic = node.nic()
    found = Attached(node, conf(lease={"device": nic}))
    found.ip("link", "set", nic, "down")
    assert found.difference() == f"state of NIC {nic}: expected up, found down"


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet cni-netkit {chain}",
        "delete element inet cni-netkit masquerade4 {{ 10.1.0.2 }}",
        "delete table inet cni-netkit",
    ],
)
def test_masquerade_rule_gone(attach: Attach, damage: str) -> None:
    """Rule, map entry or the whole table were removed."""
    found = attach(ipMasq=True)
    judge.run("nft", damage.format(chain=found.host))
    text = found.difference()
    assert "nftables table cni-netkit" in text
    assert f"chain {found.host}" in text


def test_masquerade_rule_that_knows_no_exceptions(attach: Attach) -> None:
    """Rules that would masquerade also what goes to nonMasqueradeCIDRs."""
    found = attach(ipMasq=True, nonMasqueradeCIDRs=["10.0.0.0/8"])
    chain = f"inet cni-netkit {found.host}"
    judge.run("nft", f"flush chain {chain}")
    for saddr in ("ip saddr 10.1.0.2", "ip6 saddr fd00:1::2"):
        judge.run("nft", f"add rule {chain} {saddr} masquerade")
    text = found.difference()
    assert f"chain {found.host} of nftables table cni-netkit" in text
    assert text.endswith("look the network's nonMasqueradeCIDRs up: expected 2, found 0")


def test_ipam_lost_the_address(attach: Attach) -> None:
    """IPAM's files are gone."""
    found = attach()
    judge.run("sh", "-c", "rm /var/lib/cni/networks/net/*:*2 /var/lib/cni/networks/net/10.*")
    assert found.difference().startswith("IPAM: expected an address reserved for eth0")


def test_prev_result_is_demanded(attach: Attach) -> None:
    """Without prevResult there is nothing to compare with: error 7."""
    found = attach()
    error = found.node.call("CHECK", found.conf, found.netns).error
    assert error["code"] == 7
    assert "prevResult" in error["msg"]


def test_container_that_was_never_added(node: Node, conf: Conf) -> None:
    """No record: error 105 says so."""
    c = node.container()
    error = node.check(conf(), c, {"interfaces": [], "ips": []}).error
    assert error["code"] == 105
    assert f"record of eth0 of container container-{c}" in error["msg"]


def remake(
    found: Attached, kind: str, *options: str, mode: str = "l3", queues: int = 1, nic: str = ""
) -> None:
    """Put another pair in the place of the deleted one, with the same names, addresses, routes."""
    primary = [each for each in options if "peer" not in options]
    peer = [each for each in options[1:] if "peer" in options]
    found.ip(
        *("link", "add", found.host, "type", kind, "mode", mode, *primary),
        *("peer", *peer, "name", "eth0", "netns", found.netns, "numrxqueues", str(queues)),
    )
    for command in (
        ("link", "set", found.host, "up"),
        ("addr", "add", "10.1.0.1/32", "dev", found.host),
        ("-n", found.netns, "link", "set", "eth0", "up"),
        ("-n", found.netns, "addr", "add", "10.1.0.2/24", "dev", "eth0"),
        ("-n", found.netns, "route", "add", "default", "via", "10.1.0.1"),
        ("route", "add", "10.1.0.2/32", "dev", found.host),
    ):
        found.ip(*command)
    assert nic == "" or judge.leases(nic).keys() == {6}
