"""Programs that call us with configurations of their own making: flannel, Multus, kube-router.

Of these only an old flannel plugin can be had here (tests/lab/fetch flannel). The others' requests
are written here as their sources say that they write them; each test says which.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import judge
from tests.kernel.chain import Chain, needs_plugins
from tests.kernel.conftest import JSON, Conf, Node

EXAMPLES = Path(__file__).parents[2] / "conf" / "meta"
FLANNEL = Path(os.environ.get("CNI_NETKIT_FLANNEL", "/nonexistent"))
ROOT = Path(__file__).parents[2]


def example(name: str) -> Any:
    """A configuration of conf/meta."""
    return json.loads((EXAMPLES / name).read_text())


# --- flannel ------------------------------------------------------------------------------------

SUBNET = {
    "FLANNEL_NETWORK": "10.244.0.0/16",
    "FLANNEL_SUBNET": "10.244.1.1/24",
    "FLANNEL_MTU": "1450",
    "FLANNEL_IPMASQ": "true",
}


def as_flannel_0_9_writes(conflist: JSON) -> JSON:
    """What flannel 0.9.0 handed to a plugin that noted its input; DEL gets the same, to the letter."""
    plugin = conflist["plugins"][0]
    return {
        **plugin["delegate"],
        "cniVersion": conflist["cniVersion"],
        "name": conflist["name"],
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "subnet": "10.244.1.0/24",
            "routes": [*plugin["ipam"]["routes"], {"dst": "10.244.0.0/16"}],
        },
    }


def as_flannel_1_writes(conflist: JSON) -> JSON:
    """The same, but ranges and both families: getDelegateIPAM() of flannel-io/cni-plugin 1.x."""
    written = as_flannel_0_9_writes(conflist)
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "10.244.0.0/16"}, {"dst": "fd00:244::/56"}]
    ranges = [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:1::/64"}]]
    return {**written, "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}}


@pytest.mark.parametrize("written", [as_flannel_0_9_writes, as_flannel_1_writes])
def test_delegate_as_flannel_writes_it(node: Node, written: Any) -> None:
    """Requests written here: the pod is on the node's subnet; DEL comes without prevResult."""
    c = node.container()
    before = judge.world(c)
    conf = written(example("flannel.conflist"))
    result = node.add(conf, c)
    assert result["cniVersion"] == "0.3.1"
    assert judge.link("eth0", c)["mtu"] == 1450
    assert {"default", "10.244.0.0/16", "10.244.1.0/24"} <= set(judge.routes(c))
    for each in result["ips"]:
        assert judge.pings(each["address"].split("/")[0])
    assert judge.pings("10.244.1.1", c)
    # flannel saved what it wrote: it asks again with that, whatever became of the namespace.
    for netns in (c, ""):
        assert node.call("DEL", conf, netns, cid=f"container-{c}").ok
    assert judge.world(c) == before


def test_a_delegate_that_was_a_bridge(node: Node) -> None:
    """Keys of kube-flannel's own ConfigMap that mean nothing here, and where the route goes."""
    conflist = example("flannel.conflist")
    conflist["plugins"][0]["delegate"] |= {"hairpinMode": True, "isDefaultGateway": True}
    error = node.call("ADD", as_flannel_0_9_writes(conflist), node.container()).error
    assert error["code"] == 2
    assert "hairpinMode, isDefaultGateway" in error["msg"]
    assert "ipam.routes" in error["details"]


