"""The bandwidth capability on every kind of pair: l3 and l2, or veth where there is no netkit."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.kernel.link import shaping
from cni_netkit.kernel.netlink import message
from tests.kernel import judge
from tests.kernel.conftest import CLONE_NEWNET, JSON, Conf, Node, _call, libc
from tests.kernel.features import kernel_has_netkit

pytestmark = pytest.mark.any_kernel

KINDS = pytest.mark.parametrize("mode", ["l3", "l2"] if kernel_has_netkit() else ["veth"])

RATE = 4_000_000
BURST = 400_000
"""Bits a second, and bits: 50 kB at once. Low, for a lab that is slow and on a busy machine."""

CONTAINERD_BURST = 4294967295


def limited(**given: int) -> JSON:
    """A runtime's bandwidth; without arguments both directions are limited."""
    both = {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST}
    return {"bandwidth": given or both}


class Limited:
    """A container that was attached with limits."""

    def __init__(self, node: Node, configuration: JSON) -> None:
        self.node = node
        self.conf = configuration
        self.netns = node.container()
        self.before = judge.world(self.netns)
        self.result = node.add(configuration, self.netns)
        self.cid = f"container-{self.netns}"
        self.host = self.result["interfaces"][0]["name"]
        self.ifb = self.host.replace("nk", "nb")
        self.addresses = [each["address"].split("/")[0] for each in self.result["ips"]]

    def difference(self) -> str:
        """The text of the difference that CHECK must find."""
        error = self.node.check(self.conf, self.netns, self.result).error
        assert error["code"] == 105
        return str(error["msg"])

    def del_leaves_nothing(self, netns: str | None = None, **without: None) -> None:
        """DEL, with the keys in `without` missing in the configuration."""
        where = self.netns if netns is None else netns
        given = {key: value for key, value in self.conf.items() if key not in without}
        assert self.node.call("DEL", given, where, cid=self.cid).ok
        assert judge.world(self.netns) == self.before


Attach = Callable[..., Limited]


@pytest.fixture
def attach(node: Node, conf: Conf, dual_stack: JSON) -> Attach:
    """Attach a container with limits, those of `limited` unless others are given."""

    def make(mode: str = "l3", *, given: JSON | None = None, **more: Any) -> Limited:
        keys = {"ipam": dual_stack, "runtimeConfig": given or limited(), "fallback": "veth", **more}
        return Limited(node, conf(mode="l3" if mode == "veth" else mode, **keys))

    return make


def socket_in(netns: str) -> socket.socket:
    """A TCP socket of a container, or of the host; where it was made is where it stays."""
    made: list[socket.socket] = []

    def make() -> None:
        if netns:
            descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
            _call(libc.setns, descriptor, CLONE_NEWNET)
            os.close(descriptor)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(60)
    return made[0]


