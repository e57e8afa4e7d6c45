"""Queues by a pod's ResourceClaims: a single device for each NIC, chained behind what connects the pod."""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.claims import Share
from tests.kernel import judge
from tests.kernel.conftest import JSON, Command, Conf, Node
from tests.kernel.promises import ARGUMENTS, POD, PORT, prepare, unprepare
from tests.kernel.test_flows import FakeNics, shown

SAID = {"workload": "io_uring", "flows": "address"}
"""What holds for this workload also where it is not said."""

Chained = Callable[..., JSON]


@pytest.fixture
def chained(node: Node) -> Chained:
    """A configuration behind one that gave the container an address."""

    def make(container: str, **keys: Any) -> JSON:
        judge.run("ip", "link", "add", "eth0", "type", "dummy", netns=container)
        judge.run("ip", "addr", "add", "10.1.0.2/24", "dev", "eth0", netns=container)
        return {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "netkit",
            "pairing": "single",
            "claims": True,
            "prevResult": {
                "cniVersion": "1.1.0",
                "interfaces": [{"name": "eth0", "sandbox": f"/run/netns/{container}"}],
                "ips": [{"address": "10.1.0.2/24", "interface": 0}],
            },
            **keys,
        }

    return make


def share(nic: str, count: int, ifname: str = "", request: str = "queues", **lease: Any) -> Share:
    return Share(request, nic, count, lease, ifname)


def test_a_pod_has_the_queues_of_its_claims(
    node: Node, chained: Chained, fake_nic: FakeNics
) -> None:
    """A device for each NIC; CHECK knows them, DEL gives all of it back."""
    one, two, c = node.nic(), node.nic(), node.container()
    before = judge.world(c)
    prepare(share(one, 2), share(two, 1, ifname="fast0", request="other"), name="a")
    prepare(share(one, 3), share(one, 1, request="for-ports", flows=PORT), name="b")
    flows = fake_nic(one)
    config = chained(c)
    with_address = judge.world(c)
    result = node.add(config, c, args=ARGUMENTS)
    assert [each["name"] for each in result["interfaces"]] == ["eth0", "zc0", "fast0", "zc2"]
    assert result["ips"] == config["prevResult"]["ips"]
    index = {name: judge.link(name, c)["ifindex"] for name in ("zc0", "fast0", "zc2")}
    assert judge.leases(one) == {
        **{7 - n: (index["zc0"], 1 + n) for n in range(5)},
        2: (index["zc2"], 1),
    }
    assert shown(flows) == {("tcp", "10.1.0.2", 9000, "queue", 2)}
    assert judge.leases(two) == {7: (index["fast0"], 1)}
    assert node.check(config, c, result, args=ARGUMENTS).ok
    judge.run("ip", "link", "del", "fast0", netns=c)
    failure = node.check(config, c, result, args=ARGUMENTS)
    assert failure.error["code"] == 105
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == with_address
    assert before != with_address
    assert (flows.rules, flows.contexts) == ({}, {})


def test_requests_for_one_nic_are_one_device(
    node: Node, chained: Chained, fake_nic: FakeNics
) -> None:
    """With rules for the flows over all of its queues: two devices would be in each other's way."""
    nic, c = node.nic(), node.container()
    flows = fake_nic(nic)
    node.prepare(nic, "io_uring", "4-7")
    prepare(share(nic, 1, **SAID), share(nic, 2, workload="io_uring"), name="a")
    prepare(share(nic, 1, workload="io_uring"), name="b")
    config = chained(c)
    before = judge.world(c)
    result = node.add(config, c, args=ARGUMENTS)
    assert [each["name"] for each in result["interfaces"]] == ["eth0", "zc0"]
    index = judge.link("zc0", c)["ifindex"]
    assert judge.leases(nic) == {7 - n: (index, n + 1) for n in range(4)}
    assert shown(flows) == {("tcp", "10.1.0.2", 0, "context", 1)}
    assert set(flows.contexts[1]) == {4, 5, 6, 7}
    assert node.check(config, c, result, args=ARGUMENTS).ok
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == before
    assert (flows.rules, flows.contexts) == ({}, {})


