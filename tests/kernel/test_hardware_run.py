"""tests/hardware on two linked netdevsims: it tells the truth about them, and leaves them as they were."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ethtool import fake
from tests.hardware.machine import JSON, Machine
from tests.hardware.runner import Failed
from tests.hardware.steps import Role
from tests.kernel import judge
from tests.kernel.conftest import Node

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.hardware"]

# A netdevsim has no ntuple filters and no RSS table, and can only copy frames to AF_XDP sockets.
PREPARED = """
    ok       dry run, prepare, channels
    failed   RSS table, ntuple filters
"""
ATTACHED = """
    failed   ADD with flows
    not run  lease with flows, CHECK with flows, rules, receive
    ok       DEL with flows, restore
"""
IO_URING = f"""
    {PREPARED}
    ok       header-data split, prepare again, ADD, lease, CHECK, ping, TCP, DEL
    {ATTACHED}
"""
AF_XDP_BY_COPYING = f"""
    {PREPARED}
    ok       XDP program, agent, prepare again, ADD, lease, CHECK, socket, DEL, agent stopped
    {ATTACHED}
"""
AF_XDP = """
    failed   dry run
    not run  prepare, channels, RSS table, ntuple filters, XDP program, agent, prepare again
    not run  ADD, lease, CHECK, socket, DEL, agent stopped
    not run  ADD with flows, lease with flows, CHECK with flows, rules, receive, DEL with flows
    not run  restore
"""


def of(role: str, table: str) -> dict[str, str]:
    """The results of a role's steps by name."""
    rows = [re.split("  +", line.strip()) for line in table.splitlines() if line.strip()]
    return {f"{role}: {name}": result for result, names in rows for name in names.split(", ")}


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def ports(node: Node) -> tuple[str, str]:
    """Two NICs with a cable between them, on a node that forwards."""
    nics = node.nic(16), node.nic(16)
    with open("/proc/thread-self/ns/net") as here:
        ends = [f"{here.fileno()}:{socket.if_nametoindex(nic)}" for nic in nics]
        Path("/sys/bus/netdevsim/link_device").write_text(" ".join(ends))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # So that there is something to change, and to put back.
    judge.set_rings(nics[0], tcp_data_split=1, hds_thresh=100)
    return nics


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """The tool as a process, with its report in tmp_path/report; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        tool = subprocess.Popen(
            [*COMMAND, *arguments, "--report", str(tmp_path / "report")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(tool)
        return tool

    yield start
    for tool in started:
        with tool:  # which waits, and closes its pipe
            tool.kill()


def everything(ports: tuple[str, str]) -> Any:
    """The judge's context, and all settings of both ports."""
    return {**judge.world(), **Machine().state(*ports)}


def told(tool: "subprocess.Popen[str]", folder: Path) -> dict[str, Any]:
    """The report of a run that found failures, by step; the same is in the text and was said."""
    said, _ = tool.communicate()
    assert tool.returncode == 1, said
    report = json.loads((folder / "report.json").read_text())
    assert (report["verdict"], report["simulated"]) == ("failed", True)
    text = (folder / "report").read_text()
    assert "A SIMULATED NIC" in text
    assert all(each["text"] in text and each["text"] in said for each in report["steps"])
    return {each["name"]: each for each in report["steps"]}


def results(steps: dict[str, Any]) -> dict[str, str]:
    """The results by step."""
    return {name: each["result"] for name, each in steps.items()}


def explained(steps: dict[str, Any]) -> str:
    """What it says where the results are not those expected."""
    return "\n".join(f"{name}: {each['result']}: {each['text']}" for name, each in steps.items())


def test_a_simulated_nic_gets_the_truth(ports: tuple[str, str], run: Run, tmp_path: Path) -> None:
    """Every step, with reasons and what was said; nothing is left."""
    before = everything(ports)
    found = told(run(ports[0], "--peer", ports[1], "--copy", "--simulated", "--yes"), tmp_path)
    assert results(found) == {
        **dict.fromkeys(("environment", "peer", "peer back", "as found"), "ok"),
        **of("io_uring", IO_URING),
        **of("af_xdp", AF_XDP_BY_COPYING),
    }, explained(found)
    assert "off [fixed]" in found["io_uring: ntuple filters"]["text"]
    assert "TCP data split:" in found["io_uring: header-data split"]["commands"][0]["stdout"]
    assert everything(ports) == before


