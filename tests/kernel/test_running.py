"""Leases that are added to containers while they run, and what becomes of them with the container."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import deadline, release
from cni_netkit import plan as plans
from cni_netkit.admin import lease
from tests.ethtool.fake import FakeNic
from tests.kernel import judge
from tests.kernel.conftest import JSON, Command, Conf, Node
from tests.kernel.test_faults import fail_in
from tests.kernel.test_flows import shown

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till-0"


def identifier(c: str) -> str:
    """The container's id in these tests."""
    return f"container-{c}"


def valid(*containers: str) -> JSON:
    """The list of a runtime's GC."""
    return {
        "cni.dev/valid-attachments": [
            {"containerID": identifier(c), "ifname": "eth0"} for c in containers
        ]
    }


def test_add_and_remove(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """A single device with the leases comes and goes, and nothing else changes."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c, args=POD)
    before = judge.world(c)
    made = cni_netkit.json("lease", "add", identifier(c), "--device", nic, "--count", "2")
    device = judge.link("rxq0", c)
    assert device["linkinfo"]["info_kind"] == "netkit"
    assert device["ifalias"] == f"cni-netkit net {identifier(c)} rxq0 {nic}:7,6"
    assert "UP" in device["flags"]
    assert judge.leases(nic) == {7: (device["ifindex"], 1), 6: (device["ifindex"], 2)}
    assert made == {
        "network": "net",
        "containerID": identifier(c),
        "ifname": "rxq0",
        "podNamespace": "shop",
        "podName": "till-0",
        "addedTo": "eth0",
        "netns": f"/run/netns/{c}",
        "deviceIndex": device["ifindex"],
        "hostDevice": None,
        "kind": "netkit",
        "pairing": "single",
        "addresses": [],
        "leases": [
            {"nic": nic, "queue": 7, "deviceQueue": 1},
            {"nic": nic, "queue": 6, "deviceQueue": 2},
        ],
        "state": "complete",
    }
    assert made in cni_netkit.json("list")["attachments"]
    assert "netkit single (added to eth0)" in re.sub(" +", " ", cni_netkit("list", "--wide"))
    assert cni_netkit.json("lease", "remove", identifier(c)) == made
    assert judge.world(c) == before


def test_options(
    node: Node, conf: Conf, cni_netkit: Command, fake_nic: Callable[..., FakeNic]
) -> None:
    """Name, pool and workload; a table tells index and queues."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c)
    fake_nic(nic)
    node.prepare(nic, "io_uring", "2-7")
    options = ("--device", nic, "--count", "2", "--queues", "2-4", "--workload", "io_uring")
    heading, *table = cni_netkit(
        "lease", "add", identifier(c), *options, "--flows", "none", "--ifname", "zc0"
    ).splitlines()
    index = judge.link("zc0", c)["ifindex"]
    assert judge.leases(nic) == {4: (index, 1), 3: (index, 2)}
    assert heading == f"zc0 of container {identifier(c)} on network net"
    assert [line.split() for line in table[1:]] == [
        ["zc0", str(index), "1", nic, "4"],
        ["zc0", str(index), "2", nic, "3"],
    ]
    cni_netkit("lease", "remove", identifier(c), "--ifname", "zc0")
    assert judge.link("zc0", c) is None


def test_what_leads_traffic_to_the_queues_is_told(
    node: Node, conf: Conf, cni_netkit: Command, fake_nic: Callable[..., FakeNic]
) -> None:
    """Where nothing does: with the container's own address; a program is told nothing."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c)
    fake_nic(nic)
    add, remove = ("lease", "add", identifier(c), "--device", nic), ("lease", "remove", c)
    assert f"\n    ethtool -N {nic} flow-type tcp4 dst-ip 10.1.0.2 action 7\n" in (
        cni_netkit.hint(*add)
    )
    cni_netkit(*remove)
    for more in (("--flows", "address"), ("--flows", "none"), ("--json",)):
        assert cni_netkit.hint(*add, *more) == ""
        cni_netkit(*remove)


FD_OF_ANOTHER = "fd00:0009:0000:0000:0000:0000:0000:0002"


@pytest.mark.parametrize("dead", [False, True])
def test_flows(
    node: Node, conf: Conf, cni_netkit: Command, fake_nic: Callable[..., FakeNic], *, dead: bool
) -> None:
    """For io_uring the NIC brings to the queues what is for the pair's addresses; it ends with them."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    node.prepare(name, "io_uring", "4-7")
    node.add(conf(), c)
    cni_netkit("lease", "add", c, "--device", name, "--workload", "io_uring")
    assert shown(nic) == {("tcp", "10.1.0.2", 0, "queue", 7)}
    cni_netkit("lease", "remove", c)
    assert shown(nic) == set()
    cni_netkit("lease", "add", c, "--device", name, "--workload", "io_uring", "--flows", "none")
    assert shown(nic) == set()
    cni_netkit("lease", "remove", c)
    cni_netkit("lease", "add", c, "--device", name, "--flows", "address")
    assert len(shown(nic)) == 2
    if dead:
        judge.run("ip", "netns", "del", c)
    assert node.call("DEL", conf(), cid=identifier(c)).ok
    assert shown(nic) == set()


def test_flows_of_a_container_of_another_plugin(
    node: Node, cni_netkit: Command, fake_nic: Callable[..., FakeNic]
) -> None:
    """All addresses that the kernel shows in it; where it has none, error 7 and what to do."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    node.prepare(name, "io_uring", "4-7")
    options = ("--device", name, "--workload", "io_uring")
    judge.run("ip", "-n", c, "link", "set", "lo", "up")
    error = cni_netkit.fails("lease", "add", c, *options)
    assert "error 7: lease.flows" in error
    judge.run("ip", "-n", c, "link", "add", "eth0", "type", "veth", "peer", "eth9")
    for address in ("10.9.0.2/24", "fd00:9::2/64"):
        judge.run("ip", "-n", c, "address", "add", address, "dev", "eth0")
    judge.run("ip", "-n", c, "link", "set", "eth0", "up")
    judge.run("ip", "-n", c, "link", "set", "eth9", "up")
    cni_netkit("lease", "add", c, *options)
    rules = {("tcp", "10.9.0.2", 0, "queue", 7), ("tcp", FD_OF_ANOTHER, 0, "queue", 7)}
    assert shown(nic) == rules
    cni_netkit("lease", "remove", c)
    assert shown(nic) == set()


def test_no_packet_is_lost(node: Node, conf: Conf, cni_netkit: Command, tmp_path: Path) -> None:
    """Twenty times added and removed, while the container pings its gateway over the pair."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c)
    pair = judge.link("eth0", c)
    output = tmp_path / "ping"
    with output.open("w") as file:
        command = ["ip", "netns", "exec", c, "ping", "-O", "-n", "-i", "0.02", "10.1.0.1"]
        ping = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:

        def replies() -> list[int]:
            return [int(each) for each in re.findall(r"icmp_seq=(\d+) ttl", output.read_text())]

        def one_more() -> None:
            answered = len(replies())
            judge.wait_for(lambda: len(replies()) > answered, "the gateway answers")

        one_more()
        for _ in range(20):
            cni_netkit("lease", "add", c, "--device", nic, "--count", "2")
            assert set(judge.leases(nic)) == {7, 6}
            one_more()
            cni_netkit("lease", "remove", c)
            assert judge.leases(nic) == {}
            one_more()
    finally:
        ping.send_signal(signal.SIGINT)
        ping.wait(judge.DEADLINE)
    told, seen = output.read_text(), replies()
    assert len(seen) > 40
    assert seen == list(range(1, len(seen) + 1)), "each request is answered, in order"
    assert "no answer yet" not in told
    assert "duplicates" not in told
    sent = int(re.findall(r"(\d+) packets transmitted", told)[0])
    assert sent - len(seen) <= 1, "the last one may be on its way when ping is told to end"
    assert judge.link("eth0", c) == pair


def test_check_sees_it(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """CHECK of the container's pair knows the added device, and that of others does not."""
    nic, c, other = node.nic(), node.container(), node.container()
    result, others = node.add(conf(), c), node.add(conf(), other)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    assert node.check(conf(), c, result).ok
    judge.run("ip", "-n", c, "link", "del", "rxq0")
    error = node.check(conf(), c, result).error
    assert error["code"] == 105
    assert error["msg"] == "device rxq0 in the container: expected a netkit device, found none"
    assert node.check(conf(), other, others).ok
    release.sweep()
    assert node.check(conf(), c, result).error == error, "an agent's start hides no difference"
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    assert node.check(conf(), c, result).ok, "adding it again mends it"
    cni_netkit("lease", "remove", identifier(c))
    assert node.check(conf(), c, result).ok


def test_check_names_a_lease_that_is_lost(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """The NIC went down: its queues cannot be seen."""
    nic, c = node.nic(), node.container()
    result = node.add(conf(), c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    judge.run("ip", "link", "set", nic, "down")
    assert f"state of NIC {nic}" in node.check(conf(), c, result).error["msg"]


def test_del_releases_both(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """DEL of the pair, with its record or without, and as often as it comes."""
    for lose_the_record in (False, True):
        nic, c = node.nic(), node.container()
        before = judge.world(c)
        node.add(conf(), c)
        for name in ("rxq0", "rxq1"):
            cni_netkit("lease", "add", identifier(c), "--device", nic, "--ifname", name)
        if lose_the_record:
            Path(f"/var/lib/cni/netkit/net/{identifier(c)}:eth0.json").unlink()
        for _ in range(3):
            assert node.call("DEL", conf(), c).ok
            assert judge.world(c) == before


@pytest.mark.parametrize("held", [False, True])
def test_del_when_the_namespace_is_gone(
    node: Node, conf: Conf, cni_netkit: Command, *, held: bool
) -> None:
    """Its path leads nowhere, whether the kernel has taken the device, or a process holds it."""
    nic, c = node.nic(), node.container()
    before = judge.world()
    node.add(conf(), c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    descriptor = os.open(f"/run/netns/{c}", os.O_RDONLY) if held else -1
    judge.run("ip", "netns", "del", c)
    if held:
        assert set(judge.leases(nic)) == {7}
    assert node.call("DEL", conf(), cid=identifier(c)).ok
    judge.wait_for(lambda: judge.world() == before, "nothing is left")
    assert node.call("DEL", conf(), cid=identifier(c)).ok
    if held:
        os.close(descriptor)


def test_gc_keeps_and_releases(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """What is added is as valid as what it was added to."""
    nic, keep, drop = node.nic(), node.container(), node.container()
    node.add(conf(), keep)
    cni_netkit("lease", "add", identifier(keep), "--device", nic)
    before = judge.world(keep, drop)
    node.add(conf(), drop)
    cni_netkit("lease", "add", identifier(drop), "--device", nic)
    assert set(judge.leases(nic)) == {7, 6}
    assert node.call("GC", {**conf(), **valid(keep)}).ok
    assert judge.world(keep, drop) == before
    assert node.call("GC", {**conf(name="other"), **valid()}).ok
    assert judge.world(keep, drop) == before


def test_remove_takes_exactly_one(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """Of two, and of one with the same name in another container."""
    nic, one, two = node.nic(), node.container(), node.container()
    for c in (one, two):
        node.add(conf(), c)
        cni_netkit("lease", "add", identifier(c), "--device", nic)
    before = judge.world(one, two)
    cni_netkit("lease", "add", identifier(one), "--device", nic, "--ifname", "rxq1")
    cni_netkit("lease", "remove", identifier(one), "--ifname", "rxq1")
    assert judge.world(one, two) == before


def test_too_few_queues_leave_nothing(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """Error 101 with the holders."""
    nic, one, two = node.nic(queues=3), node.container(), node.container()
    for c in (one, two):
        node.add(conf(), c)
    cni_netkit("lease", "add", identifier(one), "--device", nic)
    before = judge.world(one, two)
    error = cni_netkit.fails("lease", "add", identifier(two), "--device", nic, "--count", "2")
    assert error.startswith("cni-netkit lease add: error 101: ")
    assert f"queue 2 is held by rxq0 of container {identifier(one)}" in error
    assert judge.world(one, two) == before


@pytest.mark.parametrize("name", ["rxq0", "eth0", "zc0", "d0"])
def test_name_that_is_taken(node: Node, conf: Conf, cni_netkit: Command, name: str) -> None:
    """By what was added, by the pair, by a chained device, by another's: error 103 each time."""
    nic, c = node.nic(), node.container()
    first = node.add(conf(), c)
    chained = conf(pairing="single", ipam=None, ifName="zc0", prevResult=first)
    node.add(chained, c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    judge.run("ip", "-n", c, "link", "add", "d0", "type", "dummy")
    before = judge.world(c)
    error = cni_netkit.fails("lease", "add", identifier(c), "--device", nic, "--ifname", name)
    assert error.startswith("cni-netkit lease add: error 103: ")
    assert name in error
    assert judge.world(c) == before


def test_chained_configuration_with_the_same_name(
    node: Node, conf: Conf, cni_netkit: Command
) -> None:
    """The runtime's ADD fails, and its DEL for that name leaves the added device alone."""
    nic, c = node.nic(), node.container()
    first = node.add(conf(), c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    before = judge.world(c)
    chained = conf(pairing="single", ipam=None, ifName="rxq0", prevResult=first)
    assert node.call("ADD", chained, c).error["code"] == 103
    assert judge.world(c) == before
    assert node.call("DEL", chained, c).ok
    assert judge.world(c) == before


def test_chained_device_is_not_an_added_one(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """It cannot be removed as one; each goes with its own."""
    nic, c = node.nic(), node.container()
    first = node.add(conf(), c)
    chained = conf(pairing="single", ipam=None, ifName="zc0")
    node.add({**chained, "prevResult": first}, c)
    error = cni_netkit.fails("lease", "remove", identifier(c), "--ifname", "zc0")
    assert error == (
        "cni-netkit lease remove: error 3: "
        f"no device zc0 was added to {identifier(c)}; there is: none\n"
    )
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    assert node.call("DEL", chained, c).ok
    assert judge.link("rxq0", c) is not None
    assert node.call("DEL", conf(), c).ok
    assert judge.link("rxq0", c) is None


def test_container_with_a_single_device_only(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """A single device behind another plugin: what is added goes with it."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    single = conf(pairing="single", ipam=None, ifName="zc0")
    result = node.add(single, c)
    assert cni_netkit.json("lease", "add", c, "--device", nic)["addedTo"] == "zc0"
    assert node.check(single, c, result).ok
    assert node.call("GC", {**single, **valid(c)}).ok
    assert judge.link("rxq0", c) is not None
    assert node.call("DEL", single, c).ok
    assert judge.world(c) == before


@pytest.mark.parametrize("form", ["id", "prefix", "name", "path", "other path"])
def test_ways_to_name_a_container(node: Node, conf: Conf, cni_netkit: Command, form: str) -> None:
    """All lead to the same attachment."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c, cid="4f5e6d7c8b9a")
    Path(f"/run/{c}").symlink_to(f"/run/netns/{c}")
    given = {
        "id": "4f5e6d7c8b9a",
        "prefix": "4f5e6d7c",
        "name": c,
        "path": f"/run/netns/{c}",
        "other path": f"/run/{c}",
    }[form]
    made = cni_netkit.json("lease", "add", given, "--device", nic)
    Path(f"/run/{c}").unlink()
    assert (made["network"], made["containerID"], made["addedTo"]) == (
        *("net", "4f5e6d7c8b9a"),
        "eth0",
    )


def test_containers_that_cannot_be_told(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """Unknown, too short, ambiguous: error 3, and nothing is added."""
    nic, one, two = node.nic(), node.container(), node.container()
    node.add(conf(), one, cid="4f5e6d7c8b9a-1")
    node.add(conf(), two, cid="4f5e6d7c8b9a-2")
    before = judge.world(one, two)
    for given, words in {
        "nobody": "no attachment of a container nobody is known",
        "/run/netns/none": "network namespace /run/netns/none: No such file or directory",
        "/etc/hostname": "no network namespace",
        "4f5e6d7": "no attachment of a container 4f5e6d7 is known",
        "4f5e6d7c8b9a": "more than one container: 4f5e6d7c8b9a-1, 4f5e6d7c8b9a-2",
    }.items():
        for action in (("add", given, "--device", nic), ("remove", given)):
            error = cni_netkit.fails("lease", *action)
            assert error.startswith(f"cni-netkit lease {action[0]}: error 3: ")
            assert words in error
    assert judge.world(one, two) == before


def test_namespace_of_the_host(node: Node, cni_netkit: Command) -> None:
    """Error 8, as with an ADD."""
    nic = node.nic()
    before = judge.world()
    error = cni_netkit.fails("lease", "add", "/proc/self/ns/net", "--device", nic)
    assert error.startswith("cni-netkit lease add: error 8: ")
    assert judge.world() == before


def test_configuration_is_validated(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """As a network's is."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c)
    before = judge.world(c)
    options: dict[tuple[str, ...], str] = {
        ("--device", nic, "--queues", "8-15"): "error 102: lease.queues",
        ("--device", "eth9"): "error 102: lease.device: there is no device eth9",
    }
    for given, words in options.items():
        assert words in cni_netkit.fails("lease", "add", identifier(c), *given)
    options = {
        ("--device", nic, "--count", "0"): "--count: ",
        ("--device", nic, "--queues", "9-8"): "--queues: the range 9-8 runs backwards",
        ("--device", nic, "--workload", "dpdk"): "--workload: ",
        ("--device", nic, "--ifname", "a/b"): "--ifname: ",
    }
    for given, words in options.items():
        for container in (identifier(c), "nobody"):
            said = cni_netkit.misuses("lease", "add", container, *given)
            assert said.startswith(f"cni-netkit lease add: {words}")
    assert judge.world(c) == before


def test_namespace_without_attachment(node: Node, cni_netkit: Command) -> None:
    """A container of another plugin: its own network name, its number for an id."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    number = Path(f"/run/netns/{c}").stat().st_ino
    made = cni_netkit.json("lease", "add", c, "--device", nic)
    assert (made["network"], made["containerID"]) == ("_none", f"netns-{number}")
    assert (made["addedTo"], made["netns"]) == ("", f"/run/netns/{c}")
    assert judge.link("rxq0", c)["ifalias"] == f"cni-netkit _none netns-{number} rxq0 {nic}:7"
    cni_netkit("lease", "add", f"netns-{number}", "--device", nic, "--ifname", "rxq1")
    assert set(judge.leases(nic)) == {7, 6}
    assert cni_netkit.fails("lease", "add", c, "--device", nic).count("error 103") == 1
    cni_netkit("lease", "remove", c)
    assert set(judge.leases(nic)) == {6}
    cni_netkit("lease", "remove", f"netns-{number}", "--ifname", "rxq1")
    assert judge.world(c) == before


@pytest.mark.parametrize("by", ["sweep", "lease add", "lease remove"])
def test_namespace_without_attachment_that_is_gone(
    node: Node, cni_netkit: Command, by: str
) -> None:
    """The kernel gives the queues back; the record goes with the next look, and not before."""
    nic, c, other = node.nic(), node.container(), node.container()
    before = judge.files("/var/lib/cni")
    made = cni_netkit.json("lease", "add", c, "--device", nic)
    release.sweep()
    assert set(judge.leases(nic)) == {7}, "while it is there it is nobody's business"
    judge.run("ip", "netns", "del", c)
    judge.wait_for(lambda: judge.leases(nic) == {}, "the kernel gives the queues back")
    if by == "sweep":
        release.sweep()
    elif by == "lease add":
        cni_netkit("lease", "add", other, "--device", nic)
        cni_netkit("lease", "remove", other)
    else:
        cni_netkit("lease", "remove", made["containerID"])
    assert {name for name in judge.files("/var/lib/cni") if "/lock" not in name} == set(before)


@pytest.mark.parametrize("by", ["id", "another path"])
def test_namespace_without_attachment_that_has_lost_its_path(
    node: Node, cni_netkit: Command, by: str
) -> None:
    """A process lives in it: what it has leased is left alone, and can be removed."""
    nic, c = node.nic(), node.container()
    made = cni_netkit.json("lease", "add", c, "--device", nic)
    with open(f"/run/netns/{c}") as held:
        judge.run("ip", "netns", "del", c)
        release.sweep()
        assert set(judge.leases(nic)) == {7}
        path = f"/proc/{os.getpid()}/fd/{held.fileno()}"
        cni_netkit("lease", "remove", path if by == "another path" else made["containerID"])
        assert judge.leases(nic) == {}


def test_container_that_is_gone(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """Its namespace has died, or its ADD did: nothing is added."""
    nic, dead, half = node.nic(), node.container(), node.container()
    node.add(conf(), dead)
    judge.run("ip", "netns", "del", dead)
    judge.wait_for(lambda: not nk_devices(), "the pair goes")
    node.add(conf(), half)
    record = Path(f"/var/lib/cni/netkit/net/{identifier(half)}:eth0.json")
    record.write_text(record.read_text().replace('"complete":true', '"complete":false'))
    before = judge.files("/var/lib/cni/netkit")
    for c, words in {
        dead: f"error 3: eth0 of container {identifier(dead)} on network net is gone",
        half: "error 11: the ADD of eth0",
    }.items():
        assert words in cni_netkit.fails("lease", "add", identifier(c), "--device", nic)
    assert judge.files("/var/lib/cni/netkit") == before
    assert judge.leases(nic) == {}


def nk_devices() -> set[str]:
    """The host's ends of pairs."""
    return {each["ifname"] for each in judge.ip("link") if each["ifname"].startswith("nk")}


@pytest.mark.parametrize("step", ["device", "leases"])
@pytest.mark.parametrize("half_done", [False, True])
def test_failure_leaves_nothing(
    node: Node,
    conf: Conf,
    cni_netkit: Command,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    *,
    half_done: bool,
) -> None:
    """Each step of it fails once, before it did anything and when it was done."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c)
    before = judge.world(c)
    with monkeypatch.context() as patch:
        fail_in(patch, plans.KINDS[step], after=half_done)
        with pytest.raises(Exception, match=f"fault in {step}"):
            cni_netkit("lease", "add", identifier(c), "--device", nic, "--count", "2")
    assert judge.world(c) == before


def test_killed_while_adding(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """What a killed process left is in nobody's way: not of CHECK, nor of the next one."""
    nic, c = node.nic(), node.container()
    result = node.add(conf(), c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    abandon(c)
    judge.run("ip", "-n", c, "link", "del", "rxq0")
    assert node.check(conf(), c, result).ok
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    abandon(c)
    assert judge.link("rxq0", c) is not None
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    assert node.check(conf(), c, result).ok
    abandon(c)
    release.sweep()
    assert judge.link("rxq0", c) is None
    assert judge.link("eth0", c) is not None


def abandon(c: str) -> None:
    """As if the process that adds rxq0 had been killed before its record was complete."""
    record = Path(f"/var/lib/cni/netkit/net/{identifier(c)}:rxq0.json")
    text = record.read_text().replace('"complete":true', '"complete":false')
    text = re.sub(r'"outcome":\{.*?\},"complete"', '"outcome":{},"complete"', text)
    record.write_text(re.sub(r'"process":\[\d+', '"process":[0', text))


def test_orphan_without_device(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """The container's record and its namespace are gone: the agent's next start cleans up."""
    nic, c = node.nic(), node.container()
    before = judge.files("/var/lib/cni/netkit")
    node.add(conf(ipam=None), c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    Path(f"/var/lib/cni/netkit/net/{identifier(c)}:eth0.json").unlink()
    release.sweep()
    assert set(judge.leases(nic)) == {7}, "there may be a DEL to come"
    judge.run("ip", "netns", "del", c)
    judge.wait_for(lambda: judge.leases(nic) == {}, "the kernel gives the queue back")
    release.sweep()
    left = judge.files("/var/lib/cni/netkit")
    assert {name for name in left if "/lock" not in name} == set(before)


def test_nic_that_is_removed(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """The kernel takes the device with it, and the pair stays; added again when the NIC is back."""
    nic, c = node.nic(), node.container()
    result = node.add(conf(), c)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    node.remove_nic()
    judge.wait_for(lambda: judge.link("rxq0", c) is None, "the kernel deletes the device")
    assert "rxq0" in node.check(conf(), c, result).error["msg"]
    assert judge.pings("10.1.0.2")
    nic = node.nic()
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    assert node.check(conf(), c, result).ok
    assert set(judge.leases(nic)) == {7}


def test_del_at_the_same_time(
    node: Node, conf: Conf, cni_netkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container is deleted while its lease is added: DEL waits, and takes both."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    node.add(conf(), c)
    deleted: list[Any] = []
    deleting = threading.Thread(target=lambda: deleted.append(node.call("DEL", conf(), c)))
    original, left, waited_for = plans.KINDS["leases"].do, deadline.left, list[str]()

    def with_a_del_meanwhile(*arguments: Any) -> None:
        original(*arguments)
        deleting.start()
        judge.wait_for(lambda: waited_for, "DEL waits for what is being added")

    def spy(what: str) -> float:
        waited_for.append(what)
        return left(what)

    monkeypatch.setattr(plans.KINDS["leases"], "do", with_a_del_meanwhile)
    monkeypatch.setattr(deadline, "left", spy)
    cni_netkit("lease", "add", identifier(c), "--device", nic)
    deleting.join()
    assert deleted[0].ok
    assert f"wait for eth0 of container {identifier(c)}" in waited_for[0]
    assert judge.world(c) == before
    assert "error 3" in cni_netkit.fails("lease", "add", identifier(c), "--device", nic)


def test_deleted_before_it_was_its_turn(
    node: Node, conf: Conf, cni_netkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container was found, and was deleted before the lock was had: error 3, nothing is left."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    node.add(conf(), c)
    original = lease._target

    def deleted_meanwhile(container: str) -> Any:
        found = original(container)
        assert node.call("DEL", conf(), c).ok
        return found

    monkeypatch.setattr(lease, "_target", deleted_meanwhile)
    error = cni_netkit.fails("lease", "add", identifier(c), "--device", nic)
    assert f"error 3: eth0 of container {identifier(c)} on network net is gone" in error
    assert judge.world(c) == before
