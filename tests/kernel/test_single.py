"""Single devices, alone and chained behind a pair."""

from tests.kernel import judge
from tests.kernel.conftest import Conf, Node

STATIC = {
    "type": "static",
    "addresses": [{"address": "192.0.2.7/24"}, {"address": "2001:db8::7/64"}],
    "routes": [{"dst": "198.51.100.0/24"}],
}


def test_single_device_is_in_the_container_only(node: Node, conf: Conf) -> None:
    """One device, up, and nothing on the host."""
    c = node.container()
    before = judge.ip("link")
    result = node.add(conf(pairing="single", ipam=None, mtu=1400), c)
    assert judge.ip("link") == before
    found = judge.link("eth0", c)
    assert "UP" in found["flags"]
    assert found["mtu"] == 1400
    assert found["ifalias"] == f"cni-netkit net container-{c} eth0"
    assert result["interfaces"] == [
        {"name": "eth0", "mac": found["address"], "mtu": 1400, "sandbox": f"/run/netns/{c}"}
    ]
    assert node.check(conf(pairing="single", ipam=None, mtu=1400), c, result).ok
    assert node.call("DEL", conf(pairing="single", ipam=None), c).ok
    assert judge.link("eth0", c) is None


def test_single_device_with_addresses(node: Node, conf: Conf) -> None:
    """Addresses and routes are given if ipam is."""
    c = node.container()
    configuration = conf(pairing="single", ipam=STATIC)
    result = node.add(configuration, c)
    assert judge.addresses("eth0", c) == {"192.0.2.7/24", "2001:db8::7/64"}
    assert judge.routes(c)["198.51.100.0/24"]["dev"] == "eth0"
    assert [each["interface"] for each in result["ips"]] == [0, 0]
    assert node.check(configuration, c, result).ok


def test_l2_single_takes_a_mac(node: Node, conf: Conf) -> None:
    """An l2 device has the hardware address that was asked for."""
    c = node.container()
    result = node.add(
        conf(pairing="single", mode="l2", ipam=None, runtimeConfig={"mac": "02:00:00:00:00:05"}), c
    )
    assert judge.link("eth0", c)["address"] == "02:00:00:00:00:05"
    assert result["interfaces"][0]["mac"] == "02:00:00:00:00:05"


def test_chained_behind_a_pair(node: Node, conf: Conf) -> None:
    """The pair's result is passed on unchanged, the single device appended; DEL in reverse."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    pair = conf()
    single = conf(pairing="single", ipam=None, ifName="nk0", lease={"device": nic, "count": 2})
    first = node.add(pair, c)
    result = node.add({**single, "prevResult": first}, c)
    assert result["interfaces"][:2] == first["interfaces"]
    assert result["interfaces"][2]["name"] == "nk0"
    assert (result["ips"], result["routes"]) == (first["ips"], first["routes"])
    assert judge.leases(nic) == {
        7: (judge.link("nk0", c)["ifindex"], 1),
        6: (judge.link("nk0", c)["ifindex"], 2),
    }
    assert judge.pings("10.1.0.2")
    assert node.check(pair, c, result).ok
    assert node.check(single, c, result).ok
    assert node.call("DEL", single, c).ok
    assert judge.leases(nic) == {}
    assert judge.pings("10.1.0.2"), "the pair is not touched"
    assert node.call("DEL", pair, c).ok
    assert judge.world(c) == before


def test_gc_of_a_chain_releases_both(node: Node, conf: Conf) -> None:
    """Valid attachments are named by CNI_IFNAME, also for the device with a name of its own."""
    nic, keep, drop = node.nic(), node.container(), node.container()
    pair = conf()
    single = conf(pairing="single", ipam=None, ifName="nk0", lease={"device": nic})
    for c in (keep, drop):
        first = node.add(pair, c)
        node.add({**single, "prevResult": first}, c)
    valid = [{"containerID": f"container-{keep}", "ifname": "eth0"}]
    for configuration in (pair, single):
        assert node.call("GC", {**configuration, "cni.dev/valid-attachments": valid}).ok
    assert judge.link("nk0", keep) is not None
    assert judge.link("eth0", keep) is not None
    assert judge.link("nk0", drop) is None
    assert judge.link("eth0", drop) is None
    assert set(judge.leases(nic)) == {7}
