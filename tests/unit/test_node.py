"""`cni-netkit node`: what follows from a template and Node objects, and what is told of it."""

import copy
import errno
import json
import threading
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import apiserver
from cni_netkit.admin import verdicts
from cni_netkit.kernel.errors import KernelError
from cni_netkit.node import api, reconciler, status
from cni_netkit.node.conflist import ForeignList, Template, remove, write
from cni_netkit.node.nodes import Node, routes
from cni_netkit.node.routes import NodeRoute
from cni_netkit.node.status import Problem, Status
from cni_netkit.spec.errors import CNIError

JSON = dict[str, Any]
BASE = Path(__file__).parents[2] / "conf/kubernetes/base/10-netkit.conflist"
DUAL = ("10.244.1.0/24", "fd00:10:244:1::/64")
PLAIN: JSON = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {"type": "netkit", "ipMasq": True, "ipam": {"type": "host-local"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def read(given: JSON) -> Template:
    return Template.read(json.dumps(given).encode(), "the template")


def with_ipam(**keys: Any) -> JSON:
    made = copy.deepcopy(PLAIN)
    made["plugins"][0]["ipam"] |= keys
    return made


def with_netkit(**keys: Any) -> JSON:
    made = copy.deepcopy(PLAIN)
    made["plugins"][0] |= keys
    return made


def completed(given: JSON, ranges: tuple[str, ...] = DUAL, cluster: tuple[str, ...] = DUAL) -> Any:
    """The plugin of type netkit, of the list that is made."""
    return read(given).complete(ranges, cluster, "the template")["plugins"][0]


def test_a_list_is_the_template_with_what_is_the_nodes_own() -> None:
    template = Template.read(BASE.read_bytes(), str(BASE))
    made = template.complete(DUAL, [*DUAL, "10.244.0.0/24"], str(BASE))
    given = json.loads(BASE.read_text())
    netkit = made["plugins"][0]
    assert netkit["ipam"] == {
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    assert netkit["nonMasqueradeCIDRs"] == ["10.244.0.0/23", "fd00:10:244:1::/64"]
    del netkit["nonMasqueradeCIDRs"]
    netkit["ipam"] = given["plugins"][0]["ipam"]
    assert made == given


def test_a_node_of_one_family_has_one_default_route() -> None:
    made = completed(PLAIN, ("fd00::/64",))
    assert made["ipam"]["routes"] == [{"dst": "::/0"}]


def test_what_the_template_has_stays() -> None:
    own = [{"dst": "10.0.0.0/8"}]
    made = completed(with_ipam(routes=own, dataDir="/var/lib/elsewhere"))
    assert (made["ipam"]["routes"], made["ipam"]["dataDir"]) == (own, "/var/lib/elsewhere")


def test_ranges_that_the_template_names_are_not_masqueraded_either() -> None:
    given = with_netkit(nonMasqueradeCIDRs=["10.244.0.0/16", "192.168.0.0/16"])
    made = completed(given, DUAL, (*DUAL, "10.244.7.0/24"))
    assert made["nonMasqueradeCIDRs"] == ["10.244.0.0/16", "192.168.0.0/16", DUAL[1]]


def test_thousands_of_nodes_of_which_some_are_gone() -> None:
    """More ranges than a list may have are told by wider ones."""
    numbers = [number for number in range(5000) if number % 3]
    cluster = [
        *(f"10.{number >> 8}.{number & 255}.0/24" for number in numbers),
        *(f"fd00:10:{number:x}::/64" for number in numbers),
    ]
    found = completed(PLAIN, DUAL, tuple(cluster))["nonMasqueradeCIDRs"]
    for each in map(ip_network, cluster[::100]):
        assert any(each.overlaps(ip_network(wide)) for wide in found)


def test_without_masquerading_nothing_is_left_out_of_it() -> None:
    assert "nonMasqueradeCIDRs" not in completed(with_netkit(ipMasq=False))


def test_only_the_plugin_with_host_local_gets_the_ranges() -> None:
    given = copy.deepcopy(PLAIN)
    single = {"type": "netkit", "pairing": "single", "ifName": "rxq0"}
    given["plugins"].insert(0, single)
    made = read(given).complete(DUAL, DUAL, "the template")["plugins"]
    assert made[0] == single
    assert "ranges" in made[1]["ipam"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"{", "is no JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "plugins must be a list of objects"),
        (b'{"plugins": ["netkit"]}', "plugins must be a list of objects"),
        ({**PLAIN, "plugins": PLAIN["plugins"][1:]}, "0 of its plugins are of type netkit"),
        ({**PLAIN, "plugins": PLAIN["plugins"][:1] * 2}, "2 of its plugins are of type netkit"),
        (with_netkit(ipam={"type": "whereabouts"}), "0 of its plugins are of type netkit"),
        (with_ipam(ranges=[[{"subnet": "10.244.0.0/24"}]]), "plugins.0.ipam has ranges"),
        (with_ipam(subnet="10.244.0.0/24"), "plugins.0.ipam has subnet"),
        (with_ipam(routes="all"), "routes"),
        (
            with_netkit(mood="l2"),
            "plugins.0: the network configuration has keys that are not supported: mood",
        ),
        (with_netkit(nonMasqueradeCIDRs=["10.244.0.0/160"]), "nonMasqueradeCIDRs"),
        (with_netkit(nonMasqueradeCIDRs=7), "nonMasqueradeCIDRs"),
        ({**PLAIN, "cniVersion": "9.0.0"}, "9.0.0"),
        ({key: value for key, value in PLAIN.items() if key != "name"}, "name"),
    ],
)
def test_a_template_that_cannot_be_completed_is_refused(given: Any, said: str) -> None:
    data = given if isinstance(given, bytes) else json.dumps(given).encode()
    with pytest.raises(CNIError) as refused:
        Template.read(data, "the template")
    assert refused.value.message.startswith("the template")
    assert said in refused.value.message
    assert "ConfigMap" in refused.value.details


def test_a_range_that_is_too_small_is_refused() -> None:
    with pytest.raises(CNIError, match="too small"):
        completed(PLAIN, ("10.244.1.0/31",))


def test_a_list_is_written_where_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "10-netkit.conflist"
    assert [write(path, PLAIN), write(path, PLAIN)] == [True, False]
    assert json.loads(path.read_text()) == PLAIN
    assert write(path, {**PLAIN, "name": "others"})
    assert [remove(path), remove(path)] == [True, False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "theirs", ['{"plugins": [{"type": "bridge"}]}', '{"type": "netkit"}', "{", ""]
)
def test_what_is_not_ours_is_neither_replaced_nor_removed(tmp_path: Path, theirs: str) -> None:
    path = tmp_path / "10-netkit.conflist"
    path.write_text(theirs)
    with pytest.raises(ForeignList, match=str(path)):
        write(path, PLAIN)
    with pytest.raises(ForeignList, match=str(path)):
        remove(path)
    assert path.read_text() == theirs


def test_a_route_goes_by_the_address_of_its_family() -> None:
    nodes = {
        "me": Node.of(DUAL, ("10.9.0.1", "fd00:9::1")),
        "other": Node.of(
            ("10.244.2.0/24", "fd00:2::/64"), ("name.example", "fd00:9::2", "10.9.0.2", "10.9.0.3")
        ),
    }
    assert routes("me", nodes) == (
        [
            NodeRoute("me", DUAL[0]),
            NodeRoute("me", DUAL[1]),
            NodeRoute("other", "10.244.2.0/24", "10.9.0.2"),
            NodeRoute("other", "fd00:2::/64", "fd00:9::2"),
        ],
        [],
    )


def test_a_node_without_an_address_of_the_family_is_told_of() -> None:
    nodes = {f"n{number}": Node((f"10.244.{number}.0/24",), ("fd00:9::2",)) for number in range(8)}
    made, (problem,) = routes("me", nodes)
    assert made == []
    assert problem.reason == "NoInternalIP"
    assert "nodes n0, n1, n2, n3, n4 and 3 more" in problem.text
    assert "--node-ip" in problem.remedy
    assert problem.about == tuple(nodes)


class Events:
    """What a node's events say; `away`: the API server cannot be reached."""

    def __init__(self) -> None:
        self.away = False
        self.told: list[tuple[str, str, str]] = []

    def create(self, node: str, reason: str, text: str) -> None:
        if self.away:
            raise ConnectionError("nobody answers")
        self.told.append((node, reason, text))


def refused(*nodes: str) -> Problem:
    return Problem("NodeNotOnLink", f"no route to {', '.join(nodes)}", "build a road", nodes)


def test_a_problem_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    events = Events()
    teller = reconciler.Teller("me", events.create)
    events.away = True
    teller.tell([refused("a")])
    events.away = False
    for _ in range(3):
        teller.tell([refused("a")])
    assert events.told == [("me", "NodeNotOnLink", "no route to a; build a road")]
    # Other nodes come later, many one after the other: not an event for each.
    teller.tell([refused("a", "b")])
    assert len(events.told) == 1
    # One that comes again is told of again.
    teller.tell([])
    teller.tell([Problem("NoNode", "gone", "wait")])
    assert [reason for _, reason, _ in events.told] == ["NodeNotOnLink", "NoNode"]
    assert "build a road" in capsys.readouterr().err


def test_nodes_that_come_later_are_told_of_with_the_next_resync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    events = Events()
    teller = reconciler.Teller("me", events.create)
    teller.tell([refused("a")])
    teller.tell([refused("a", "b")])
    now += status.RESYNC_SECONDS
    teller.tell([refused("a", "b")])
    assert [text for _, _, text in events.told] == [
        "no route to a; build a road",
        "no route to a, b; build a road",
    ]


def test_attempts_come_more_and_more_slowly_but_never_too_slowly() -> None:
    first, most = apiserver.BACKOFF_SECONDS
    assert first / 2 <= apiserver.pause(0) <= first
    assert all(most / 2 <= apiserver.pause(attempt) <= most for attempt in (10, 5000))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_the_thread_that_watches_is_noticed() -> None:
    """The process ends then: it would go on for ever with what it knows."""

    class Faulty(api.Nodes):
        def _keep(self) -> None:
            raise ZeroDivisionError

    changed = threading.Event()
    nodes = Faulty(changed)
    before = nodes.has_ended
    nodes.start()
    assert changed.wait(10)
    assert (before, nodes.has_ended) == (False, True)
    for thread in threading.enumerate():  # so that what it says is of this test
        if thread.name == "nodes":
            thread.join(10)


def state(**keys: Any) -> Status:
    fields: JSON = {"ready": True, "ranges": DUAL, "nodes": 3, "routes": 4, "problems": ()}
    return Status(**{"node": "me", "written": 0.0, **fields, **keys})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the status is."""
    path = tmp_path / "node" / "status.json"
    monkeypatch.setattr(status, "FILE", path)
    monkeypatch.setattr(time, "time", lambda: 100.0)
    return path


def told() -> list[JSON]:
    return [*verdicts.of_node()]


def test_the_doctor_says_nothing_of_a_cluster_where_there_is_none(file: Path) -> None:
    assert told() == []


def test_the_doctor_tells_what_the_status_says(file: Path) -> None:
    state().save(file)
    assert [(each["about"], each["ok"]) for each in told()] == [("cluster", True)]
    state(problems=(refused("a"),)).save(file)
    (verdict,) = told()
    assert (verdict["about"], verdict["ok"]) == ("cluster: NodeNotOnLink", False)
    assert (verdict["reason"], verdict["remedy"]) == ("no route to a", "build a road")


def test_the_doctor_notices_a_status_that_nobody_renews(file: Path) -> None:
    state(written=100.0 - 3600).save(file)
    (verdict,) = told()
    assert "60 minutes" in verdict["reason"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2}', "format 2"),
        ("{", "read"),
        ('{"format": 1}', "read"),
        ('{"format": 1, "problems": 7}', "read"),
    ],
)
def test_the_doctor_says_what_it_cannot_read(file: Path, content: str, said: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    (verdict,) = told()
    assert said in verdict["reason"]
    assert not verdict["ok"]


def test_refusals_are_told_by_what_is_to_be_done() -> None:
    refusals = {
        NodeRoute("b", "10.2.0.0/24", "172.16.0.2"): KernelError("add b", errno.ENETUNREACH),
        NodeRoute("a", "10.1.0.0/24", "172.16.0.1"): KernelError("add a", errno.ENETUNREACH),
        NodeRoute("c", "10.3.0.0/24", "10.9.0.3"): KernelError("add c", errno.EEXIST),
    }
    occupied, far = reconciler.told(refusals)
    assert (far.reason, far.about) == ("NodeNotOnLink", ("a", "b"))
    assert "nodes a, b: add a" in far.text
    assert "Cilium" in far.remedy
    assert (occupied.reason, occupied.about) == ("RouteExists", ("c",))
    assert "two nodes" in occupied.remedy