if FLANNEL.is_file():
    # No skipping where it is not: what it writes is tested above in any case.
    @needs_plugins
    @pytest.mark.once
    def test_flannel_itself(node: Node, tmp_path: Path) -> None:
        """flannel's plugin 0.9 with the example as it is: ADD, a connection, DEL and DEL again."""
        netkit, note = tmp_path / "netkit", tmp_path / "note"
        netkit.write_text(
            f"#!/bin/sh\n{{ cat; echo; }} | tee -a {note} | {sys.executable} -m cni_netkit\n"
        )
        netkit.chmod(0o755)
        subnet = tmp_path / "subnet.env"
        subnet.write_text("".join(f"{name}={value}\n" for name, value in SUBNET.items()))
        conflist = example("flannel.conflist")
        own = {"subnetFile": str(subnet), "dataDir": str(tmp_path / "flannel")}
        conflist["plugins"][0] |= own
        conflist["plugins"][1]["backend"] = "nftables"
        mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
        listed = Chain(
            node,
            conflist,
            {"portMappings": [mapping]},
            environment={"CNI_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
            programs={"flannel": FLANNEL},
        )
        c = node.container()
        result = listed.add(c)
        assert result["interfaces"][1]["name"] == "eth0"
        assert judge.netkit("eth0", c)["mode"] == "l3"
        assert judge.connects("", "10.244.1.1", 8080, c, 80)
        listed.delete(c)
        assert judge.link("eth0", c) is None
        listed.delete(c)
        written = as_flannel_0_9_writes(example("flannel.conflist"))
        assert [json.loads(line) for line in note.read_text().splitlines()] == [written, written]


# --- Multus -------------------------------------------------------------------------------------

POD = (
    "IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;"
    "K8S_POD_INFRA_CONTAINER_ID=4f5e;K8S_POD_UID=8c1d-22"
)


def as_multus_writes(conf: JSON, capabilities: JSON, device: str = "") -> JSON:
    """The configuration of a network, as it reaches the plugin.

    libcni adds runtimeConfig for what is declared (newCNIRuntimeConf() of multus-cni,
    pkg/types/conf.go); delegateAddDeviceID() writes deviceID and pciBusID beside our keys, for a
    network with a resource.
    """
    asked = {name: capabilities[name] for name in conf.get("capabilities", {})}
    more: JSON = {"runtimeConfig": asked} if asked else {}
    return {**conf, **more, **({"deviceID": device, "pciBusID": device} if device else {})}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_networks_of_a_pod_as_multus_asks_for_them(node: Node, conf: Conf, version: str) -> None:
    """Requests written here: eth0, net1 and net2 of one container, on three networks."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    device = f"netdevsim{node.nics[-1]}"
    file = f"/var/run/k8s.cni.cncf.io/devinfo/cni/default-leased-queue-{c}_net2"
    storage = {"type": "host-local", "subnet": "10.2.0.0/24"}
    networks = {
        "eth0": conf(name="default", cniVersion=version),
        "net1": as_multus_writes(
            conf(
                name="storage",
                cniVersion=version,
                mode="l2",
                capabilities={"mac": True, "ips": True},
                args={"cni": {"unknown": "left alone"}},
                ipam=storage,
            ),
            {"mac": "02:00:00:00:00:42", "ips": ["10.2.0.77/24"]},
        ),
        "net2": as_multus_writes(
            {
                **example("multus-leased-queue.conf"),
                "cniVersion": version,
                "capabilities": {"CNIDeviceInfoFile": True},
            },
            {"CNIDeviceInfoFile": file},
            device,
        ),
    }
    for ifname, network in networks.items():
        result = node.add(network, c, ifname=ifname, args=POD)
        assert result["cniVersion"] == version
        # Multus reports the interfaces that are in the pod, and their addresses.
        (inside,) = (each for each in result["interfaces"] if each.get("sandbox"))
        assert inside["name"] == ifname
        if version != "0.3.1":
            assert node.check(network, c, result, ifname=ifname, args=POD).ok
    assert judge.link("net1", c)["address"] == "02:00:00:00:00:42"
    assert judge.addresses("net1", c) == {"10.2.0.77/24"}
    for address in ("10.1.0.2", "10.2.0.77"):
        assert judge.pings(address)
    assert judge.leases(nic) == {7: (judge.link("net2", c)["ifindex"], 1)}
    assert judge.routes(c)["default"]["dev"] == "eth0"
    assert node.call("DEL", networks["net1"], c, ifname="net1", args=POD).ok
    assert judge.pings("10.1.0.2"), "the other networks are not touched"
    assert set(judge.leases(nic)) == {7}
    for ifname in ("net2", "eth0"):
        assert node.call("DEL", networks[ifname], c, ifname=ifname, args=POD).ok
    assert judge.world(c) == before


def test_two_attachments_to_one_network_as_multus_asks_for_them(node: Node, conf: Conf) -> None:
    """Requests written here: the same network twice in a pod, each with an address of its own."""
    c = node.container()
    before = judge.world(c)
    network = conf(ipam={"type": "host-local", "subnet": "10.2.0.0/24"})
    for ifname in ("net1", "net2"):
        node.add(network, c, ifname=ifname, args=POD)
    assert judge.addresses("net1", c) == {"10.2.0.2/24"}
    assert judge.addresses("net2", c) == {"10.2.0.3/24"}
    assert node.call("DEL", network, c, ifname="net1").ok
    assert judge.addresses("net2", c) == {"10.2.0.3/24"}
    assert node.call("DEL", network, c, ifname="net2").ok
    assert judge.world(c) == before


# --- kube-router --------------------------------------------------------------------------------


def as_kube_router_writes(conf: JSON, *subnets: str, mtu: int = 0) -> JSON:
    """What becomes of the file: a range set each for the node's subnets, and the MTU if asked.

    InsertPodCIDRIntoIPAM() and SetMTU() of cloudnativelabs/kube-router, pkg/utils/cni.go; all else
    stays as it was.
    """
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    return {**conf, "ipam": {**conf["ipam"], "ranges": ranges}, **({"mtu": mtu} if mtu else {})}


def as_old_kube_router_writes(conf: JSON, subnet: str) -> JSON:
    """Before it knew dual stack: one subnet in the old form of host-local."""
    return {**conf, "ipam": {**conf["ipam"], "subnet": subnet}}


def test_file_as_kube_router_writes_it(node: Node) -> None:
    """Requests written here: both families, the MTU, DEL."""
    one, two = node.container(), node.container()
    before = judge.world(one, two)
    conf = as_kube_router_writes(
        example("kube-router.conf"), "10.3.1.0/24", "fd00:3:1::/64", mtu=1480
    )
    for c in (one, two):
        result = node.add(conf, c)
        assert node.check(conf, c, result).ok
        assert judge.link("eth0", c)["mtu"] == 1480
    for address in ("10.3.1.3", "fd00:3:1::3"):
        assert judge.pings(address, one)
    for family in ("-4", "-6"):
        assert judge.routes(one, family)["default"]["dev"] == "eth0"
    for c in (one, two):
        assert node.call("DEL", conf, c).ok
    assert judge.world(one, two) == before


def test_file_as_old_kube_router_writes_it(node: Node) -> None:
    """Requests written here: ipam.subnet, of one family, though there are routes for both."""
    c = node.container()
    before = judge.world(c)
    conf = as_old_kube_router_writes(example("kube-router.conf"), "10.3.1.0/24")
    result = node.add(conf, c)
    assert judge.addresses("eth0", c) == {"10.3.1.2/24"}
    assert judge.pings("10.3.1.2")
    assert node.check(conf, c, result).ok
    assert node.call("DEL", conf, c).ok
    assert judge.world(c) == before


def test_file_that_kube_router_has_not_filled_in(node: Node) -> None:
    """Requests written here: until the node has a subnet, an ADD says what is missing."""
    c = node.container()
    before = judge.world(c)
    error = node.call("ADD", example("kube-router.conf"), c).error
    assert error["code"] == 7
    assert "no IP ranges" in error["msg"]
    assert judge.world(c) == before


def test_file_that_was_kube_routers_bridge(node: Node) -> None:
    """Its own example with another type: every key of a bridge is named, and what to do."""
    conf = {
        "cniVersion": "0.3.0",
        "name": "mynet",
        "type": "netkit",
        "bridge": "kube-bridge",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "subnet": "10.3.1.0/24"},
    }
    error = node.call("ADD", conf, node.container()).error
    assert error["code"] == 2
    assert "bridge, isDefaultGateway, hairpinMode" in error["msg"]
    assert "ipam.routes" in error["details"]
