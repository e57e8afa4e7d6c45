"""Rules that bring flows to leased queues: the NIC's are those of the fake, the leases the kernel's."""

import os
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cni_netkit.state import Store
from tests.ethtool.fake import RSS, FakeNic, Rxnfc
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node, in_process

FakeNics = Callable[..., FakeNic]
PORT = [{"proto": "tcp", "dstPort": 9000}]


CHANGING = (0x31, 0x32, 0x47)
"""ETHTOOL_SRXCLSRLDEL, ETHTOOL_SRXCLSRLINS, ETHTOOL_SRSSH."""


def shown(nic: FakeNic) -> set[tuple[Any, ...]]:
    """The rules of a fake NIC: protocol, destination, port, queue or context."""
    found = set()
    for rule in nic.rules.values():
        found.add((*_match(rule), *_target(rule)))
    return found


def _match(rule: Rxnfc) -> tuple[str, str, int]:
    protocol, is_4 = {
        1: ("tcp", True),
        2: ("udp", True),
        5: ("tcp", False),
        6: ("udp", False),
    }[rule.fs.flow_type & ~RSS]
    spec = rule.fs.h_u.v4 if is_4 else rule.fs.h_u.v6
    data = bytes(spec.destination)
    text = ".".join(map(str, data)) if is_4 else data.hex(":", 2)
    return protocol, text, spec.port


def _target(rule: Rxnfc) -> tuple[str, int]:
    if rule.fs.flow_type & RSS:
        return "context", int(rule.rule_cnt)
    return "queue", int(rule.fs.ring_cookie)


FD = "fd00:0001:0000:0000:0000:0000:0000:0002"
KINDS: dict[str, tuple[JSON, set[tuple[Any, ...]]]] = {
    "io_uring": ({"workload": "io_uring"}, {("tcp", "10.1.0.2", 0), ("tcp", FD, 0)}),
    "address": (
        {"flows": "address"},
        {(kind, address, 0) for kind in ("tcp", "udp") for address in ("10.1.0.2", FD)},
    ),
    "port": ({"flows": PORT}, {("tcp", "10.1.0.2", 9000), ("tcp", FD, 9000)}),
}


@pytest.mark.parametrize("pairing", ["pair", "single"])
@pytest.mark.parametrize("kind", KINDS)
def test_rules_come_and_go(
    node: Node, conf: Conf, dual_stack: JSON, fake_nic: FakeNics, kind: str, pairing: str
) -> None:
    """One rule for each address and flow, to the leased queue; DEL takes exactly them away."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    lease, expected = KINDS[kind]
    if role := lease.get("workload"):
        node.prepare(name, role, "4-7")
    configuration = conf(pairing=pairing, ipam=dual_stack, lease={"device": name, **lease})
    before = judge.world(c)
    result = node.add(configuration, c)
    assert shown(nic) == {(*match, "queue", 7) for match in expected}
    assert node.check(configuration, c, result).ok
    assert node.call("DEL", configuration, c).ok
    assert shown(nic) == set()
    assert judge.world(c) == before


def test_several_queues_share_a_context(
    node: Node, conf: Conf, dual_stack: JSON, fake_nic: FakeNics
) -> None:
    """Its table is over exactly the leased queues; another's context and rule stay."""
    name, c, d = node.nic(), node.container(), node.container()
    nic = fake_nic(name)
    configuration = conf(ipam=dual_stack, lease={"device": name, "count": 2, "flows": "address"})
    result = node.add(configuration, c)
    assert {target for *_, target in shown(nic)} == {1}
    assert len(shown(nic)) == 4
    assert nic.contexts == {1: [6, 7] * 8}
    second = node.add(configuration, d)
    assert nic.contexts == {1: [6, 7] * 8, 2: [4, 5] * 8}
    assert node.check(configuration, c, result).ok
    assert node.call("DEL", configuration, c).ok
    assert nic.contexts == {2: [4, 5] * 8}
    assert len(shown(nic)) == 4
    assert node.check(configuration, d, second).ok
    assert node.call("DEL", configuration, d).ok
    assert (nic.contexts, shown(nic)) == ({}, set())


