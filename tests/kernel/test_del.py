"""DEL: succeeds whenever there is nothing (left) to do, and finds its way without help."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import judge
from tests.kernel.conftest import Conf, Node


def test_never_added(node: Node, conf: Conf) -> None:
    """ADD never ran."""
    c = node.container()
    before = judge.world(c)
    assert node.call("DEL", conf(), c).ok
    assert judge.world(c) == before


@pytest.mark.parametrize("netns", ["", "/run/netns/gone", "/etc/hostname"])
def test_without_the_namespace(node: Node, conf: Conf, netns: str) -> None:
    """CNI_NETNS is empty, leads nowhere, or to a plain file: found by id and name alone."""
    c = node.container()
    before = judge.world(c)
    node.add(conf(ipMasq=True), c)
    assert node.call("DEL", conf(ipMasq=True), netns, cid=f"container-{c}").ok
    assert judge.world(c) == before


def test_namespace_that_died_first(node: Node, conf: Conf) -> None:
    """The kernel took the device already; address, rules and record go now."""
    c = node.container()
    configuration = conf(ipMasq=True)
    before = judge.world()
    node.add(configuration, c)
    judge.run("ip", "netns", "del", c)
    assert node.call("DEL", configuration, c).ok
    judge.wait_for(lambda: judge.world() == before, "nothing is left")


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_a_path_that_was_made_anew(node: Node, conf: Conf, pairing: str, verb: str) -> None:
    """It leads to another namespace, and a process holds the one of ADD: that one's is released."""
    nic, c = node.nic(), node.container()
    configuration = conf(pairing=pairing, ipam=None, lease={"device": nic})
    before = judge.world(c)
    node.add(configuration, c)
    with subprocess.Popen(
        ["ip", "netns", "exec", c, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as holder:
        judge.wait_for(lambda: str(holder.pid) in judge.run("ip", "netns", "pids", c), "cat is in")
        judge.run("ip", "netns", "del", c)
        judge.run("ip", "netns", "add", c)
        assert judge.leases(nic)
        netns = c if verb == "DEL" else ""
        assert node.call(verb, configuration, netns, cid=f"container-{c}").ok
        assert judge.leases(nic) == {}
        assert judge.world(c) == before
        holder.communicate()


def test_lost_record(node: Node, conf: Conf) -> None:
    """The record is gone or unreadable: the hashed name and the alias suffice."""
    damages: tuple[Callable[[Path], object], ...] = (
        Path.unlink,
        lambda path: path.write_text('{"half'),
    )
    for damage in damages:
        c = node.container()
        before = judge.world(c)
        node.add(conf(ipMasq=True), c)
        (record,) = Path("/var/lib/cni/netkit").rglob("*.json")
        damage(record)
        assert node.call("DEL", conf(ipMasq=True), "", cid=f"container-{c}").ok
        assert judge.world(c) == before


def test_device_of_that_name_that_is_not_ours(node: Node, conf: Conf) -> None:
    """Without our alias it is left alone."""
    c = node.container()
    result = node.add(conf(), c)
    name = result["interfaces"][0]["name"]
    judge.run("ip", "link", "del", name)
    judge.run("ip", "link", "add", name, "type", "dummy")
    assert node.call("DEL", conf(), c).ok
    assert judge.link(name) is not None


@pytest.mark.parametrize(
    "broken",
    [{"modee": "l2"}, {"mtu": 3}, {"ipam": {"type": "host-local", "ranges": "x"}}, {"bpf": {}}],
)
def test_configuration_that_became_invalid(node: Node, conf: Conf, broken: dict[str, Any]) -> None:
    """Somebody broke the file while the container ran: the record knows what to release."""
    c = node.container()
    before = judge.world(c)
    node.add(conf(ipMasq=True), c)
    assert node.call("DEL", {**conf(ipMasq=True), **broken}, c).ok
    assert judge.world(c) == before


def test_arguments_that_became_invalid(node: Node, conf: Conf) -> None:
    """DEL has no use for CNI_ARGS."""
    c = node.container()
    before = judge.world(c)
    node.add(conf(), c)
    assert node.call("DEL", conf(), c, args="nonsense").ok
    assert judge.world(c) == before


def test_renamed_host_end(node: Node, conf: Conf) -> None:
    """Somebody renamed the device: it is found by its index."""
    c = node.container()
    before = judge.world(c)
    result = node.add(conf(), c)
    name = result["interfaces"][0]["name"]
    for arguments in (
        ("set", name, "down"),
        ("set", name, "name", "other"),
        ("set", "other", "up"),
    ):
        judge.run("ip", "link", *arguments)
    assert node.call("DEL", conf(), c).ok
    assert judge.world(c) == before


def test_after_a_reboot(node: Node, conf: Conf) -> None:
    """Devices and namespaces are gone, records and addresses remain: DEL releases them."""
    c = node.container()
    result = node.add(conf(), c)
    judge.run("ip", "link", "del", result["interfaces"][0]["name"])
    judge.run("ip", "netns", "del", c)
    assert node.call("DEL", conf(), "", cid=f"container-{c}").ok
    assert not Path("/var/lib/cni/networks/net/10.1.0.2").exists()
    assert not list(Path("/var/lib/cni/netkit").rglob("*.json"))


def test_record_with_an_ipam_that_is_not_valid(node: Node, conf: Conf) -> None:
    """What is valid may change from release to release: an attachment goes by its names then."""
    c = node.container()
    before = judge.world(c)
    node.add(conf(), c)
    (path,) = Path("/var/lib/cni/netkit/net").glob("*.json")
    record = json.loads(path.read_text())
    record["config"]["ipam"]["ranges"] = [[{"subnet": "nothing"}]]
    path.write_text(json.dumps(record))
    assert node.call("DEL", conf(), c).ok
    assert judge.world(c) == before


def test_names_that_are_too_long_for_a_file(node: Node, conf: Conf) -> None:
    """Error 4 before anything is done, and DEL has nothing to do."""
    c = node.container()
    before = judge.world(c)
    for length in (244, 300, 4000):
        cid = "c" * length
        assert node.call("ADD", conf(), c, cid=cid).error["code"] == 4
        assert node.call("DEL", conf(), c, cid=cid).ok
    assert judge.world(c) == before