def test_a_pod_without_claims_has_nothing_more(node: Node, chained: Chained) -> None:
    """Nor one that has somebody else's; its result is what came before."""
    nic, c = node.nic(), node.container()
    prepare(share(nic, 2), pod="another-pod")
    config = chained(c)
    before = judge.world(c)
    assert node.add(config, c, args=ARGUMENTS) == config["prevResult"]
    assert judge.leases(nic) == {}
    assert node.check(config, c, config["prevResult"], args=ARGUMENTS).ok
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == before


def test_all_or_nothing(node: Node, chained: Chained) -> None:
    """Where the second claim's queues are not there, the first one's are given back."""
    nic, c = node.nic(queues=4), node.container()
    prepare(share(nic, 2), name="a")
    prepare(share(nic, 2), name="b")
    config = chained(c)
    before = judge.world(c)
    failure = node.call("ADD", config, c, args=ARGUMENTS)
    assert failure.error["code"] == 101
    assert judge.world(c) == before
    unprepare("b")
    node.add(config, c, args=ARGUMENTS)
    assert len(judge.leases(nic)) == 2


ENDING = list(itertools.permutations(("Unprepare", "DEL", "GC")))
"""What kubelet and runtime do when a pod is gone, in any order."""


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("order", ENDING, ids="-".join)
def test_a_pods_end_in_any_order(
    node: Node,
    chained: Chained,
    fake_nic: FakeNics,
    order: tuple[str, ...],
    times: int,
) -> None:
    """Each of it once or twice; the first of DEL and GC gives the queues back."""
    one, two, c = node.nic(), node.nic(), node.container()
    flows = fake_nic(one)
    config = chained(c)
    before = judge.world(c)
    prepare(share(one, 2, flows="address"), share(two, 1), name="a")
    prepare(share(one, 1, flows="address"), name="b")
    node.add(config, c, args=ARGUMENTS)
    for number, step in enumerate(order):
        for _ in range(times):
            if step == "Unprepare":
                unprepare("a", "b")
            elif step == "DEL":
                assert node.call("DEL", config, c, args=ARGUMENTS).ok
            else:
                assert node.call("GC", {**config, "cni.dev/valid-attachments": []}).ok
        lent = not {"DEL", "GC"} & {*order[: number + 1]}
        assert bool(judge.leases(one)) == bool(judge.leases(two)) == bool(flows.rules) == lent
    assert judge.world(c) == before
    assert flows.contexts == {}
    assert nothing_on_record()


def nothing_on_record() -> bool:
    """Not even an empty folder, and nobody has a lock; the network's folder stays."""
    store = Path("/var/lib/cni/netkit")
    lock = f":{(store / 'lock').stat().st_ino} "
    held = [line for line in Path("/proc/locks").read_text().splitlines() if lock in line]
    return not held and not [*store.glob("net/*"), *store.glob("claims/*")]


def test_an_attachment_that_is_valid_stays(node: Node, chained: Chained) -> None:
    """A GC that lists it leaves it alone, and a CHECK knows all of it when the row has gone."""
    nic, c = node.nic(), node.container()
    prepare(share(nic, 2))
    config = chained(c)
    result = node.add(config, c, args=ARGUMENTS)
    unprepare("claim")
    before = judge.world(c)
    valid = [{"containerID": f"container-{c}", "ifname": "eth0"}]
    assert node.call("GC", {**config, "cni.dev/valid-attachments": valid}).ok
    assert node.check(config, c, result, args=ARGUMENTS).ok
    assert judge.world(c) == before
    judge.run("ip", "link", "del", "zc0", netns=c)
    assert node.check(config, c, result, args=ARGUMENTS).error["code"] == 105


