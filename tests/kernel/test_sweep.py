"""cni-netkit gc: what gone containers left is released, what lives or is being worked on stays."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import plan as plans
from cni_netkit.attachment import Attachment
from cni_netkit.context import Context
from cni_netkit.outcome import Outcome
from cni_netkit.state import Store
from tests.ethtool.fake import FakeNic
from tests.kernel import judge
from tests.kernel.conftest import JSON, Command, Conf, Node
from tests.kernel.test_faults import KINDS
from tests.kernel.test_running import abandon, identifier

RECORDS = "/var/lib/cni/netkit"
FAILING_IPAM = """#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = DEL ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}'
"""


def path_of(c: str, network: str = "net", ifname: str = "eth0") -> Path:
    return Path(RECORDS, network, f"{identifier(c)}:{ifname}.json")


def lose(*containers: str) -> None:
    """Their namespaces go without a DEL; waits until the kernel has taken the pairs."""
    marks = [f" {identifier(c)} " for c in containers]
    for c in containers:
        judge.run("ip", "netns", "del", c)

    def gone() -> bool:
        aliases = [str(each.get("ifalias")) for each in judge.ip("link", "show", "type", "netkit")]
        return not any(mark in alias for mark in marks for alias in aliases)

    judge.wait_for(gone, "the kernel takes the pairs with their namespaces")


def rewrite(path: Path, *replacements: tuple[str, str]) -> None:
    """Change a record as if it came from elsewhere."""
    text = path.read_text()
    for pattern, replacement in replacements:
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    path.write_text(text)


def verdicts(report: JSON) -> dict[str, tuple[bool, bool, str]]:
    """By container and device: whether it is due, whether it was released, and why."""
    return {
        f"{each['containerID'].removeprefix('container-')}:{each['ifname']}": (
            each["due"],
            each["released"],
            each["reason"],
        )
        for each in report["attachments"]
    }


# With claims there is more than one attachment: tests/kernel/test_claims.py.
@pytest.mark.parametrize("kind", [each for each in KINDS if "claims" not in each])
def test_what_a_dead_container_left(
    node: Node,
    conf: Conf,
    dual_stack: JSON,
    cni_netkit: Command,
    fake_nic: Callable[[str], FakeNic],
    kind: str,
) -> None:
    """Address, rules, limits, flows and record go; a living one of the same kind keeps everything."""
    nic, alive, dead = node.nic(), node.container(), node.container()
    flows = fake_nic(nic)
    configuration = conf(**{"ipam": dual_stack, **KINDS[kind](nic)})
    node.add(configuration, alive)
    before, rules = judge.world(alive), dict(flows.rules)
    node.add(configuration, dead)
    gone = f"its network namespace /run/netns/{dead} is gone"
    lose(dead)
    judge.wait_for(lambda: judge.leases(nic) == before["leases"][nic], "queues are given back")
    left = judge.world(alive)
    assert left != before, "something is to be released"
    announced = cni_netkit.json("gc", "--dry-run")
    assert judge.world(alive) == left
    there = (False, False, "its network namespace is there")
    assert announced["done"] is False
    assert verdicts(announced) == {
        f"{alive}:eth0": there,
        f"{dead}:eth0": (True, False, gone),
    }
    said = cni_netkit("gc")
    assert said.splitlines() == [
        f"released eth0 of container {identifier(dead)} on network net: {gone}",
        "kept 1: its network namespace is there",
    ]
    assert judge.world(alive) == before
    assert flows.rules == rules
    assert verdicts(cni_netkit.json("gc")) == {f"{alive}:eth0": there}


def test_address_can_be_given_again(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """A range of one address: nobody gets it while the dead have it."""
    ranges = [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}]]
    configuration = conf(ipam={"type": "host-local", "ranges": ranges})
    first, second = node.container(), node.container()
    node.add(configuration, first)
    lose(first)
    assert node.call("ADD", configuration, second).error["code"] == 106
    cni_netkit("gc")
    assert node.add(configuration, second)["ips"][0]["address"] == "10.1.0.9/24"


@pytest.mark.parametrize("kind", ["l3 pair", "single with leases"])
def test_namespace_that_a_process_holds(
    node: Node, conf: Conf, cni_netkit: Command, kind: str
) -> None:
    """Its name is gone, or is another's by now, and what is in it works: left alone."""
    nic, c = node.nic(), node.container()
    node.add(conf(**KINDS[kind](nic)), c)
    leases = judge.leases(nic)
    with open(f"/run/netns/{c}"):
        judge.run("ip", "netns", "del", c)
        here = "its device is there, though its namespace's name is not"
        assert verdicts(cni_netkit.json("gc")) == {f"{c}:eth0": (False, False, here)}
        judge.run("ip", "netns", "add", c)
        assert verdicts(cni_netkit.json("gc")) == {f"{c}:eth0": (False, False, here)}
        assert judge.leases(nic) == leases
    assert path_of(c).exists()