def speed(sender: str, receiver: str, address: str, size: int, at_once: int = 0) -> float:
    """Bits a second that one TCP connection gets from one namespace to another.

    `at_once`: bytes that pass without counting, for the burst.
    """
    content = bytes(size)
    with socket_in(receiver) as listener, socket_in(sender) as client:
        listener.bind((address, 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        thread = threading.Thread(target=client.sendall, args=(content,))
        with server:
            started = time.monotonic()
            thread.start()
            missing = size
            while missing:
                missing -= len(server.recv(1 << 16)) or missing
            took = time.monotonic() - started
        thread.join()
    return (size - at_once) * 8 / took


def both_ways(found: Limited, size: int, at_once: int = 0) -> tuple[float, float]:
    """Bits a second into the container, and out of it."""
    return (
        speed("", found.netns, found.addresses[0], size, at_once),
        speed(found.netns, "", "10.1.0.1", size, at_once),
    )


@KINDS
def test_a_transfer_gets_what_is_configured(attach: Attach, mode: str) -> None:
    """Each direction its own rate; without limits it is several times as fast."""
    found = attach(mode)
    for achieved in both_ways(found, 550_000, BURST // 8):
        assert 0.6 * RATE < achieved < 1.2 * RATE
    found.del_leaves_nothing()
    found = attach(mode, given={"bandwidth": None})
    for achieved in both_ways(found, 4_000_000):
        assert achieved > 3 * RATE


@KINDS
def test_every_protocol_is_shaped(attach: Attach, mode: str) -> None:
    """IPv4 and IPv6 arrive, and pass both token buckets."""
    found = attach(mode)
    buckets = found.host, found.ifb
    for command in (
        *((address, "") for address in found.addresses),
        ("10.1.0.1", found.netns),
        ("fd00:1::1", found.netns),
    ):
        before = [judge.qdisc(each, "tbf")["packets"] for each in buckets]
        assert judge.pings(*command)
        after = [judge.qdisc(each, "tbf")["packets"] for each in buckets]
        assert all(was < now for was, now in zip(before, after, strict=True)), command


@KINDS
@pytest.mark.parametrize("which", ["ingress", "egress"])
def test_one_direction_only(attach: Attach, mode: str, which: str) -> None:
    """The other one is not shaped, and only egress needs an ifb device."""
    found = attach(mode, given=limited(**{f"{which}Rate": RATE, f"{which}Burst": BURST}))
    assert (judge.link(found.ifb) is not None) == (which == "egress")
    assert (judge.qdisc(found.host, "tbf") is not None) == (which == "ingress")
    into, out = both_ways(found, 550_000, BURST // 8)
    shaped, unshaped = (into, out) if which == "ingress" else (out, into)
    assert 0.6 * RATE < shaped < 1.2 * RATE
    assert unshaped > 2 * RATE
    assert found.node.check(found.conf, found.netns, found.result).ok
    found.del_leaves_nothing()


@KINDS
def test_containerds_burst_is_what_it_says(attach: Attach, mode: str) -> None:
    """512 MiB pass at once, also at a rate where the time they take has more than 32 bits of ticks.

    At this rate 34 kB would be left of it.
    """
    rate = 3_124_800
    found = attach(
        mode,
        given=limited(
            IngressRate=rate,
            IngressBurst=CONTAINERD_BURST,
            EgressRate=rate,
            EgressBurst=CONTAINERD_BURST,
        ),
    )
    assert found.node.check(found.conf, found.netns, found.result).ok
    for device in (found.host, found.ifb):
        assert judge.qdisc(device, "tbf")["options"]["rate"] == rate // 8
    for achieved in both_ways(found, 2_000_000):
        assert achieved > 3 * rate
    found.del_leaves_nothing()


@KINDS
def test_the_devices(attach: Attach, mode: str) -> None:
    """The ifb device has the host end's digits, our alias, its MTU, and no address; it is no result."""
    found = attach(mode, mtu=1400)
    assert len(found.result["interfaces"]) == 2
    ifb = judge.link(found.ifb)
    assert ifb["linkinfo"]["info_kind"] == "ifb"
    assert ifb["ifalias"] == judge.link(found.host)["ifalias"]
    assert ifb["mtu"] == 1400
    assert "UP" in ifb["flags"]
    (addressed,) = judge.ip("addr", "show", "dev", found.ifb)
    assert addressed["addr_info"] == []
    assert found.node.check(found.conf, found.netns, found.result).ok
    found.del_leaves_nothing()


@pytest.mark.parametrize("runtime", [{}, limited(ingressRate=0), {"bandwidth": None}], ids=str)
def test_no_limits(attach: Attach, runtime: JSON) -> None:
    """Nothing is shaped, and there is no further device."""
    found = attach(given=runtime or {"mac": None})
    assert judge.link(found.ifb) is None
    assert judge.qdisc(found.host, "tbf") is None
    assert judge.qdisc(found.host, "clsact") is None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("tc qdisc del dev {host} root", "tbf) of device {host} on the host: expected 500000"),
        ("tc qdisc del dev {ifb} root", "tbf) of device {ifb} on the host: expected 500000"),
        (
            "tc qdisc change dev {host} root handle 1: tbf rate 8mbit burst 100kb latency 25ms",
            "rate of the token bucket (tbf) of device {host} on the host, in bytes a second: "
            "expected 500000, found 1000000",
        ),
        (
            "tc qdisc change dev {ifb} root handle 1: tbf rate 4mbit burst 200000 limit 62500",
            "burst of the token bucket (tbf) of device {ifb} on the host, in bytes: "
            "expected 50000, found 200000",
        ),
        (
            "tc qdisc change dev {ifb} root handle 1: tbf rate 4mbit burst 50000 limit 200000",
            "limit of the token bucket (tbf) of device {ifb} on the host, in bytes: "
            "expected 62500, found 200000",
        ),
        ("tc qdisc replace dev {host} root pfifo", "expected 500000 bytes a second, found none"),
        ("tc qdisc del dev {host} clsact", "which {host} receives: expected {ifb}, found none"),
        ("tc filter del dev {host} ingress", "which {host} receives: expected {ifb}, found none"),
        ("ip link set {ifb} down", "state of device {ifb} on the host: expected up, found down"),
        (
            "ip link set {ifb} mtu 1300",
            "MTU of device {ifb} on the host: expected 1400, found 1300",
        ),
        ("ip link del {ifb}", "device {ifb} on the host: expected a device, found none"),
    ],
)
def test_check_finds_every_difference(attach: Attach, command: str, words: str) -> None:
    """What differs, expected and found; and DEL leaves nothing all the same."""
    found = attach(mtu=1400)
    names = {"host": found.host, "ifb": found.ifb}
    judge.run(*command.format(**names).split())
    assert words.format(**names) in found.difference()
    found.del_leaves_nothing()


def test_check_finds_a_redirection_elsewhere(attach: Attach) -> None:
    """To another device, or of some packets only."""
    found = attach()
    judge.run("ip", "link", "add", "elsewhere", "type", "ifb")
    redirection = ["tc", "filter", "replace", "dev", found.host, "ingress", "pref", "1"]
    redirection += ["protocol", "all", "u32"]
    action = ["action", "mirred", "egress", "redirect", "dev"]
    judge.run("tc", "filter", "del", "dev", found.host, "ingress")
    judge.run(*redirection, "match", "u8", "0", "0", "at", "0", *action, "elsewhere")
    expected = f"which {found.host} receives: expected {found.ifb}, found"
    assert f"{expected} elsewhere" in found.difference()
    judge.run("tc", "filter", "del", "dev", found.host, "ingress")
    judge.run(*redirection, "match", "ip", "dport", "80", "0xffff", *action, found.ifb)
    assert f"{expected} none" in found.difference()
    judge.run("ip", "link", "del", "elsewhere")
    found.del_leaves_nothing()


@pytest.mark.parametrize("record", ["kept", "lost"])
def test_another_kind_under_the_name_of_the_ifb(attach: Attach, record: str) -> None:
    """CHECK tells it, DEL leaves it alone: it is not ours."""
    found = attach()
    judge.run("ip", "link", "del", found.ifb)
    judge.run("ip", "link", "add", found.ifb, "type", "veth", "peer", "name", "other")
    judge.run("ip", "link", "set", found.ifb, "up")
    assert f"kind of device {found.ifb} on the host: expected ifb" in found.difference()
    if record == "lost":
        next(Path("/var/lib/cni/netkit").rglob("*.json")).unlink()
    assert found.node.call("DEL", found.conf, found.netns).ok
    assert judge.link(found.ifb) is not None
    assert judge.link(found.host) is None


@pytest.mark.parametrize("whose", ["another's", "ours"])
def test_name_that_is_taken(node: Node, conf: Conf, whose: str) -> None:
    """Error 103, and what bears the name already is left as it is."""
    c = node.container()
    attachment = Attachment("net", f"container-{c}", "eth0")
    name = attachment.ifb_device
    judge.run("ip", "link", "add", name, "type", "ifb")
    if whose == "ours":
        judge.run("ip", "link", "set", name, "alias", attachment.alias)
    before, alias = judge.world(c), judge.link(name).get("ifalias")
    error = node.call("ADD", conf(runtimeConfig=limited(), fallback="veth"), c).error
    assert error["code"] == 103
    assert f"create the ifb device {name}" in error["msg"]
    assert judge.world(c) == before
    assert judge.link(name).get("ifalias") == alias


def test_del_without_the_container_and_its_limits(attach: Attach) -> None:
    """As containerd's later DELs: no namespace, no runtimeConfig; the record knows."""
    found = attach()
    for _ in range(3):
        found.del_leaves_nothing("", runtimeConfig=None)


@pytest.mark.parametrize("runtime", ["with", "without"])
def test_del_without_the_record(attach: Attach, runtime: str) -> None:
    """The ifb device is found by its name, whether or not the limits are told again."""
    found = attach()
    next(Path("/var/lib/cni/netkit").rglob("*.json")).unlink()
    without = {} if runtime == "with" else {"runtimeConfig": None}
    found.del_leaves_nothing(**without)


def test_namespace_that_died_first(attach: Attach) -> None:
    """The kernel took the pair along; the ifb device stayed, and goes now."""
    found = attach()
    judge.run("ip", "netns", "del", found.netns)
    judge.wait_for(lambda: judge.link(found.host) is None, "the pair goes")
    assert judge.link(found.ifb) is not None
    assert found.node.call("DEL", found.conf, "", cid=found.cid).ok
    assert judge.link(found.ifb) is None


def test_renamed_ifb(attach: Attach) -> None:
    """It is found by its index."""
    found = attach()
    judge.run("ip", "link", "set", found.ifb, "down")
    judge.run("ip", "link", "set", found.ifb, "name", "other")
    found.del_leaves_nothing()


@pytest.mark.parametrize("loss", ["nothing", "record", "pair", "pair and record"])
def test_gc(attach: Attach, loss: str) -> None:
    """What is not listed goes, whatever is left of it; what is listed stays."""
    keep, drop = attach(), attach()
    if "record" in loss:
        for path in Path("/var/lib/cni/netkit").rglob(f"{drop.cid}*.json"):
            path.unlink()
    if "pair" in loss:
        judge.run("ip", "link", "del", drop.host)
    valid = [{"containerID": keep.cid, "ifname": "eth0"}]
    given = {key: value for key, value in keep.conf.items() if key != "runtimeConfig"}
    assert keep.node.call("GC", {**given, "cni.dev/valid-attachments": valid}).ok
    assert judge.world(drop.netns) == drop.before
    assert keep.node.check(keep.conf, keep.netns, keep.result).ok
    keep.del_leaves_nothing()


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("tbf", "CONFIG_NET_SCH_TBF"),
        ("ifb", "CONFIG_IFB"),
        ("clsact", "CONFIG_NET_SCH_INGRESS"),
        ("u32", "CONFIG_NET_CLS_U32"),
        ("mirred", "CONFIG_NET_ACT_MIRRED"),
    ],
)
def test_kernel_that_lacks_something(
    node: Node, conf: Conf, monkeypatch: pytest.MonkeyPatch, kind: str, option: str
) -> None:
    """Error 100 names it and its option; nothing is left. The kernel is asked for what it has not."""
    original = message.text

    def misspelt(attribute: int, value: str) -> bytes:
        return original(attribute, "nosuch" if value == kind else value)

    for module in (message, shaping):
        monkeypatch.setattr(module, "text", misspelt)
    c = node.container()
    before = judge.world(c)
    given = limited(egressRate=RATE, egressBurst=BURST)
    error = node.call("ADD", conf(runtimeConfig=given, fallback="veth"), c).error
    assert error["code"] == 100
    assert f"this kernel has no {kind} ({option})" in error["msg"]
    assert "the kernel answered" in error["msg"]
    assert option in error["details"]
    assert judge.world(c) == before