def test_a_sandbox_is_made_anew(node: Node, chained: Chained) -> None:
    """The kubelet does that without preparing the claim again: it gets as many queues."""
    nic, first, second = node.nic(queues=4), node.container(), node.container()
    prepare(share(nic, 3))
    config = chained(first)
    node.add(config, first, args=ARGUMENTS)
    assert node.call("ADD", config, first, args=ARGUMENTS).error["code"] == 103
    assert len(judge.leases(nic)) == 3
    assert node.call("DEL", config, first, args=ARGUMENTS).ok
    node.add(chained(second), second, args=ARGUMENTS)
    index = judge.link("zc0", second)["ifindex"]
    assert judge.leases(nic) == {3 - n: (index, n + 1) for n in range(3)}
    assert node.call("DEL", config, first, args=ARGUMENTS).ok, "once more, and it is not this one's"
    assert len(judge.leases(nic)) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2}', "format 2, this release knows 1"),
        ('{"format": 1', "delimiter"),
        ("", "Expecting value"),
        ("{}", "shares: Field required"),
    ],
)
def test_a_row_that_cannot_be_read(node: Node, chained: Chained, content: str, said: str) -> None:
    """The pod does not start without its queues; of the others' nothing is left either."""
    nic, c = node.nic(), node.container()
    prepare(share(nic, 1), name="a")
    prepare(share(nic, 1), name="b")
    config = chained(c)
    row = Path(f"/var/lib/cni/netkit/claims/{POD}.b-uid.json")
    row.write_text(content)
    before = judge.world(c)
    error = node.call("ADD", config, c, args=ARGUMENTS).error
    assert error["code"] == 5
    assert f"read a claim's row {row}: " in error["msg"]
    assert said in error["msg"]
    assert "delete the pod" in error["details"]
    assert judge.world(c) == before
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    unprepare("a", "b")
    assert nothing_on_record()


def gone(node: Node, _nic: str, _command: Command) -> None:
    node.remove_nic(node.nics[-1])


def restored(_node: Node, nic: str, command: Command) -> None:
    command("nic", "restore", nic)


def spoilt(_node: Node, nic: str, _command: Command) -> None:
    judge.set_rings(nic, tcp_data_split=1)


def taken(node: Node, nic: str, _command: Command) -> None:
    lease = {"device": nic, "count": 3}
    other = {"cniVersion": "1.1.0", "name": "other", "type": "netkit", "lease": lease}
    node.add(other, node.container())


@pytest.mark.parametrize(
    ("happens", "code", "said"),
    [
        (gone, 102, "there is no device"),
        (restored, 102, "is not prepared for"),
        (spoilt, 102, "is no longer ready for"),
        (taken, 101, "asks for 2 of the queues 4,5,6,7"),
    ],
)
def test_a_promise_that_cannot_be_kept(
    node: Node,
    chained: Chained,
    fake_nic: FakeNics,
    cni_netkit: Command,
    happens: Callable[[Node, str, Command], None],
    code: int,
    said: str,
) -> None:
    """Something became of the NIC since the claim was prepared; the other NIC's queues go back."""
    one, two, c = node.nic(), node.nic(), node.container()
    fake_nic(two)
    node.prepare(two, "io_uring", "4-7")
    prepare(share(one, 1), share(two, 2, workload="io_uring"))
    config = chained(c)
    happens(node, two, cni_netkit)
    before = judge.world(c)
    error = node.call("ADD", config, c, args=ARGUMENTS).error
    assert error["code"] == code
    assert two in error["msg"]
    assert said in error["msg"]
    assert judge.world(c) == before
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == before


@pytest.mark.parametrize("damage", [b"", b'{"format":3,"atta', b"null", b'{"format":3}'])
def test_a_devices_record_that_is_lost(node: Node, chained: Chained, damage: bytes) -> None:
    """Or never was whole, as where a process is killed while it writes it: a DEL ends it by names."""
    nic, c = node.nic(), node.container()
    prepare(share(nic, 2))
    config = chained(c)
    before = judge.world(c)
    node.add(config, c, args=ARGUMENTS)
    Path(f"/var/lib/cni/netkit/net/container-{c}:zc0.json").write_bytes(damage)
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert judge.world(c) == before
    assert not [*Path("/var/lib/cni/netkit/net").iterdir()]


