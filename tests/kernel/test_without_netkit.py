"""A kernel without netkit: clear errors, or a veth pair if the configuration wants it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni_netkit import plan as plans
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node
from tests.kernel.test_faults import LIMITS, fail_in, steps_of

pytestmark = pytest.mark.without_netkit

EXAMPLE = Path(__file__).parents[2] / "conf" / "40-veth-fallback.conflist"


def test_add_names_the_feature_and_the_remedy(node: Node, conf: Conf) -> None:
    """Error 100: what is missing, which option needs it, since which release; nothing is left."""
    c = node.container()
    before = judge.world(c)
    error = node.call("ADD", conf(), c).error
    assert error["code"] == 100
    assert "CONFIG_NETKIT" in error["msg"]
    assert "6.7" in error["msg"]
    assert 'fallback to "veth"' in error["details"]
    assert judge.world(c) == before


@pytest.mark.parametrize("keys", [{"pairing": "single", "ipam": None}, {"lease": {"device": "lo"}}])
def test_add_advises_no_veth_where_that_is_refused(node: Node, conf: Conf, keys: JSON) -> None:
    """Who follows the advice of error 100 does not meet error 7 next."""
    c = node.container()
    error = node.call("ADD", conf(**keys), c).error
    assert error["code"] == 100
    assert error["details"] == "run Linux 7.1 or later, built with CONFIG_NETKIT=y"
    assert node.call("ADD", conf(fallback="veth", **keys), c).error["code"] == 7


@pytest.mark.parametrize(
    "keys", [{}, {"pairing": "single", "ipam": None}, {"lease": {"device": "lo"}}]
)
def test_status_is_50(node: Node, conf: Conf, keys: JSON) -> None:
    """A broken prerequisite, whatever the configuration needs."""
    error = node.call("STATUS", conf(**keys)).error
    assert error["code"] == 50
    assert "this kernel has no" in error["msg"]


def test_status_with_fallback_is_fine(node: Node, conf: Conf) -> None:
    """With a veth pair in its place nothing is missing."""
    assert node.call("STATUS", conf(fallback="veth")).ok


@pytest.mark.parametrize("mode", ["l3", "l2"])
def test_veth_takes_its_place(node: Node, conf: Conf, dual_stack: JSON, mode: str) -> None:
    """Dual stack pings both ways at once; result, CHECK, DEL as with netkit."""
    one, two = node.container(), node.container()
    before = judge.world(one, two)
    configuration = conf(ipam=dual_stack, fallback="veth", mode=mode, ipMasq=True)
    result = node.add(configuration, one)
    node.add(configuration, two)
    assert result["cni-netkit/fallback"] == "veth"
    assert judge.link("eth0", one)["linkinfo"]["info_kind"] == "veth"
    assert result["interfaces"][1]["mac"] == judge.link("eth0", one)["address"]
    for address in ("10.1.0.2", "fd00:1::2"):
        assert judge.pings(address)
    for address in ("10.1.0.1", "fd00:1::1", "10.1.0.3", "fd00:1::3"):
        assert judge.pings(address, one)
    assert node.check(configuration, one, result).ok
    for c in (one, two):
        assert node.call("DEL", configuration, c).ok
    assert judge.world(one, two) == before


def test_host_end_speaks_ipv6_only_where_the_container_does(
    node: Node, conf: Conf, dual_stack: JSON
) -> None:
    """With an IPv4 address alone there is not even a link-local one."""
    families = []
    for ipam in ({}, {"ipam": dual_stack}):
        result = node.add(conf(fallback="veth", **ipam), node.container())
        (host,) = judge.ip("addr", "show", "dev", result["interfaces"][0]["name"])
        assert "UP" in host["flags"]
        families.append({each["family"] for each in host["addr_info"]})
    assert families == [{"inet"}, {"inet", "inet6"}]


def test_settings_that_may_not_be_changed(node: Node, conf: Conf) -> None:
    """As in a container: the error names the setting and says what to do; nothing is left."""
    c = node.container()
    judge.run("mount", "--bind", "/proc/sys", "/proc/sys")
    try:
        judge.run("mount", "-o", "remount,bind,ro", "/proc/sys")
        before = judge.world(c)
        error = node.call("ADD", conf(fallback="veth"), c).error
        assert judge.world(c) == before
    finally:
        judge.run("umount", "/proc/sys")
    assert error["code"] == 104
    assert "set /proc/sys/net/ipv4/ip_forward to 1: the kernel answered EROFS" in error["msg"]
    assert "remount,bind,rw /proc/sys" in error["details"]
    node.add(conf(fallback="veth"), c)


def test_the_log_warns(node: Node, conf: Conf, capsys: pytest.CaptureFixture[str]) -> None:
    """The fallback is not silent."""
    node.add(conf(fallback="veth"), node.container())
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert any(each["level"] == "warning" and "veth" in each["event"] for each in logged)


@pytest.mark.parametrize("half_done", [False, True])
def test_failure_at_every_step_leaves_nothing(
    node: Node, conf: Conf, dual_stack: JSON, monkeypatch: pytest.MonkeyPatch, half_done: bool
) -> None:
    """As for netkit pairs."""
    c = node.container()
    limits = {"runtimeConfig": {"bandwidth": LIMITS}}
    configuration = conf(ipam=dual_stack, fallback="veth", ipMasq=True, **limits)
    before = judge.world(c)
    names = steps_of(node, configuration, c)
    assert judge.world(c) == before
    for name in names:
        with monkeypatch.context() as patch:
            fail_in(patch, plans.KINDS[name], after=half_done)
            assert f"fault in {name}" in node.call("ADD", configuration, c).error["msg"]
        assert judge.world(c) == before, f"{name} failed and left something"


def test_the_example(node: Node, tmp_path: Path) -> None:
    """conf/40-veth-fallback.conflist, through the executable."""
    conflist = json.loads(EXAMPLE.read_text())
    (plugin,) = conflist["plugins"]
    configuration = {**plugin, "name": conflist["name"], "cniVersion": conflist["cniVersion"]}
    c = node.container()
    for verb, expected in (("ADD", True), ("DEL", False)):
        done = subprocess.run(
            [sys.executable, "-m", "cni_netkit"],
            input=json.dumps(configuration).encode(),
            env={
                **os.environ,
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": "c",
                "CNI_NETNS": f"/run/netns/{c}",
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(tmp_path),
            },
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout
        assert (judge.link("eth0", c) is not None) == expected
        assert bool(done.stdout) == expected
