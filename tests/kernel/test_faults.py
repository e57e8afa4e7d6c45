"""All or nothing: whatever fails, at any step, the world before equals the world after."""

import errno
import itertools
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import plan as plans
from cni_netkit import verbs
from cni_netkit.attachment import Attachment
from cni_netkit.context import Context
from cni_netkit.kernel.errors import KernelError, LostAnswer
from cni_netkit.kernel.link import device
from cni_netkit.kernel.netlink import message
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import IFLA_IFNAME
from cni_netkit.outcome import Outcome
from cni_netkit.spec.errors import CNIError
from cni_netkit.state import Store
from cni_netkit.steps.base import Step
from tests.ethtool.fake import FakeNic
from tests.kernel import judge
from tests.kernel.conftest import JSON, Answer, Conf, Node, links, own_agent
from tests.kernel.promises import ARGUMENTS, claimed

LIMITS = {
    "ingressRate": 1_000_000,
    "ingressBurst": 4294967295,
    "egressRate": 1_000_000,
    "egressBurst": 4294967295,
}


KINDS: dict[str, Callable[[str], JSON]] = {
    "l3 pair": lambda nic: {},
    "l2 pair": lambda nic: {"mode": "l2"},
    "pair without addresses": lambda nic: {"ipam": None},
    "masqueraded pair": lambda nic: {"ipMasq": True},
    "pair with limits": lambda nic: {"runtimeConfig": {"bandwidth": LIMITS}, "ipMasq": True},
    "pair with leases": lambda nic: {"lease": {"device": nic, "count": 2}, "ipMasq": True},
    "pair with flows": lambda nic: {
        "lease": {"device": nic, "count": 2, "flows": "address"},
        "ipMasq": True,
    },
    "single": lambda nic: {"pairing": "single", "ipam": None},
    "single with leases": lambda nic: {"pairing": "single", "lease": {"device": nic, "count": 2}},
    "two single by claims": claimed,
}


class Fault(Exception):
    """What the test makes go wrong."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half_done", [False, True])
def test_failure_at_every_step_leaves_nothing(
    node: Node,
    conf: Conf,
    dual_stack: JSON,
    monkeypatch: pytest.MonkeyPatch,
    fake_nic: Callable[[str], FakeNic],
    kind: str,
    half_done: bool,
) -> None:
    """Each step of each kind of plan fails once, before it did anything and when it was done."""
    nic, c = node.nic(), node.container()
    flows = fake_nic(nic)
    configuration = conf(**{"ipam": dual_stack, **KINDS[kind](nic)})
    before = judge.world(c)
    names = steps_of(node, configuration, c)
    assert judge.world(c) == before, "an ADD and a DEL leave nothing"
    assert "device" in names
    for number, name in enumerate(names):
        with monkeypatch.context() as patch:
            fail_in(patch, plans.KINDS[name], after=half_done, done=names[:number].count(name))
            error = node.call("ADD", configuration, c, args=ARGUMENTS).error
        assert error["code"] == 999
        assert f"fault in {name}" in error["msg"]
        assert "undoing failed" not in error["details"]
        assert judge.world(c) == before, f"{kind}: {name} failed and left something"
        assert (flows.rules, flows.contexts) == ({}, {}), f"{kind}: {name} failed and left flows"


@pytest.mark.parametrize("moment", ["promise", "tell", "commit"])
def test_failure_of_the_record_leaves_nothing(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The record cannot be created, changed, completed, or the result not be told."""
    c = node.container()
    before = judge.world(c)

    def fail(*_arguments: Any, **_keywords: Any) -> None:
        raise OSError(28, "No space left on device")

    place: tuple[Any, str, Any] = {
        "promise": (Store, "create", fail),
        "tell": (verbs, "_result", fail),
        "commit": (Store, "update", fail),
    }[moment]
    monkeypatch.setattr(*place)
    error = node.call("ADD", conf(ipMasq=True), c).error
    assert error["code"] == 5
    assert "No space left on device" in error["msg"]
    assert judge.world(c) == before


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EFAULT, errno.EINTR, errno.ENOMEM])
@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_an_answer_that_is_lost_is_no_refusal(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch, pairing: str, number: int
) -> None:
    """The kernel did what it was asked for; each answer of an ADD gets lost once, and nothing is left."""
    c = node.container()
    before = judge.world(c)
    configuration = conf(pairing=pairing, ipMasq=pairing == "pair")
    receive = NetlinkSocket._receive
    codes = []
    for lost in itertools.count():
        left = [lost]

        def receive_or_lose(self: Any, batch: Any, left: list[int] = left) -> Any:
            answers = receive(self, batch)
            left[0] -= 1
            if left[0] == -1:
                raise LostAnswer(batch[0].asked, number)
            return answers

        with monkeypatch.context() as patch:
            patch.setattr(NetlinkSocket, "_receive", receive_or_lose)
            answer = node.call("ADD", configuration, c)
        if answer.status == 0:
            break
        codes.append(answer.error["code"])
        assert judge.world(c) == before, f"answer {lost} was lost, and something is left"
    assert node.call("DEL", configuration, c).ok
    assert judge.world(c) == before
    assert len(codes) >= 3
    assert set(codes) == {104}


