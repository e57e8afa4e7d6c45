"""The command cni-netkit on a node: what it says is what the judges see."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import judge
from tests.kernel.conftest import Command, Conf, Node

CONF = Path(__file__).parents[2] / "conf"
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till-0"


@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_leases(node: Node, conf: Conf, cni_netkit: Command, pairing: str) -> None:
    """Each leased queue with its device and its pod; after DEL all are free."""
    nic, c = node.nic(), node.container()
    configuration = conf(pairing=pairing, lease={"device": nic, "count": 2})
    node.add(configuration, c, args=POD)
    taken = judge.leases(nic)
    assert len(taken) == 2
    (found,) = cni_netkit.json("leases")["nics"]
    assert (found["name"], found["index"]) == (nic, judge.link(nic)["ifindex"])
    assert [queue["number"] for queue in found["queues"]] == list(range(8))
    leased = {each["number"]: each["lease"] for each in found["queues"] if each["lease"]}
    assert {
        number: (lease["deviceIndex"], lease["deviceQueue"]) for number, lease in leased.items()
    } == taken
    ids = {each["nsid"] for each in judge.ip("netns", "list-id") if each.get("name") == c}
    assert {lease["netnsID"] for lease in leased.values()} == ids
    for lease in leased.values():
        assert lease["attachment"] == {
            "network": "net",
            "containerID": f"container-{c}",
            "ifname": "eth0",
            "podNamespace": "shop",
            "podName": "till-0",
        }
    assert cni_netkit("leases").count("shop/till-0") == 2
    assert node.call("DEL", configuration, c).ok
    (found,) = cni_netkit.json("leases")["nics"]
    assert {queue["state"] for queue in found["queues"]} == {"free"}


def test_leases_of_others_and_of_nics_that_are_down(
    node: Node, conf: Conf, cni_netkit: Command
) -> None:
    """Without record the device's index is told; a NIC that is down has no queues to show."""
    nic, down, c = node.nic(), node.nic(up=False), node.container()
    node.add(conf(lease={"device": nic}), c)
    (record,) = Path("/var/lib/cni/netkit").rglob("*.json")
    record.unlink()
    seen = {each["name"]: each for each in cni_netkit.json("leases")["nics"]}
    assert set(seen) == {nic, down}
    lease = seen[nic]["queues"][7]["lease"]
    assert (lease["deviceIndex"], lease["attachment"]) == (judge.link("eth0", c)["ifindex"], None)
    assert (seen[down]["up"], seen[down]["queues"]) == (False, [])


