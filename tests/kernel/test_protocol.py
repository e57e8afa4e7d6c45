"""The specification's rules, on a node: versions, namespaces, IPAM by delegation, arguments."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from cni_netkit.spec.version import SUPPORTED
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node, executable

VERSIONS = pytest.mark.parametrize("version", SUPPORTED)


@VERSIONS
def test_add_and_del_in_every_version(node: Node, conf: Conf, version: str) -> None:
    """The result is in the version of the request; DEL of something never configured works."""
    c = node.container()
    configuration = conf(cniVersion=version)
    assert node.call("DEL", configuration, c).ok
    result = node.add(configuration, c)
    assert result["cniVersion"] == version
    if version in ("0.1.0", "0.2.0"):
        assert result["ip4"]["ip"] == "10.1.0.2/24"
    else:
        assert result["ips"][0]["address"] == "10.1.0.2/24"
        assert ("version" in result["ips"][0]) == (version < "1.0.0")
        assert ("mtu" in result["interfaces"][0]) == (version == "1.1.0")
    assert judge.pings("10.1.0.2")
    if version >= "0.4.0":
        assert node.check(configuration, c, result).ok
    assert node.call("DEL", {**configuration, "prevResult": result}, c).ok


@pytest.mark.parametrize(
    ("verb", "version"),
    [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("STATUS", "0.4.0")],
)
def test_verbs_that_a_version_does_not_have(
    node: Node, conf: Conf, verb: str, version: str
) -> None:
    """Error 1."""
    assert node.call(verb, conf(cniVersion=version), node.container()).error["code"] == 1


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_namespace_of_the_plugin_itself(node: Node, conf: Conf, verb: str) -> None:
    """Error 8 before anything is touched."""
    before = judge.world()
    error = node.call(verb, {**conf(), "prevResult": {}}, "/proc/self/ns/net", cid="c1").error
    assert error["code"] == 8
    assert judge.world() == before


def test_container_that_is_gone(node: Node, conf: Conf) -> None:
    """Error 3 tells the runtime that there is nothing to clean up."""
    before = judge.world()
    assert node.call("ADD", conf(), "/run/netns/gone", cid="c1").error["code"] == 3
    assert not Path("/run/netns/gone").exists()
    assert judge.world() == before


def test_dual_stack_address_answers_at_once(node: Node, conf: Conf, dual_stack: JSON) -> None:
    """No address is tentative, and the first echo request is answered."""
    c = node.container()
    node.add(conf(ipam=dual_stack), c)
    (found,) = judge.ip("addr", "show", "dev", "eth0", netns=c)
    assert not any("tentative" in each for each in found["addr_info"])
    assert judge.pings("fd00:1::2")


def test_gateway_and_routes_of_ipam(node: Node, conf: Conf) -> None:
    """gw, mtu, priority, table of a route arrive in the container."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}]],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1200, "priority": 50},
            {"dst": "198.51.100.0/24", "table": 1000, "advmss": 900},
        ],
    }
    c = node.container()
    result = node.add(conf(ipam=ipam), c)
    main = judge.routes(c)
    assert main["default"]["gateway"] == "10.1.0.254"
    assert main["192.0.2.0/24"]["gateway"] == "10.1.0.9"
    assert main["192.0.2.0/24"]["metric"] == 50
    assert main["192.0.2.0/24"]["metrics"] == [{"mtu": 1200}]
    (other,) = judge.ip("route", "show", "table", "1000", netns=c)
    assert other["dst"] == "198.51.100.0/24"
    assert other["metrics"] == [{"advmss": 900}]
    assert judge.pings("10.1.0.254", c)
    assert node.check(conf(ipam=ipam), c, result).ok