def test_after_a_reboot(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """A namespace of the same name, even with the same number, is not the one from before."""
    old, new = node.container(), node.container()
    node.add(conf(ipMasq=True), new)
    before = judge.world(new)
    node.add(conf(ipMasq=True), old)
    judge.run("ip", "-n", old, "link", "del", "eth0")
    rewrite(path_of(old), (r'"boot":"[^"]+"', '"boot":"00000000-0000-0000-0000-000000000000"'))
    assert verdicts(cni_netkit.json("gc")) == {
        f"{new}:eth0": (False, False, "its network namespace is there"),
        f"{old}:eth0": (True, True, "it was made before the last boot"),
    }
    assert judge.world(new) == before


def test_from_another_network_namespace(node: Node, conf: Conf) -> None:
    """Nothing of the host can be seen from there, and nothing is released."""
    c = node.container()
    elsewhere = node.container()
    node.add(conf(), c)
    with open(f"/run/netns/{c}"):
        judge.run("ip", "netns", "del", c)
        before = judge.world()
        command = [sys.executable, "-m", "cni_netkit.admin.main", "gc", "--json"]
        report = json.loads(judge.run(*command, netns=elsewhere))
        reason = "it was made in another network namespace than this"
        assert verdicts(report) == {f"{c}:eth0": (False, False, reason)}
        assert judge.world() == before


def test_only_one_network(node: Node, conf: Conf, cni_netkit: Command) -> None:
    first, second = node.container(), node.container()
    node.add(conf(name="one"), first)
    node.add(conf(name="two", ipam=None), second)
    lose(first, second)
    assert set(verdicts(cni_netkit.json("gc", "--network", "two"))) == {f"{second}:eth0"}
    assert path_of(first, "one").exists()
    assert not path_of(second, "two").exists()
    assert cni_netkit("gc", "--network", "three") == "there is no attachment\n"


def test_what_was_cut_off(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """A process that was killed in its ADD, and one that was killed while it wrote the record."""
    half, cut = node.container(), node.container()
    before = judge.world(half, cut)
    for c in (half, cut):
        node.add(conf(), c)
    rewrite(
        path_of(half), ('"complete":true', '"complete":false'), (r'"process":\[\d+', '"process":[0')
    )
    assert node.call("DEL", conf(), cut).ok
    path_of(cut).write_bytes(b'{"attachment":')
    assert verdicts(cni_netkit.json("gc")) == {
        f"{c}:eth0": (True, True, "its ADD was cut off") for c in (half, cut)
    }
    assert judge.world(half, cut) == before


def test_add_that_is_under_way(
    node: Node, conf: Conf, cni_netkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is there and its device not yet; it comes to its end."""
    c, begun, go_on = node.container(), threading.Event(), threading.Event()
    device = plans.KINDS["device"]
    original = device.do

    def slowly(self: Any, context: Context, outcome: Outcome) -> None:
        begun.set()
        assert go_on.wait(judge.DEADLINE)
        original(self, context, outcome)

    monkeypatch.setattr(device, "do", slowly)
    answers: list[JSON] = []
    adding = threading.Thread(target=lambda: answers.append(node.add(conf(), c)))
    adding.start()
    try:
        assert begun.wait(judge.DEADLINE)
        under_way = {f"{c}:eth0": (False, False, "its ADD is under way")}
        assert verdicts(cni_netkit.json("gc")) == under_way
    finally:
        go_on.set()
        adding.join()
    assert judge.pings(answers[0]["ips"][0]["address"].partition("/")[0])


def test_what_somebody_is_at_work_on(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """A DEL that came first has it; gc does not wait."""
    c = node.container()
    node.add(conf(), c)
    lose(c)
    with Store().lock(Attachment("net", identifier(c), "eth0")):
        found = verdicts(cni_netkit.json("gc"))
    assert found == {f"{c}:eth0": (True, False, "somebody is at work on it")}
    assert path_of(c).exists()
    cni_netkit("gc")
    assert not path_of(c).exists()


def test_one_that_fails_does_not_stop_the_others(
    node: Node, conf: Conf, cni_netkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The IPAM plugin of one is gone: that is told, exit status 1, and the next time it goes on."""
    plugin = tmp_path / "bin" / "own"
    plugin.parent.mkdir()
    plugin.write_text(FAILING_IPAM)
    plugin.chmod(0o755)
    odd, usual, usual_too = (node.container() for _ in range(3))
    node.add(conf(), usual)
    node.add(conf(ipam={"type": "own"}), odd, path=str(plugin.parent))
    node.add(conf(), usual_too)
    lose(odd, usual, usual_too)
    shutil.move(plugin, tmp_path)
    report = cni_netkit.json("gc", status=1)
    released = {c: entry[1] for c, entry in verdicts(report).items()}
    assert released == {f"{odd}:eth0": False, f"{usual}:eth0": True, f"{usual_too}:eth0": True}
    (problem,) = (each["problem"] for each in report["attachments"] if each["problem"])
    assert "own" in problem
    error = cni_netkit.fails("gc")
    assert (
        error
        == f"cni-netkit gc: release eth0 of container {identifier(odd)} on network net: {problem}\n"
    )
    shutil.move(tmp_path / "own", plugin)
    cni_netkit("gc")
    assert not path_of(odd).exists()


@pytest.mark.parametrize("dead", [False, True])
def test_what_was_added(node: Node, conf: Conf, cni_netkit: Command, *, dead: bool) -> None:
    """It goes with what it was added to; half of one goes alone."""
    nic, c = node.nic(), node.container()
    node.add(conf(), c)
    cni_netkit("lease", "add", c, "--device", nic)
    if dead:
        lose(c)
        report = cni_netkit.json("gc")
        gone = f"its network namespace /run/netns/{c} is gone"
        # In this order: each by its own record.
        assert list(verdicts(report).items()) == [
            (f"{c}:rxq0", (True, True, f"it was added to eth0, and {gone}")),
            (f"{c}:eth0", (True, True, gone)),
        ]
        assert not list(Path(RECORDS, "net").iterdir())
    else:
        there = "its network namespace is there"
        assert verdicts(cni_netkit.json("gc")) == {
            f"{c}:rxq0": (False, False, f"it was added to eth0, and {there}"),
            f"{c}:eth0": (False, False, there),
        }
        assert set(judge.leases(nic)) == {7}
        abandon(c)
        assert verdicts(cni_netkit.json("gc"))[f"{c}:rxq0"] == (True, True, "its ADD was cut off")
        assert judge.leases(nic) == {}
        assert judge.link("eth0", c) is not None


def test_namespace_of_no_runtime(node: Node, cni_netkit: Command) -> None:
    """What was leased to it is known by the namespace alone."""
    nic, c = node.nic(), node.container()
    cni_netkit("lease", "add", c, "--device", nic)
    (entry,) = cni_netkit.json("gc")["attachments"]
    assert (entry["due"], entry["reason"]) == (False, "its network namespace is there")
    judge.run("ip", "netns", "del", c)
    judge.wait_for(lambda: judge.leases(nic) == {}, "the kernel gives the queue back")
    (entry,) = cni_netkit.json("gc")["attachments"]
    assert entry["released"]
    assert cni_netkit.json("list")["attachments"] == []


def test_list(node: Node, conf: Conf, cni_netkit: Command, tmp_path: Path) -> None:
    """What is not on it is released although it lives; not what may be newer, nor another network's."""
    kept, dropped, other, late = (node.container() for _ in range(4))
    node.add(conf(), kept)
    node.add(conf(name="other", ipam=None), other)
    before = judge.world(kept, dropped, other)
    node.add(conf(), dropped)
    listed = tmp_path / "ids"
    listed.write_text(f"{identifier(kept)}\n\n")
    command = ("gc", "--network", "net", "--valid", str(listed))
    newer = (False, False, "it is newer than the list")
    assert verdicts(cni_netkit.json(*command))[f"{dropped}:eth0"] == newer
    old = path_of(dropped).stat().st_mtime - 3600
    os.utime(path_of(dropped), (old, old))
    announced = cni_netkit(*command, "--dry-run")
    assert announced.splitlines() == [
        f"would release eth0 of container {identifier(dropped)} on network net: "
        "its container is not on the list",
        "kept 1: its container is on the list",
    ]
    assert cni_netkit.json(*command)["done"]
    assert judge.world(kept, dropped, other) == before
    node.add(conf(), late)
    assert verdicts(cni_netkit.json(*command))[f"{late}:eth0"] == newer


def test_while_containers_come_and_go(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """No request fails, no living container loses anything, and the dead ones are released."""
    steady, dead, *busy = (node.container() for _ in range(5))
    node.add(conf(ipMasq=True), steady)
    before = judge.world(steady, *busy)
    node.add(conf(ipMasq=True), dead)
    lose(dead)
    done, failures = threading.Event(), []

    def come_and_go(c: str) -> None:
        while not done.is_set():
            for verb in ("ADD", "DEL"):
                answer = node.call(verb, conf(ipMasq=True), c)
                if answer.status:
                    failures.append(answer.output)

    threads = [threading.Thread(target=come_and_go, args=(c,)) for c in busy]
    for thread in threads:
        thread.start()
    try:
        released = [
            each
            for _ in range(10)
            for each, (_, was, _) in verdicts(cni_netkit.json("gc")).items()
            if was
        ]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert released == [f"{dead}:eth0"]
    assert judge.world(steady, *busy) == before
    assert judge.pings("10.1.0.1", steady)


def test_nobody_is_told_twice(node: Node, conf: Conf, cni_netkit: Command) -> None:
    """The runtime's DEL, when it comes at last, finds nothing and is content."""
    c = node.container()
    before = judge.world()
    node.add(conf(), c)
    lose(c)
    cni_netkit("gc")
    assert judge.world() == before
    assert node.call("DEL", conf(), cid=identifier(c)).ok


def test_two_at_once(node: Node, conf: Conf) -> None:
    """Each attachment is released once, whoever comes first."""
    containers = [node.container() for _ in range(6)]
    before = judge.world()
    for c in containers:
        node.add(conf(), c)
    lose(*containers)
    command = [sys.executable, "-m", "cni_netkit.admin.main", "gc", "--json"]
    sweeping = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    reports = [json.loads(each.communicate()[0]) for each in sweeping]
    assert [each.returncode for each in sweeping] == [0, 0]
    assert any(entry[1] for report in reports for entry in verdicts(report).values())
    judge.wait_for(lambda: judge.world() == before, "nothing is left")