def test_small_burst_is_warned_of(attach: Attach, capsys: pytest.CaptureFixture[str]) -> None:
    """As with the reference plugin it is taken; the log tells what it means."""
    attach(given=limited(ingressRate=2048, ingressBurst=1600))
    (line,) = [json.loads(each) for each in capsys.readouterr().err.splitlines() if "burst" in each]
    assert line["level"] == "warning"
    assert line["ingressBurst"] == 1600


@pytest.mark.parametrize(
    ("rate", "burst"),
    [
        (RATE, BURST),
        (123, 456),
        (2048, 1600),
        (1_000_000, CONTAINERD_BURST),
        (10_000_000, CONTAINERD_BURST),
        (1_000_000_000, 12_000_000),
        (40_000_000_000, 400_000_000),
    ],
)
def test_same_numbers_as_the_reference_plugin(attach: Attach, rate: int, burst: int) -> None:
    """tc(8) shows the same for ours and for `bandwidth` behind `ptp`, on both devices."""
    found = attach(
        given=limited(ingressRate=rate, ingressBurst=burst, egressRate=rate, egressBurst=burst)
    )
    theirs = reference(found.node, rate, burst)
    # It counts a burst's time in whole microseconds, and both round it to ticks of 64 ns.
    tolerance = 2 + rate / 8 / 1_000_000
    for ours, other in ((found.host, theirs[0]), (found.ifb, theirs[1])):
        options, expected = (judge.qdisc(each, "tbf")["options"] for each in (ours, other))
        assert options["rate"] == expected["rate"]
        assert abs(options["burst"] - expected["burst"]) <= tolerance
        assert bool("lat" in options) == bool("lat" in expected)
        assert options.get("limit") == expected.get("limit")
        assert options.get("lat", 0) == pytest.approx(expected.get("lat", 0), rel=0.01)


def reference(node: Node, rate: int, burst: int) -> tuple[str, str]:
    """Attach a container with the reference plugins; the host's end and the ifb device."""
    folder = os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS")
    if not folder:
        pytest.skip("CNI_NETKIT_REFERENCE_PLUGINS is not set: no reference plugins to compare with")
    base = {"cniVersion": "1.0.0", "name": "theirs", "runtimeConfig": limited(
        ingressRate=rate, ingressBurst=burst, egressRate=rate, egressBurst=burst
    )}  # fmt: skip
    ipam = {"type": "host-local", "subnet": "10.2.0.0/24"}
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "theirs",
        "CNI_NETNS": f"/run/netns/{node.container()}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": folder,
        "PATH": os.environ["PATH"],
    }
    result = None
    for plugin in ("ptp", "bandwidth"):
        given = {**base, "type": plugin, "ipam": ipam}
        if result:
            given["prevResult"] = result
        done = subprocess.run(
            [Path(folder, plugin)],
            input=json.dumps(given).encode(),
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        result = json.loads(done.stdout)
    assert result is not None
    host, _, ifb = result["interfaces"]
    return host["name"], ifb["name"]