def test_what_has_the_name_of_a_claimed_device_is_left_alone(node: Node, chained: Chained) -> None:
    """The ADD fails, and what another plugin of the list made stays."""
    nic, c = node.nic(), node.container()
    prepare(share(nic, 1), share(nic, 1, ifname="other"))
    config = chained(c)
    named = {key: value for key, value in config.items() if key != "claims"} | {"ifName": "other"}
    node.add(named, c, args=ARGUMENTS)
    before = judge.world(c)
    error = node.call("ADD", config, c, args=ARGUMENTS).error
    assert error["code"] == 103
    assert "other of container" in error["msg"]
    assert judge.world(c) == before


def test_what_the_command_says(node: Node, chained: Chained, cni_netkit: Command) -> None:
    """An attachment without a device is none that is damaged, nor gone while its devices live."""
    nic, c = node.nic(), node.container()
    node.prepare(nic, "af_xdp", "4-7")
    prepare(share(nic, 2))
    config = chained(c)
    faults = [each for each in cni_netkit.json("doctor")["verdicts"] if not each["ok"]]
    node.add(config, c, args=ARGUMENTS)
    found = [each for each in cni_netkit.json("doctor")["verdicts"] if not each["ok"]]
    assert found == faults
    base, device = cni_netkit.json("list")["attachments"]
    pod = {"podNamespace": "default", "podName": "pod", "containerID": f"container-{c}"}
    assert base.items() >= {**pod, "ifname": "zc", "state": "complete", "kind": None}.items()
    assert base["leases"] == []
    assert device.items() >= {**pod, "ifname": "zc0", "addedTo": "zc", "pairing": "single"}.items()
    assert device["leases"] == [
        {"nic": nic, "queue": 7 - n, "deviceQueue": n + 1} for n in range(2)
    ]
    assert "damaged" not in cni_netkit("list")
    (listed,) = [each for each in cni_netkit.json("leases")["nics"] if each["name"] == nic]
    leased = {each["number"]: each["lease"] for each in listed["queues"] if each["lease"]}
    assert {each["attachment"]["ifname"] for each in leased.values()} == {"zc0"}
    assert set(leased) == {7, 6}
    # More queues for the pod, and back, without a word of the first ones.
    container = f"container-{c}"
    before = judge.world(c)
    added = cni_netkit.json("lease", "add", container, "--device", nic, "--ifname", "more0")
    assert (added["addedTo"], added["ifname"]) == ("zc", "more0")
    assert set(judge.leases(nic)) == {7, 6, 5}
    cni_netkit("lease", "remove", container, "--ifname", "more0")
    assert judge.world(c) == before
    # A process is in the namespace, whose name is gone.
    with open(f"/run/netns/{c}"):
        judge.run("ip", "netns", "del", c)
        said = cni_netkit.json("gc")["attachments"]
        assert {each["ifname"]: each["due"] for each in said} == {"zc": False, "zc0": False}
        assert "its device is there" in said[0]["reason"]
        assert set(judge.leases(nic)) == {7, 6}
    judge.wait_for(lambda: not judge.leases(nic), "the namespace has gone, and its devices")
    said = cni_netkit.json("gc")["attachments"]
    assert {each["ifname"]: each["released"] for each in said} == {"zc": True, "zc0": True}
    assert not [*Path("/var/lib/cni/netkit/net").iterdir()]


@pytest.mark.once
def test_who_has_no_claims_pays_nothing_for_them(node: Node, chained: Chained, conf: Conf) -> None:
    """In a network without them no row is read, nor what reads rows loaded."""
    nic, c = node.nic(), node.container()
    prepare(share(nic, 1))
    (row,) = Path("/var/lib/cni/netkit/claims").iterdir()
    row.write_text("{")

    def loads(config: JSON) -> bool:
        """Whether an ADD has loaded it; a process for each, as without an agent."""
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"container-{c}",
            "CNI_NETNS": f"/run/netns/{c}",
            "CNI_IFNAME": "net0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": ARGUMENTS,
        }
        code = (
            "import sys; from cni_netkit.verbs import handle; "
            f"status = handle({environment!r}, lambda: {json.dumps(config).encode()!r}).status; "
            "print(status, 'cni_netkit.claims' in sys.modules)"
        )
        status, found = judge.run(sys.executable, "-c", code).split()
        assert int(status) == int(config.get("claims", False)), "only one of them minds the row"
        return found == "True"

    assert not loads(conf())
    assert loads(chained(c))