@pytest.mark.parametrize("mode", ["l3", "l2"])
def test_without_a_gateway_routes_go_straight_to_the_device(
    node: Node, conf: Conf, mode: str
) -> None:
    """A static address without gateway: the default route is a device route."""
    ipam = {
        "type": "static",
        "addresses": [{"address": "10.1.0.2/32"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    judge.run("ip", "addr", "add", "198.51.100.1/32", "dev", "lo")
    c = node.container()
    result = node.add(conf(ipam=ipam, mode=mode), c)
    route = judge.routes(c)["default"]
    assert "gateway" not in route
    assert route["dev"] == "eth0"
    assert judge.pings("10.1.0.2")
    assert node.check(conf(ipam=ipam, mode=mode), c, result).ok


@pytest.mark.parametrize("mode", ["l3", "l2"])
def test_gateway_outside_the_subnet(node: Node, conf: Conf, mode: str) -> None:
    """A /32 with a link-local gateway, as Calico does it."""
    ipam = {
        "type": "static",
        "addresses": [{"address": "10.1.0.2/32", "gateway": "169.254.1.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    c = node.container()
    result = node.add(conf(ipam=ipam, mode=mode), c)
    assert judge.routes(c)["default"]["gateway"] == "169.254.1.1"
    assert judge.pings("169.254.1.1", c)
    assert node.check(conf(ipam=ipam, mode=mode), c, result).ok


def test_address_and_mac_that_podman_asks_for(node: Node, conf: Conf) -> None:
    """IP= and MAC= of CNI_ARGS."""
    c = node.container()
    args = "IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.1.0.77;MAC=02:00:00:00:00:77"
    node.add(conf(mode="l2"), c, args=args)
    assert judge.addresses("eth0", c) == {"10.1.0.77/24"}
    assert judge.link("eth0", c)["address"] == "02:00:00:00:00:77"


def test_capabilities(node: Node, conf: Conf) -> None:
    """mac, ips and dns of runtimeConfig."""
    c = node.container()
    result = node.add(
        conf(
            mode="l2",
            capabilities={"mac": True, "ips": True, "dns": True},
            runtimeConfig={
                "mac": "02:00:00:00:00:78",
                "ips": ["10.1.0.78/24"],
                "dns": {"Servers": ["10.96.0.10"], "Searches": None, "Options": None},
            },
        ),
        c,
    )
    assert judge.addresses("eth0", c) == {"10.1.0.78/24"}
    assert judge.link("eth0", c)["address"] == "02:00:00:00:00:78"
    assert result["dns"] == {"nameservers": ["10.96.0.10"]}


def test_configured_dns_goes_before_ipams(node: Node, conf: Conf) -> None:
    """dns of the configuration overrides; without it IPAM's stays."""
    ipam = {
        "type": "static",
        "addresses": [{"address": "10.1.0.2/24"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    one, two = node.container(), node.container()
    assert node.add(conf(ipam=ipam), one)["dns"] == {"nameservers": ["192.0.2.53"]}
    assert node.call("DEL", conf(ipam=ipam), one).ok
    own = {"nameservers": ["198.51.100.53"], "search": ["example.org"]}
    assert node.add(conf(ipam=ipam, dns=own), two)["dns"] == own


def test_several_networks_in_one_container(node: Node, conf: Conf) -> None:
    """Two attachments live side by side, and go one by one."""
    c = node.container()
    node.add(conf(), c)
    second = conf(
        name="second",
        ipam={"type": "host-local", "subnet": "10.2.0.0/24", "routes": []},
    )
    node.add(second, c, ifname="net1")
    assert judge.pings("10.1.0.2")
    assert judge.pings("10.2.0.2")
    assert node.call("DEL", conf(), c).ok
    assert judge.pings("10.2.0.2")
    assert node.call("DEL", second, c, ifname="net1").ok
    assert judge.link("net1", c) is None


def test_automatic_mtu_is_that_of_the_default_route(node: Node, conf: Conf) -> None:
    """mtu 0 takes the MTU of the device that the default route uses, else 1500."""
    c = node.container()
    node.add(conf(), c)
    assert judge.link("eth0", c)["mtu"] == 1500
    assert node.call("DEL", conf(), c).ok
    for arguments in (
        ("link", "add", "up0", "mtu", "1280", "type", "dummy"),
        ("link", "set", "up0", "up"),
        ("addr", "add", "192.0.2.1/24", "dev", "up0"),
        ("route", "add", "default", "via", "192.0.2.254"),
    ):
        judge.run("ip", *arguments)
    node.add(conf(), c)
    assert judge.link("eth0", c)["mtu"] == 1280


def test_delegated_ipam(node: Node, conf: Conf, tmp_path: Path) -> None:
    """Another IPAM is executed from CNI_PATH; after a failure later on its DEL is called."""
    log = tmp_path / "log"
    plugin = tmp_path / "my-ipam"
    answer = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]}
    plugin.write_text(
        f"#!/bin/sh\necho $CNI_COMMAND >> {log}\ncat > /dev/null\n"
        f"[ $CNI_COMMAND = ADD ] && echo '{json.dumps(answer)}'\nexit 0\n"
    )
    plugin.chmod(0o755)
    c = node.container()
    before = judge.world(c)
    configuration = conf(ipam={"type": "my-ipam"})
    result = node.add(configuration, c, path=str(tmp_path))
    assert judge.pings("10.9.0.5")
    assert node.check(configuration, c, result, path=str(tmp_path)).ok
    assert node.call("DEL", configuration, c, path=str(tmp_path)).ok
    assert log.read_text().split() == ["ADD", "CHECK", "DEL"]
    assert judge.world(c) == before
    log.unlink()
    judge.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    judge.run("ip", "route", "add", "blackhole", "10.9.0.5/32")
    assert node.call("ADD", configuration, c, path=str(tmp_path)).error["code"] == 103
    assert log.read_text().split() == ["ADD", "DEL"]


@pytest.mark.once
def test_executable_is_quiet_but_for_the_result(node: Node, conf: Conf) -> None:
    """One JSON document on standard output, exit status 0; an error the same with status 1."""
    c = node.container()
    for expected in (0, 1):
        done = subprocess.run(
            executable(),
            input=json.dumps(conf()).encode(),
            env={
                **os.environ,
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": f"container-{c}",
                "CNI_NETNS": f"/run/netns/{c}",
                "CNI_IFNAME": "eth0",
                "CNI_PATH": "/opt/cni/bin",
            },
            capture_output=True,
        )
        assert done.returncode == expected
        document = json.loads(done.stdout)
        assert ("code" in document) == bool(expected)
    assert judge.pings("10.1.0.2")


def test_status_of_a_ready_node(node: Node, conf: Conf) -> None:
    """Nothing is wrong: no answer, nothing left behind."""
    nic = node.nic()
    before = judge.world()
    for keys in ({}, {"pairing": "single", "ipam": None}, {"lease": {"device": nic}}):
        assert node.call("STATUS", conf(**keys)).ok
    assert judge.world() == before


def test_status_of_a_missing_nic(node: Node, conf: Conf) -> None:
    """Error 50 names it."""
    error = node.call("STATUS", conf(lease={"device": "mlx9"})).error
    assert error["code"] == 50
    assert "mlx9" in error["msg"]


def test_status_asks_ipam(node: Node, conf: Conf) -> None:
    """A failing STATUS of a delegated IPAM is ours."""
    error = node.call("STATUS", conf(ipam={"type": "no-such-ipam"})).error
    assert error["code"] in (7, 50)
    assert "no-such-ipam" in error["msg"]