def test_without_contexts_rules_go_round(
    node: Node, conf: Conf, dual_stack: JSON, fake_nic: FakeNics
) -> None:
    """The next rule to the next queue, in the order of leasing."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name, knows_contexts=False)
    configuration = conf(ipam=dual_stack, lease={"device": name, "count": 2, "flows": "address"})
    result = node.add(configuration, c)
    assert shown(nic) == {
        ("tcp", "10.1.0.2", 0, "queue", 7),
        ("udp", "10.1.0.2", 0, "queue", 6),
        ("tcp", FD, 0, "queue", 7),
        ("udp", FD, 0, "queue", 6),
    }
    assert node.check(configuration, c, result).ok
    assert node.call("DEL", configuration, c).ok
    assert shown(nic) == set()


def test_single_behind_a_pair(node: Node, conf: Conf, fake_nic: FakeNics) -> None:
    """The addresses are those of the pair before it in the list."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    node.prepare(name, "io_uring", "4-7")
    pair = conf()
    single = conf(
        pairing="single",
        ipam=None,
        ifName="zc0",
        lease={"device": name, "workload": "io_uring"},
    )
    assert node.call("ADD", single, c).error["code"] == 7
    first = node.add(pair, c)
    both = node.add({**single, "prevResult": first}, c)
    assert shown(nic) == {("tcp", "10.1.0.2", 0, "queue", 7)}
    assert node.check(single, c, both).ok
    # Later DELs of containerd know no prevResult.
    assert node.call("DEL", single, c).ok
    assert shown(nic) == set()


@pytest.mark.parametrize(
    ("ntuple", "word"), [(False, "ethtool -K {} ntuple on"), (None, 'set lease.flows to "none"')]
)
def test_nic_without_the_feature(
    node: Node, conf: Conf, fake_nic: FakeNics, ntuple: bool | None, word: str
) -> None:
    """Error 102 with the remedy, and nothing is left."""
    name, c = node.nic(), node.container()
    fake_nic(name, ntuple=ntuple)
    before = judge.world(c)
    configuration = conf(lease={"device": name, "flows": "address"})
    error = node.call("ADD", configuration, c).error
    assert error["code"] == 102
    assert word.format(name) in error["details"]
    assert judge.world(c) == before
    node.add(conf(lease={"device": name, "flows": "none"}), c)


def test_rule_of_another_is_left(node: Node, conf: Conf, fake_nic: FakeNics) -> None:
    """To the same address: error 103 names it. To the same queue: stays through ADD and DEL."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    node.prepare(name, "io_uring", "4-7")
    configuration = conf(lease={"device": name, "workload": "io_uring"})
    node.add(configuration, c)
    ((location, rule),) = nic.rules.items()
    other = Rxnfc.from_buffer_copy(rule)
    other.fs.h_u.v4.port, other.fs.m_u.v4.port = 80, 0xFFFF
    other.fs.location = 3
    elsewhere = Rxnfc.from_buffer_copy(rule)
    elsewhere.fs.ring_cookie, elsewhere.fs.location = 2, 4
    nic.rules |= {3: other, 4: elsewhere}
    assert node.call("DEL", configuration, c).ok
    assert set(nic.rules) == {3, 4}
    nic.rules.clear()
    rule.fs.ring_cookie = 2
    nic.rules[location] = rule
    before = judge.world(c)
    del configuration["ipam"]["ranges"]
    configuration["ipam"] = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}
    error = node.call("ADD", configuration, c).error
    assert error["code"] == 103
    assert f"{name} has a flow rule tcp to 10.1.0.2 into queue 2" in error["msg"]
    assert f"ethtool -N {name} delete {location}" in error["details"]
    assert set(nic.rules) == {location}
    assert judge.world(c) == before


def test_check_names_what_differs(
    node: Node, conf: Conf, dual_stack: JSON, fake_nic: FakeNics
) -> None:
    """A rule that is gone, that leads elsewhere; a table that was changed; the feature off."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    node.prepare(name, "io_uring", "4-7")
    configuration = conf(
        ipam=dual_stack, lease={"device": name, "count": 2, "workload": "io_uring"}
    )
    result = node.add(configuration, c)

    def difference() -> str:
        error = node.check(configuration, c, result).error
        assert error["code"] == 105
        return str(error["msg"])

    nic.contexts[1] = [5, 6] * 8
    assert f"queues of RSS context 1 of NIC {name}: expected 6, 7, found 5, 6" in difference()
    nic.contexts[1] = [6, 7] * 8
    location, rule = nic.rules.popitem()
    assert f"of NIC {name}: expected RSS context 1, found none" in difference()
    rule.fs.flow_type &= ~RSS
    nic.rules[location] = rule
    assert "expected RSS context 1, found queue 0" in difference()
    nic.ntuple = False
    assert f"feature ntuple-filters of NIC {name}: expected on, found off" in difference()


