"""The executable, called by cnitool (libcni 1.3.0) with the example configurations.

cnitool passes the whole environment on, so the plugin in CNI_PATH is a link to the entry point of
the environment that the tests run in. For examples with leases it is the launcher of an agent in
this process, whose NIC has rules for flows.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_netkit.spec.annotations import CAPABILITY
from tests.kernel import judge
from tests.kernel.cnitool import CNITOOL, NO_CNITOOL, Cnitool
from tests.kernel.conftest import JSON, Node
from tests.kernel.examples import EXAMPLES, others, without_cache

pytestmark = [pytest.mark.once, pytest.mark.skipif(not CNITOOL, reason=NO_CNITOOL)]

NEWEST = "1.1.0"
OLDER = [each for each in EXAMPLES if json.loads(each.read_text())["cniVersion"] != NEWEST]
"""Whose own version is another one than that in which every example does every verb."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_does_every_verb(
    node: Node, cnitool: Cnitool, with_nic: Callable[[JSON], JSON], example: Path
) -> None:
    """status, add, check, del, again add, gc: the world is as before."""
    conflist = with_nic(json.loads(example.read_text()))
    # STATUS and GC are of 1.1.0; the examples ask for less where runtimes in use know less.
    conflist["cniVersion"] = NEWEST
    network = cnitool.configure(conflist)
    c = node.container()
    if others(conflist):  # What other plugins make once and leave: a bridge, tables.
        cnitool("add", network, c)
        cnitool("del", network, c)
    before = without_cache(judge.world(c))
    assert cnitool("status", network, c) == ""
    result = json.loads(cnitool("add", network, c))
    assert result["cniVersion"] == NEWEST
    inside = [each for each in result["interfaces"] if each.get("sandbox")]
    kinds = [judge.link(each["name"], c)["linkinfo"]["info_kind"] for each in inside]
    ours = [plugin for plugin in conflist["plugins"] if plugin["type"] == "netkit"]
    assert kinds[-len(ours) :] == ["netkit"] * len(ours)
    if inside[0]["name"] == "eth0" and len(result["interfaces"]) > 1:
        for each in result["ips"]:
            assert judge.pings(each["address"].split("/")[0])
    cnitool("check", network, c)
    cnitool("del", network, c)
    assert without_cache(judge.world(c)) == before
    cnitool("add", network, c)
    # libcni sends DEL for what it knows, then GC.
    cnitool("gc", network, c)
    assert without_cache(judge.world(c)) == before


@pytest.mark.parametrize("example", OLDER, ids=lambda path: path.stem)
def test_every_example_in_its_own_version(
    node: Node, cnitool: Cnitool, with_nic: Callable[[JSON], JSON], example: Path
) -> None:
    """add, check and del with the file as it is, apart from the NIC's name."""
    conflist = with_nic(json.loads(example.read_text()))
    network = cnitool.configure(conflist)
    c = node.container()
    result = json.loads(cnitool("add", network, c))
    assert result["cniVersion"] == conflist["cniVersion"]
    cnitool("check", network, c)
    cnitool("del", network, c)
    assert judge.link("eth0", c) is None


def test_the_example_with_bandwidth(node: Node, cnitool: Cnitool) -> None:
    """What the runtime says arrives: both directions are shaped, and not after DEL."""
    (example,) = [path for path in EXAMPLES if "bandwidth" in path.name]
    network = cnitool.configure(json.loads(example.read_text()))
    c = node.container()
    before = without_cache(judge.world(c))
    rates = {"ingressRate": 8_000_000, "egressRate": 16_000_000}
    limits = {**rates, "ingressBurst": 4294967295, "egressBurst": 4294967295}
    host = json.loads(cnitool("add", network, c, bandwidth=limits))["interfaces"][0]["name"]
    assert judge.qdisc(host, "tbf")["options"]["rate"] == 1_000_000
    assert judge.qdisc(host.replace("nk", "nb"), "tbf")["options"]["rate"] == 2_000_000
    cnitool("check", network, c, bandwidth=limits)
    cnitool("del", network, c, bandwidth=limits)
    assert without_cache(judge.world(c)) == before


def test_the_example_with_pod_annotations(node: Node, cnitool: Cnitool) -> None:
    """What the pod asks for arrives through libcni, in CHECK and DEL, too."""
    (example,) = [path for path in EXAMPLES if "annotations" in path.name]
    network = cnitool.configure(json.loads(example.read_text()))
    c = node.container()
    before = without_cache(judge.world(c))
    asked = {CAPABILITY: {"cni-netkit/mode": "l2", "cni-netkit/mtu": "1400", "other/mode": "l4"}}
    cnitool("add", network, c, **asked)
    device = judge.link("eth0", c)
    assert device["linkinfo"]["info_data"]["mode"] == "l2"
    assert device["mtu"] == 1400
    cnitool("check", network, c, **asked)
    cnitool("del", network, c, **asked)
    assert without_cache(judge.world(c)) == before