@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_a_device_that_could_not_be_marked(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch, pairing: str
) -> None:
    """Nor deleted at once: the ADD takes it back all the same, since the name was free before."""
    c = node.container()
    before = judge.world(c)

    def wrong(name: str, _alias: str, _index: int = 0) -> Ask:
        return Ask(f"mark {name}", message.link(message.text(IFLA_IFNAME, name)), 0xFFFF)

    with monkeypatch.context() as patch:
        patch.setattr(device, "set_alias", wrong)
        patch.setattr(device, "_delete_unmarked", lambda _socket, _name, error: lose(error))
        error = node.call("ADD", conf(pairing=pairing), c).error
    assert error["code"] == 104
    assert judge.world(c) == before


def lose(error: KernelError) -> None:
    """As where the device could not be deleted."""
    raise LostAnswer(error.asked, error.errno)


@pytest.mark.once  # the launcher brings a socket of the namespace along
def test_no_thread_can_be_started(node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error 11, with what to do; nothing is left."""
    c = node.container()
    before = judge.world(c)

    def refuse(*_arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("cni_netkit.kernel.netns._thread.start_new_thread", refuse)
        error = node.call("ADD", conf(), c).error
    assert error["code"] == 11
    assert "threads-max" in error["details"]
    assert judge.world(c) == before


def test_result_that_the_version_cannot_express_leaves_nothing(node: Node, conf: Conf) -> None:
    """CNI 0.2.0 has no result without an address: error 1, and no device."""
    c = node.container()
    before = judge.world(c)
    error = node.call("ADD", conf(cniVersion="0.2.0", ipam=None), c).error
    assert error["code"] == 1
    assert judge.world(c) == before


def test_host_that_has_a_route_to_the_address_already(node: Node, conf: Conf) -> None:
    """A stale route is named, and left as it is."""
    c = node.container()
    judge.run("ip", "link", "add", "d0", "type", "dummy")
    judge.run("ip", "link", "set", "d0", "addrgenmode", "none", "up")
    judge.run("ip", "route", "add", "10.1.0.2/32", "dev", "d0")
    # Forwarding stays enabled, and brings a multicast route for every device with it.
    judge.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    before = judge.world(c)
    error = node.call("ADD", conf(), c).error
    assert error["code"] == 103
    assert "add the route 10.1.0.2/32 through the device nk" in error["msg"]
    assert "EEXIST" in error["msg"]
    assert judge.world(c) == before


ROUTED = "the address 10.1.0.2 is taken by"


def test_host_that_has_a_route_through_a_device_of_another(node: Node, conf: Conf) -> None:
    """The device is named, and what to do."""
    judge.run("ip", "link", "add", "d0", "type", "dummy")
    judge.run("ip", "link", "set", "d0", "up")
    judge.run("ip", "route", "add", "10.1.0.2/32", "dev", "d0")
    error = node.call("ADD", conf(), node.container()).error
    assert f"{ROUTED} the device d0 on the host, which is not of cni-netkit" in error["msg"]
    assert "ip route show table all 10.1.0.2 shows the route" in error["details"]


def test_host_that_has_a_route_that_leads_nowhere(node: Node, conf: Conf) -> None:
    """No device has it."""
    judge.run("ip", "route", "add", "blackhole", "10.1.0.2/32")
    error = node.call("ADD", conf(), node.container()).error
    assert error["code"] == 103
    assert f"{ROUTED} a route on the host, which is not of cni-netkit" in error["msg"]


@pytest.mark.parametrize("mode", ["l3", "l2"])
def test_an_address_that_another_network_gave(node: Node, conf: Conf, mode: str) -> None:
    """Two networks with one range: network, container and interface that has the address are named."""
    one, other = node.container(), node.container()
    configuration = conf(name="first", mode=mode, ipMasq=True)
    node.add(configuration, one)
    (device,) = (each["ifname"] for each in judge.ip("link") if each["ifname"].startswith("nk"))
    before = judge.world(one, other)
    error = node.call("ADD", conf(name="second", mode=mode, ipMasq=True), other).error
    assert error["code"] == 103
    assert (
        f"{ROUTED} eth0 of container container-{one} on network first (device {device})"
    ) in error["msg"]
    assert "give the networks first and second ranges that do not overlap" in error["details"]
    assert judge.world(one, other) == before
    assert judge.pings("10.1.0.2")
    assert node.call("DEL", configuration, one).ok
    node.add(conf(name="second", mode=mode, ipMasq=True), other)


def test_the_second_address_of_two(node: Node, conf: Conf, dual_stack: JSON) -> None:
    """The address that is taken is named, not the first one."""
    only = {"type": "host-local", "ranges": [[{"subnet": "fd00:1::/64"}]]}
    one = node.container()
    node.add(conf(name="first", ipam=only), one)
    error = node.call("ADD", conf(name="second", ipam=dual_stack), node.container()).error
    assert f"the address fd00:1::2 is taken by eth0 of container container-{one}" in error["msg"]


def test_one_static_address_for_two_containers(node: Node, conf: Conf) -> None:
    """Of one network: then it is not the ranges that are wrong."""
    static = conf(ipam={"type": "static", "addresses": [{"address": "10.1.0.2/24"}]})
    one = node.container()
    node.add(static, one)
    error = node.call("ADD", static, node.container()).error
    assert f"{ROUTED} eth0 of container container-{one} on network net" in error["msg"]
    assert "each of its containers needs an address of its own" in error["details"]


def test_an_address_that_is_masqueraded_for_a_container_that_is_gone(
    node: Node, conf: Conf
) -> None:
    """Its namespace was removed behind the runtime's back: pair and route went, the rules stayed."""
    one = node.container()
    node.add(conf(name="first", ipMasq=True), one)
    judge.run("ip", "netns", "delete", one)
    judge.wait_for(lambda: not judge.ip("route", "show", "10.1.0.2"), "the pair is gone")
    other = node.container()
    before = judge.world(other)
    error = node.call("ADD", conf(name="second", ipMasq=True), other).error
    assert error["code"] == 103
    assert "masquerade 10.1.0.2: the kernel answered EEXIST" in error["msg"]
    assert f"{ROUTED} eth0 of container container-{one} on network first" in error["msg"]
    assert judge.world(other) == before


def test_interface_name_that_is_taken(node: Node, conf: Conf) -> None:
    """A device of that name in the container is left as it is: error 103."""
    c = node.container()
    judge.run("ip", "-n", c, "link", "add", "eth0", "type", "dummy")
    before = judge.world(c)
    error = node.call("ADD", conf(), c).error
    assert error["code"] == 103
    assert "eth0 in the container" in error["msg"]
    assert judge.world(c) == before


def test_device_of_another_does_not_become_ours(node: Node, conf: Conf) -> None:
    """A single device's name is taken in the container: no mark on what is there, nor does DEL take it."""
    c = node.container()
    judge.run("ip", "-n", c, "link", "add", "eth0", "type", "dummy")
    configuration = conf(pairing="single", ipam=None)
    assert node.call("ADD", configuration, c).error["code"] == 103
    assert "ifalias" not in judge.link("eth0", c)
    assert node.call("DEL", configuration, c).ok
    assert judge.link("eth0", c) is not None


def test_attachment_that_exists(node: Node, conf: Conf) -> None:
    """The second ADD fails and the first goes on working."""
    c = node.container()
    node.add(conf(), c)
    before = judge.world(c)
    assert node.call("ADD", conf(), c).error["code"] == 103
    other = node.container()
    error = node.call("ADD", conf(), other, cid=f"container-{c}").error
    assert error["code"] == 103
    assert judge.world(c) == before
    assert judge.pings("10.1.0.2")


def test_failing_undo_keeps_the_record_and_the_first_error(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be undone is told besides, stays on record, and DEL finishes the job."""
    c = node.container()
    before = judge.world(c)
    with monkeypatch.context() as patch:
        fail_in(patch, plans.KINDS["host-routes"], after=False)

        def stuck(self: Any, context: Context, outcome: Outcome) -> None:
            raise CNIError(104, "the device is stuck")

        patch.setattr(plans.KINDS["device"], "undo", stuck)
        error = node.call("ADD", conf(), c).error
    assert "fault in host-routes" in error["msg"]
    assert "the device is stuck" in error["details"]
    assert any(name.endswith(".json") for name in judge.files("/var/lib/cni/netkit"))
    assert node.call("DEL", conf(), c).ok
    assert judge.world(c) == before


def test_del_goes_on_after_a_failure_and_reports_it(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failing release does not stop the others; the next DEL finishes."""
    c = node.container()
    before = judge.world(c)
    configuration = conf(ipMasq=True)
    node.add(configuration, c)
    with monkeypatch.context() as patch:

        def stuck(self: Any, context: Context, outcome: Outcome) -> None:
            raise CNIError(104, "the rules are stuck")

        patch.setattr(plans.KINDS["masquerade"], "undo", stuck)
        error = node.call("DEL", configuration, c).error
    assert error["msg"] == "the rules are stuck"
    assert judge.link("eth0", c) is None
    assert node.call("DEL", configuration, c).ok
    assert judge.world(c) == before


def steps_of(node: Node, configuration: JSON, c: str) -> list[str]:
    """The names of the steps of a configuration's plan, found by one ADD and DEL."""
    seen: list[str] = []
    original = plans.steps

    def spy(*arguments: Any, **keywords: Any) -> tuple[Step, ...]:
        made = original(*arguments, **keywords)
        seen.extend(step.name for step in made)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "steps", spy)
        node.add(configuration, c, args=ARGUMENTS)
    assert node.call("DEL", configuration, c).ok
    return seen


def fail_in(patch: pytest.MonkeyPatch, kind: type[Any], *, after: bool, done: int = 0) -> None:
    """Make one kind of step fail, before or after its work; the first ones are `done`."""
    original = kind.do
    turns = itertools.count()

    def fail(self: Step, context: Context, outcome: Outcome) -> None:
        fails = next(turns) == done
        if after or not fails:
            original(self, context, outcome)
        if fails:
            raise Fault(f"fault in {self.name}")

    patch.setattr(kind, "do", fail)


@pytest.mark.any_kernel
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_a_killed_launcher_asked_for_is_not_done_later(
    node: Node, conf: Conf, launcher: Path, verb: str
) -> None:
    """It waits for the attachment's lock, and by then the runtime has gone on."""
    c = node.container()
    configuration = conf(fallback="veth")
    node.add(configuration, c)
    if verb == "ADD":
        assert node.call("DEL", configuration, c).ok
    before = judge.world(c)

    def locks() -> int:
        return links("/proc/self/fd/*").count("/var/lib/cni/netkit/lock")

    with own_agent() as path, Store().lock(Attachment("net", f"container-{c}", "eth0")):
        asking = partial(ask_and_be_killed, launcher, path, lambda: locks() == 2)
        replace(node, request=asking).call(verb, configuration, c)
    assert judge.world(c) == before


def ask_and_be_killed(
    launcher: Path,
    path: str,
    moment: Callable[[], bool],
    environment: dict[str, str],
    stdin: bytes,
) -> Answer:
    """Call the agent, and be killed when the moment has come."""
    environment = {**environment, "CNI_NETKIT_SOCKET": path}
    with subprocess.Popen([launcher], stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin
        process.stdin.write(stdin)
        process.stdin.close()
        judge.wait_for(moment, "the agent waits for the lock")
        process.kill()
    return Answer(process.returncode, None)