def test_full_table_of_rules(node: Node, conf: Conf, dual_stack: JSON, fake_nic: FakeNics) -> None:
    """The second rule finds no place: error 104 tells, and the first is taken back."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name, places=1)
    configuration = conf(ipam=dual_stack, lease={"device": name, "count": 2, "flows": PORT})
    before = judge.world(c)
    error = node.call("ADD", configuration, c).error
    assert error["code"] == 104
    assert (
        f"insert the flow rule tcp to fd00:1::2 port 9000 into RSS context 1 on {name}"
        in error["msg"]
    )
    assert f"ethtool -n {name}" in error["details"]
    assert (nic.rules, nic.contexts) == ({}, {})
    assert judge.world(c) == before


def test_context_that_another_uses_as_well(node: Node, conf: Conf, fake_nic: FakeNics) -> None:
    """It stays with the other's rule, and DEL has nothing to complain of."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    configuration = conf(lease={"device": name, "count": 2, "flows": PORT})
    node.add(configuration, c)
    (rule,) = nic.rules.values()
    other = Rxnfc.from_buffer_copy(rule)
    other.fs.h_u.v4.destination[3], other.fs.location = 77, 0
    nic.rules[0] = other
    assert node.call("DEL", configuration, c).ok
    assert set(nic.rules) == {0}
    assert set(nic.contexts) == {1}


def test_two_at_the_same_moment(
    node: Node, conf: Conf, fake_nic: FakeNics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would choose the same free location, and the second replace the first's rule."""
    name, containers = node.nic(), [node.container() for _ in range(2)]
    nic = fake_nic(name)
    configuration = conf(lease={"device": name, "flows": PORT})
    meeting = threading.Barrier(2)
    listed = FakeNic._all_rules

    def slowly(self: FakeNic, request: bytes) -> bytes:
        answer = listed(self, request)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(1)  # for the other, who must not come
        return answer

    monkeypatch.setattr(FakeNic, "_all_rules", slowly)
    threads = [threading.Thread(target=node.add, args=(configuration, each)) for each in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {address for _, address, *_ in shown(nic)} == {"10.1.0.2", "10.1.0.3"}
    assert {target for *_, target in shown(nic)} == {6, 7}


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("gone", ["namespace", "device", "nic", "feature"])
def test_whatever_is_gone(node: Node, conf: Conf, fake_nic: FakeNics, verb: str, gone: str) -> None:
    """DEL and GC remove the rules without namespace or device, and succeed without the NIC."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    node.prepare(name, "io_uring", "4-7")
    configuration = conf(lease={"device": name, "count": 2, "workload": "io_uring"})
    node.add(configuration, c)
    if gone == "namespace":
        judge.run("ip", "netns", "del", c)
    elif gone == "device":
        judge.run("ip", "-n", c, "link", "del", "eth0")
    elif gone == "nic":
        node.remove_nic()
        judge.wait_for(lambda: judge.link(name) is None, "the NIC is gone")
    else:
        nic.switch_ntuple(False)
    if verb == "GC":
        assert node.call("GC", configuration).ok
    else:
        assert node.call("DEL", configuration, cid=f"container-{c}").ok
    if gone != "nic":
        assert (nic.rules, nic.contexts) == ({}, {})
    assert list(Store().all()) == []


@pytest.mark.parametrize(("queues", "then"), [(1, "DEL"), (2, "DEL"), (2, "GC")])
def test_death_after_any_change(
    node: Node, conf: Conf, dual_stack: JSON, fake_nic: FakeNics, queues: int, then: str
) -> None:
    """Killed before or after any ioctl that changes the NIC: DEL or GC takes all back."""
    name, c = node.nic(), node.container()
    nic = fake_nic(name)
    lease = {"device": name, "count": queues, "flows": "address"}
    configuration = conf(ipam=dual_stack, lease=lease)
    nic.rules[0] = Rxnfc()  # of a form that we do not make
    before = judge.world(c)
    changes = 4 + (queues == 2)
    for number in range(changes + 1):
        add_and_die(node, configuration, c, nic, after=number)
        assert len(nic.rules) - 1 + len(nic.contexts) == number
        assert node.call(then, configuration, c if then == "DEL" else "").ok
        assert set(nic.rules) == {0}
        assert nic.contexts == {}
        assert judge.world(c) == before


def add_and_die(node: Node, configuration: JSON, c: str, nic: FakeNic, *, after: int) -> None:
    """An ADD in a process that ends before it changes the NIC once more than `after` times."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            changes = 0
            original = FakeNic.ioctl

            def counted(self: FakeNic, request: bytes) -> bytes:
                nonlocal changes
                if request[0] in CHANGING:
                    if changes == after:
                        os.write(writer, state(self))
                        os._exit(0)
                    changes += 1
                return original(self, request)

            FakeNic.ioctl = counted  # type: ignore[method-assign]
            alone = Node(request=in_process)
            alone.call("ADD", configuration, c)
            os.write(writer, state(nic))  # it had no more to change
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        rules, contexts = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    nic.rules = {location: Rxnfc.from_buffer_copy(data) for location, data in rules.items()}
    nic.contexts = contexts


def state(nic: FakeNic) -> bytes:
    """What a process knew of the NIC, to be known by another."""
    return pickle.dumps(
        (
            {location: bytes(rule) for location, rule in nic.rules.items()},
            nic.contexts,
        )
    )
