"""The executable, called by cnitool (libcni 1.3.0) with the example configurations.

cnitool passes the whole environment on, so the plugin in CNI_PATH is a link to the entry point of
the environment that the tests run in. For examples with leases it is the launcher of an agent in
this process, whose NIC has rules for flows.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_netkit.spec.annotations import CAPABILITY
from tests.ethtool.fake import FakeNic
from tests.kernel import judge
from tests.kernel.chain import PLUGINS
from tests.kernel.cnitool import CNITOOL, NO_CNITOOL, Cnitool
from tests.kernel.conftest import JSON, Node, own_agent

CONF = Path(__file__).parents[2] / "conf"
EXAMPLES = sorted([*CONF.glob("*.conflist"), *CONF.glob("kubernetes/**/*.conflist")])
"""Those in conf/meta are for other programs, see test_meta.py."""

pytestmark = [pytest.mark.once, pytest.mark.skipif(not CNITOOL, reason=NO_CNITOOL)]


@pytest.fixture
def cnitool(tmp_path: Path) -> Cnitool:
    """cnitool; its cache lies under /var/lib/cni, which is this test's own."""
    return Cnitool(tmp_path)


@pytest.fixture
def with_nic(
    node: Node, cnitool: Cnitool, fake_nic: Callable[..., FakeNic], launcher: Path
) -> Iterator[Callable[[JSON], JSON]]:
    """Name a NIC of the lab where an example names eth0, and give it rules for flows.

    Skips what other plugins are missing for.
    """
    with ExitStack() as stack:

        def exchange(conflist: JSON) -> JSON:
            missing = [kind for kind in others(conflist) if not (PLUGINS / kind).is_file()]
            if missing:
                names = ", ".join(missing)
                pytest.skip(f"CNI_NETKIT_REFERENCE_PLUGINS: there is no {names} in {PLUGINS}")
            leasing = [plugin for plugin in conflist["plugins"] if "lease" in plugin]
            if leasing:
                nic = node.nic()
                fake_nic(nic)
                cnitool.calls(launcher, stack.enter_context(own_agent()))
            for plugin in leasing:
                plugin["lease"]["device"] = nic
                if role := plugin["lease"].get("workload"):
                    node.prepare(nic, role, "4-7")
            return conflist

        yield exchange


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_does_every_verb(
    node: Node, cnitool: Cnitool, with_nic: Callable[[JSON], JSON], example: Path
) -> None:
    """status, add, check, del, again add, gc: the world is as before."""
    conflist = with_nic(json.loads(example.read_text()))
    # STATUS and GC are of 1.1.0; the examples ask for less where runtimes in use know less.
    conflist["cniVersion"] = "1.1.0"
    network = cnitool.configure(conflist)
    c = node.container()
    if others(conflist):  # What other plugins make once and leave: a bridge, tables.
        cnitool("add", network, c)
        cnitool("del", network, c)
    before = without_cache(judge.world(c))
    assert cnitool("status", network, c) == ""
    result = json.loads(cnitool("add", network, c))
    assert result["cniVersion"] == "1.1.0"
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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
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


def others(conflist: JSON) -> list[str]:
    """The plugins of a list that are not ours."""
    return [plugin["type"] for plugin in conflist["plugins"] if plugin["type"] != "netkit"]


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


def without_cache(world: JSON) -> JSON:
    """cnitool keeps what it was answered under /var/lib/cni/results."""
    world["files"] = {
        name: content for name, content in world["files"].items() if "/results/" not in name
    }
    return world