def test_what_nobody_asked_for_is_no_success(
    ports: tuple[str, str], run: Run, tmp_path: Path
) -> None:
    """Zero copy is not had by copying, and no traffic without a second port."""
    before = everything(ports)
    found = told(run(ports[0], "--role", "af_xdp", "--simulated", "--yes"), tmp_path)
    assert results(found) == {
        **{"environment": "ok", "peer": "not run", "peer back": "not run", "as found": "ok"},
        **of("af_xdp", AF_XDP),
    }, explained(found)
    assert "xsk-zerocopy" in found["af_xdp: dry run"]["text"]
    assert everything(ports) == before


def test_interrupted_it_puts_everything_back(
    ports: tuple[str, str], run: Run, tmp_path: Path
) -> None:
    """Interrupted while a queue is leased and the other port is away."""
    before = everything(ports)
    tool = run(ports[0], "--peer", ports[1], "--role", "io_uring", "--simulated", "--yes")
    # Three interpreters start until then, which takes a guest beside others half a minute.
    judge.wait_for(lambda: judge.leases(ports[0]), "a queue is leased", 120)
    tool.send_signal(signal.SIGTERM)
    said, _ = tool.communicate()
    assert tool.returncode in (1, 3), said
    assert "interrupted by SIGTERM" in (tmp_path / "report").read_text()
    assert everything(ports) == before


def test_what_is_not_asked_for_is_not_done(ports: tuple[str, str], run: Run) -> None:
    """Without --yes the plan; a simulated NIC only where that is said; none that is in use."""
    nic, other = ports
    judge.run("ip", "addr", "add", "192.0.2.1/24", "dev", other)
    before = everything(ports)

    def refused(*arguments: str) -> str:
        tool = run(*arguments)
        said, _ = tool.communicate()
        assert tool.returncode == 2, said
        return said

    plan = refused(nic, "--simulated")
    assert "io_uring: prepare" in plan
    assert "with --yes" in plan
    assert "only for those" in refused(nic, "--yes")
    assert "is no NIC" in refused("lo", "--yes")
    assert "has addresses" in refused(nic, "--peer", other, "--simulated", "--yes")
    assert everything(ports) == before
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    assert "ip_forward is 0" in refused(nic, "--simulated", "--yes")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert everything(ports) == before


class OnFakeNic(Machine):
    """The plugin in this process, on a NIC that has rules and RSS; ethtool(8) is the real one."""

    def __init__(self, node: Node, ethtool: fake.Ethtool) -> None:
        super().__init__()
        self._node, self._ethtool = node, ethtool

    def plugin(self, verb: str, conf: JSON, netns: str) -> JSON:
        """As ever, but through the node."""
        answer = self._node.call(verb, conf, netns)
        if answer.status:
            raise Failed(str(answer.output))
        return answer.output or {}

    def ethtool(self, option: str, device: str) -> str:
        """What it says of the fake."""
        return self._ethtool.run(option, device)


def test_rules_and_rss_as_ethtool_shows_them(
    node: Node, fake_nic: Callable[..., fake.FakeNic], tmp_path: Path
) -> None:
    """The steps that a netdevsim does not get to: ok where all is well, and failed where not."""
    nic = fake_nic(node.nic())
    given = argparse.Namespace(device=nic.name, queues="4-7", channels=None, copy=False)
    with fake.ethtool("ethtool", nic, fake.compiled(tmp_path), tmp_path) as ethtool:
        role = Role("io_uring", given, OnFakeNic(node, ethtool))
        with pytest.raises(Failed, match=r"found: queues \[0, 1, 2, 3, 4, 5, 6, 7\]"):
            role.rss_spares_the_pool()
        node.prepare(nic.name, "io_uring", "4-7")
        assert role.rss_spares_the_pool() == "over queues [0, 1, 2, 3]"
        role.add("address")
        assert role.lease() == f"queue 7 of {nic.name} is queue 1 of the container's eth0"
        assert role.rules() == "1 to queue 7"
        assert role.check() == "no difference"
        kept = dict(nic.rules)
        nic.rules.clear()
        with pytest.raises(Failed, match=r"found \[\]"):
            role.rules()
        nic.rules.update(kept)
        (rule,) = nic.rules.values()
        rule.fs.ring_cookie = 6
        with pytest.raises(Failed, match="Direct to queue 6"):
            role.rules()
        # DEL leaves that alone: it leads to a queue that is not the container's.
        with pytest.raises(Failed, match="expected no lease and no rule"):
            role.delete()