def test_list(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """What was attached, under the names that the kernel has."""
    nic, c = node.nic(), node.container()
    configuration = conf(lease={"device": nic})
    node.add(configuration, c, args=POD)
    (found,) = cni_netkit.json("list")["attachments"]
    assert judge.link(found["hostDevice"])["linkinfo"]["info_kind"] == found["kind"] == "netkit"
    assert judge.addresses(found["ifname"], c) == set(found["addresses"])
    assert found["leases"] == [{"nic": nic, "queue": 7, "deviceQueue": 1}]
    assert (found["netns"], found["state"]) == (f"/run/netns/{c}", "complete")
    assert node.call("DEL", configuration, c).ok
    assert cni_netkit.json("list") == {"attachments": []}


def verdicts(report: Any) -> dict[str, Any]:
    """By what they are about."""
    return {each["about"]: each for each in report["verdicts"]}


def test_doctor_of_a_node_that_leases(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """Features, the NIC with its driver and counts, and a yes for each use."""
    nic = node.nic()
    node.add(conf(lease={"device": nic, "count": 2}), node.container())
    before = judge.world()
    report = cni_netkit.json("doctor")
    assert judge.world() == before
    assert all(each["present"] for each in report["kernel"]["features"])
    (found,) = report["nics"]
    driver = Path(f"/sys/class/net/{nic}/device/driver").resolve().name
    assert (found["name"], found["driver"], found["up"]) == (nic, driver, True)
    assert found["mtu"] == judge.link(nic)["mtu"]
    leased = len(judge.leases(nic))
    assert (found["rxQueues"], found["leased"], found["free"]) == (8, leased, 8 - leased)
    given = verdicts(report)
    assert all(given[each]["ok"] for each in ("pair (l3, l2)", "single", f"queues of {nic}"))


def test_doctor_tells_the_command_that_helps(node: Node, cni_netkit: Command) -> None:
    """A NIC that is down: after the command was typed, the verdict is yes."""
    nic = node.nic(up=False)
    said = verdicts(cni_netkit.json("doctor"))[f"queues of {nic}"]
    assert not said["ok"]
    judge.run(*said["command"].split())
    assert verdicts(cni_netkit.json("doctor"))[f"queues of {nic}"]["ok"]


def test_doctor_knows_a_nic_without_queue_management(node: Node, cni_netkit: Command) -> None:
    """A virtual function: the kernel's own words are told, and the node is well all the same."""
    nic = node.virtual_function()
    report = cni_netkit.json("doctor")
    refusals = {each["name"]: each["refusal"] for each in report["nics"]}
    assert "does not support queue management" in refusals.pop(nic)
    assert set(refusals.values()) <= {None}
    assert "queue management" in verdicts(report)[f"queues of {nic}"]["remedy"]


def test_doctor_of_a_conflist(node: Node, conf: Conf, cni_netkit: Command, tmp_path: Path) -> None:
    """Exit status 1 if one of its netkit plugins would not work, 0 once its NIC is there."""
    path = tmp_path / "10.conflist"
    plugins: list[Any] = [conf(ipMasq=True), {"type": "portmap"}, conf(lease={"device": "eth9"})]
    path.write_text(json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": plugins}))
    given = verdicts(cni_netkit.json("doctor", str(path), status=1))
    assert given[f"{path}: plugin 0"]["ok"]
    assert "there is no device eth9" in given[f"{path}: plugin 2"]["reason"]
    first, _, why, *_ = cni_netkit("doctor", str(path), status=1).splitlines()
    assert first == f"{path}: does not work here"
    assert why.startswith("plugin 2: lease.device: there is no device eth9")
    judge.run("ip", "link", "set", node.nic(up=False), "name", "eth9", "up")
    assert cni_netkit.json("doctor", str(path))["ok"]
    assert cni_netkit("doctor", str(path)).splitlines()[0] == f"{path}: works here"


@pytest.mark.without_netkit
def test_doctor_without_netkit(node: Node, cni_netkit: Command) -> None:
    """Exit status 1, and what to do; a configuration that falls back to veth works all the same."""
    report = cni_netkit.json("doctor", status=1)
    said = verdicts(report)["pair (l3, l2)"]
    assert (report["ok"], said["ok"], said["needed"]) == (False, False, True)
    assert "CONFIG_NETKIT" in said["reason"]
    assert 'set fallback to "veth"' in said["remedy"]
    present = {each["name"] for each in report["kernel"]["features"] if each["present"]}
    assert present <= {"xsk-diag"}  # which is older than netkit
    assert cni_netkit.json("doctor", f"{CONF}/40-veth-fallback.conflist")["ok"]
    assert not cni_netkit.json("doctor", f"{CONF}/10-l3-pair.conflist", status=1)["ok"]
    text = cni_netkit("doctor", status=1)
    assert "CONFIG_NETKIT" in text
    assert text.count('set fallback to "veth"') == 1
    assert text.count("run Linux 7.1 or later, built with CONFIG_NETKIT=y") == 1


@pytest.mark.any_kernel
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "is no network configuration"),
        ("[]", "is no network configuration"),
        ('{"plugins": [{"type": "bridge"}]}', "has no plugin of type netkit"),
        ('{"name": "n", "type": "netkit", "mtuu": 1}', "mtuu"),
        ('{"name": "n", "cniVersion": "9.0.0", "type": "netkit"}', "9.0.0"),
    ],
)
def test_doctor_of_what_is_no_configuration(
    node: Node, cni_netkit: Command, tmp_path: Path, content: str | None, words: str
) -> None:
    """Exit status 1 with the fault, on whatever kernel."""
    path = tmp_path / "10.conflist"
    if content is not None:
        path.write_text(content)
    report = cni_netkit.json("doctor", str(path), status=1)
    (said,) = (each for each in report["verdicts"] if each["needed"])
    assert words in said["reason"]


def test_a_nic_that_a_newer_release_prepared(node: Node, cni_netkit: Command) -> None:
    """Doctor goes on without it, and says so."""
    nic = node.nic()
    node.prepare(nic, "io_uring", "4-7")
    path = Path(f"/var/lib/cni/netkit/nics/{nic}.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format": 1000}))
    found = cni_netkit.json("doctor")
    (verdict,) = [each for each in found["verdicts"] if each["about"] == f"preparation of {nic}"]
    assert not verdict["ok"]
    assert f"{nic} was prepared by a newer release" in verdict["reason"]
    assert "install the newer release again" in verdict["remedy"]
    assert [each["role"] for each in found["nics"] if each["name"] == nic] == [None]


@pytest.mark.any_kernel
def test_doctor_of_a_configuration_without_a_version(
    node: Node, cni_netkit: Command, tmp_path: Path
) -> None:
    """It works as 0.1.0, and what that means is told; the exit status does not hang on it."""
    path = tmp_path / "10.conflist"
    plugins = [{"type": "netkit", "fallback": "veth"}]
    for version, told in (({}, True), ({"cniVersion": ""}, True), ({"cniVersion": "1.0.0"}, False)):
        path.write_text(json.dumps({**version, "name": "net", "plugins": plugins}))
        given = verdicts(cni_netkit.json("doctor", str(path)))
        assert given[f"{path}: plugin 0"]["ok"]
        said = given.get(f"{path}: cniVersion", {"ok": True})
        assert said["ok"] != told
        assert not told or "0.1.0 holds" in said["reason"]
