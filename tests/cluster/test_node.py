"""`cni-netkit node` beside a real API server: what stands in the kernel and in /etc/cni/net.d, as others see it.

The node is a network namespace on a link with the API server; the other nodes are Node objects. Needs no netkit:

    CNI_NETKIT_KUBERNETES=$(tests/cluster/kubernetes) unshare --net --mount --propagation private \\
        .venv/bin/python -m pytest tests/cluster/test_node.py
"""

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.lone_node import (
    BASE,
    COMMAND,
    CONFLIST,
    HERE,
    ME,
    NETNS,
    NODES,
    STATUS,
    SYSTEM,
    TEMPLATE,
    api_server,
    container,
    give_token,
    node,
    node_object,
)
from tests.containers.process import Process
from tests.kernel import judge

JSON = dict[str, Any]
EVENTS = "/api/v1/namespaces/default/events"
NOT_OURS = ("kernel", "boot", "static", "ra")
"""rtprotos of iproute2: what is neither of these is ours, since nobody else is in the namespace."""

SECONDS = 30.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with api_server(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@dataclass
class Cluster:
    """The Node objects, and the one node that there is."""

    plane: ControlPlane
    process: Process

    @property
    def api(self) -> Api:
        return self.plane.api

    def add(self, name: str, *ranges: str, addresses: tuple[str, ...] = ()) -> None:
        """Register a node, as its kubelet and the controller manager do."""
        self.api.create(NODES, node_object(name, ranges, addresses))

    def add_me(self, *ranges: str) -> None:
        """Register the node itself."""
        self.add(ME, *ranges, addresses=HERE)

    def remove(self, name: str) -> None:
        self.api.delete(f"{NODES}/{name}")

    def events(self) -> list[tuple[str, str, str]]:
        """Node, reason and message of each event."""
        return [
            (each["involvedObject"]["name"], each["reason"], each["message"])
            for each in self.api.items(EVENTS)
        ]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until it is so; with what the process said where it does not come."""
        self.process.wait_for(condition, what, SECONDS)

    def begin_beside_node2(self) -> None:
        """Two nodes on the link, and this one ready."""
        self.add_me("10.244.1.0/24")
        self.add("node2", "10.244.2.0/24", addresses=("10.9.0.2",))
        self.process.start()
        self.wait(ready, "readiness")

    def wait_for_routes(self, wanted: dict[str, str]) -> None:
        """Until ours are these: gateways by range."""
        self.wait(lambda: routes() == wanted, f"the routes {wanted}")


def routes() -> dict[str, str]:
    """Gateways of our routes by their ranges, as ip(8) sees them; not those to nowhere."""
    found = judge.ip("route", netns=NETNS) + judge.ip("-6", "route", netns=NETNS)
    ours = [each for each in found if each["protocol"] not in NOT_OURS]
    return {each["dst"]: each["gateway"] for each in ours if "gateway" in each}


def ready() -> bool:
    """What the DaemonSet's readiness probe asks."""
    asked = container()["readinessProbe"]["httpGet"]
    url = f"http://{asked['host']}:{asked['port']}{asked['path']}"
    # It ends with 1 where the answer is an error's, or nobody answers.
    get = ["ip", "netns", "exec", NETNS, "busybox", "wget", "-q", "-O", "/dev/null", url]
    return subprocess.run(get, stderr=subprocess.DEVNULL).returncode == 0


def netkit_plugin() -> JSON:
    """What the list says of our plugin."""
    made: JSON = json.loads(CONFLIST.read_text())["plugins"][0]
    return made


def subnets() -> list[str]:
    """The ranges that the list has for pods."""
    if not CONFLIST.exists():
        return []
    return [each["subnet"] for (each,) in netkit_plugin()["ipam"]["ranges"]]


@pytest.fixture
def template() -> JSON:
    """The ConfigMap's, for a kernel without netkit."""
    made: JSON = json.loads((BASE / "10-netkit.conflist").read_text())
    made["plugins"][0]["fallback"] = "veth"
    return made


@pytest.fixture
def cluster(plane: ControlPlane, template: JSON, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without nodes, and a node with an empty /etc/cni/net.d, on which nothing runs yet."""
    for each in plane.api.items(NODES):
        plane.api.delete(f"{NODES}/{each['metadata']['name']}")
    for each in plane.api.items(EVENTS):
        plane.api.delete(f"{EVENTS}/{each['metadata']['name']}")
    with node(plane, tmp_path / "node.log", json.dumps(template)) as process:
        yield Cluster(plane, process)


def test_a_node_gets_its_list_and_routes_to_the_others(cluster: Cluster, template: JSON) -> None:
    cluster.add_me("10.244.1.0/24", "fd00:10:244:1::/64")
    cluster.add("node2", "10.244.2.0/24", "fd00:10:244:2::/64", addresses=("10.9.0.2", "fd00:9::2"))
    cluster.add("node3", "10.244.3.0/24", addresses=("10.9.0.3",))
    assert not ready()
    cluster.process.start()
    cluster.wait(ready, "readiness")
    assert routes() == {
        "10.244.2.0/24": "10.9.0.2",
        "fd00:10:244:2::/64": "fd00:9::2",
        "10.244.3.0/24": "10.9.0.3",
    }
    wanted = template
    wanted["plugins"][0] |= {
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
        "nonMasqueradeCIDRs": [
            "10.244.1.0/24",
            "10.244.2.0/23",
            "fd00:10:244:1::/64",
            "fd00:10:244:2::/64",
        ],
    }
    assert json.loads(CONFLIST.read_text()) == wanted
    assert stat.S_IMODE(CONFLIST.stat().st_mode) == 0o644
    assert [each.name for each in CONFLIST.parent.iterdir()] == [CONFLIST.name]
    # What no pod has does not leave by the default route.
    for own in ("10.244.1.0/24", "fd00:10:244:1::/64"):
        family = "-6" if ":" in own else "-4"
        (nowhere,) = judge.ip(family, "route", "show", own, netns=NETNS)
        assert nowhere["type"] == "unreachable"
    assert cluster.events() == []


def test_nodes_come_and_go_and_ranges_move(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.process.start()
    cluster.wait(ready, "readiness")
    assert routes() == {}
    cluster.add("node2", "10.244.2.0/24", addresses=("10.9.0.2",))
    cluster.wait_for_routes({"10.244.2.0/24": "10.9.0.2"})
    cluster.add("node3", "10.244.3.0/24", addresses=("10.9.0.3",))
    cluster.wait_for_routes({"10.244.2.0/24": "10.9.0.2", "10.244.3.0/24": "10.9.0.3"})
    cluster.remove("node2")
    cluster.wait_for_routes({"10.244.3.0/24": "10.9.0.3"})
    cluster.add("node4", "10.244.2.0/24", addresses=("10.9.0.4",))
    cluster.wait_for_routes({"10.244.2.0/24": "10.9.0.4", "10.244.3.0/24": "10.9.0.3"})
    moved = {"status": {"addresses": [{"type": "InternalIP", "address": "10.9.0.44"}]}}
    cluster.api.patch(f"{NODES}/node4/status", moved)
    cluster.wait_for_routes({"10.244.2.0/24": "10.9.0.44", "10.244.3.0/24": "10.9.0.3"})
    assert cluster.events() == []


def test_the_list_follows_the_nodes_own_range(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.process.start()
    cluster.wait(lambda: subnets() == ["10.244.1.0/24"], "the list")
    cluster.remove(ME)
    cluster.add_me("10.244.7.0/24")
    cluster.wait(lambda: subnets() == ["10.244.7.0/24"], "the new range")


def test_running_pods_do_not_masquerade_towards_a_node_that_comes(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.process.start()
    cluster.wait(ready, "readiness")
    listed = json.loads(CONFLIST.read_text())
    judge.run("ip", "netns", "add", "pod")
    try:
        plugin = {"cniVersion": listed["cniVersion"], "name": listed["name"], **netkit_plugin()}
        done = subprocess.run(
            ["ip", "netns", "exec", NETNS, sys.executable, "-m", "cni_netkit"],
            input=json.dumps(plugin),
            env=os.environ
            | {
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": "pod",
                "CNI_NETNS": "/run/netns/pod",
                "CNI_IFNAME": "eth0",
                "CNI_PATH": "/opt/cni/bin",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        assert excluded() == {"10.244.1.0/24"}
        cluster.add("node9", "10.244.9.0/24", addresses=("10.9.0.9",))
        cluster.wait(lambda: excluded() == {"10.244.1.0/24", "10.244.9.0/24"}, "the new range")
        cluster.remove("node9")
        cluster.wait(lambda: excluded() == {"10.244.1.0/24"}, "the new range's end")
    finally:
        judge.run("ip", "netns", "del", "pod")


def excluded() -> set[str]:
    """What is in the IPv4 sets of the node, as nft(8) sees them."""
    found = json.loads(judge.run("nft", "-j", "list", "table", "inet", "cni-netkit", netns=NETNS))
    prefixes = [
        element["prefix"]
        for each in found["nftables"]
        if each.get("set", {}).get("type") == "ipv4_addr"
        for element in each["set"].get("elem", ())
    ]
    return {f"{each['addr']}/{each['len']}" for each in prefixes}


def test_a_node_without_a_range_is_told_so_and_has_no_list(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.process.start()
    cluster.wait(ready, "readiness")
    # Deleted and registered anew, it has no range until the controller manager gives it one.
    cluster.remove(ME)
    cluster.add_me()
    cluster.wait(lambda: not CONFLIST.exists(), "the list's end")
    cluster.wait(lambda: bool(cluster.events()), "an event")
    cluster.wait(lambda: not ready(), "the end of readiness")
    ((node, reason, message),) = cluster.events()
    assert (node, reason) == (ME, "NoPodCIDR")
    assert "--allocate-node-cidrs" in message
    assert "--pod-network-cidr" in message
    # What `kubectl describe node` looks for.
    assert reason in cluster.plane.kubectl("describe", "node", ME)
    given = {"spec": {"podCIDR": "10.244.5.0/24", "podCIDRs": ["10.244.5.0/24"]}}
    cluster.api.patch(f"{NODES}/{ME}", given)
    cluster.wait(lambda: subnets() == ["10.244.5.0/24"], "the list")
    cluster.wait(ready, "readiness")
    assert len(cluster.events()) == 1


def test_a_list_of_somebody_else_is_left_alone(cluster: Cluster) -> None:
    theirs = '{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]}'
    CONFLIST.write_text(theirs)
    cluster.add_me("10.244.1.0/24")
    cluster.add("node2", "10.244.2.0/24", addresses=("10.9.0.2",))
    cluster.process.start()
    cluster.wait(lambda: bool(cluster.events()), "an event")
    ((node, reason, message),) = cluster.events()
    assert (node, reason) == (ME, "ForeignConfiguration")
    assert str(CONFLIST) in message
    assert CONFLIST.read_text() == theirs
    assert not ready()
    # The rest is done.
    assert routes() == {"10.244.2.0/24": "10.9.0.2"}
    CONFLIST.unlink()
    cluster.remove("node2")
    cluster.wait(ready, "readiness")


def test_a_node_on_no_link_is_told_of_once(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.add("far", "10.244.2.0/24", addresses=("172.16.0.2",))
    cluster.process.start()
    cluster.wait(lambda: bool(cluster.events()), "an event")
    cluster.add("near", "10.244.3.0/24", addresses=("10.9.0.3",))
    cluster.wait_for_routes({"10.244.3.0/24": "10.9.0.3"})
    ((node, reason, message),) = cluster.events()
    assert (node, reason) == (ME, "NodeNotOnLink")
    for said in ("node far:", "10.244.2.0/24", "172.16.0.2", "Cilium"):
        assert said in message
    assert ready()
    told = json.loads(judge.run(*COMMAND, "doctor", "--json", netns=NETNS, check=False))
    (verdict,) = (each for each in told["verdicts"] if each["about"] == "cluster: NodeNotOnLink")
    assert "far" in verdict["reason"]
    assert "Cilium" in verdict["remedy"]
    cluster.remove("far")
    cluster.wait(lambda: '"problems":[]' in STATUS.read_text(), "no problem")
    assert len(cluster.events()) == 1


def test_it_goes_on_while_the_api_server_is_away(cluster: Cluster) -> None:
    cluster.begin_beside_node2()
    before = CONFLIST.read_bytes()
    cluster.plane.api_server.end(signal.SIGKILL)
    cluster.wait(lambda: "APIServerUnreachable" in STATUS.read_text(), "the problem in the status")
    assert (routes(), CONFLIST.read_bytes()) == ({"10.244.2.0/24": "10.9.0.2"}, before)
    assert ready()
    cluster.plane.start_api_server()
    cluster.remove("node2")
    cluster.add("node3", "10.244.3.0/24", addresses=("10.9.0.3",))
    cluster.wait_for_routes({"10.244.3.0/24": "10.9.0.3"})
    cluster.wait(lambda: '"problems":[]' in STATUS.read_text(), "no problem")


def test_one_that_starts_while_the_api_server_is_away_changes_nothing(cluster: Cluster) -> None:
    cluster.begin_beside_node2()
    before = CONFLIST.read_bytes()
    cluster.process.end(signal.SIGKILL)
    judge.run("ip", "link", "set", "wire", "down")
    cluster.process.start()
    # Whether the one before was ready is no answer any more.
    cluster.wait(lambda: not STATUS.exists(), "the status of the one before is gone")
    cluster.wait(lambda: "APIServerUnreachable" in STATUS.read_text(), "the problem in the status")
    assert not ready()
    assert (routes(), CONFLIST.read_bytes()) == ({"10.244.2.0/24": "10.9.0.2"}, before)
    cluster.remove("node2")
    judge.run("ip", "link", "set", "wire", "up")
    cluster.wait_for_routes({})
    cluster.wait(ready, "readiness")


def test_what_was_deleted_while_nobody_listened_is_found_missing(cluster: Cluster) -> None:
    """Cut off; then the history that it would go on from is compacted: 410 Gone, and a new list."""
    cluster.begin_beside_node2()
    judge.run("ip", "link", "set", "wire", "down")
    # Of a connection that is open, the kernel would bring what was sent when the link is up again.
    cluster.plane.api_server.end(signal.SIGKILL)
    cluster.plane.start_api_server()
    cluster.remove("node2")
    cluster.add("node3", "10.244.3.0/24", addresses=("10.9.0.3",))
    # The API server's cache of what happened goes with it, and etcd's with compaction.
    cluster.plane.api_server.end(signal.SIGKILL)
    compact()
    cluster.plane.start_api_server()
    judge.run("ip", "link", "set", "wire", "up")
    cluster.wait_for_routes({"10.244.3.0/24": "10.9.0.3"})
    assert "listed anew" in cluster.process.log.read_text()
    assert "too old resource version" in cluster.process.log.read_text()


def compact() -> None:
    """Have etcd forget all revisions but the last, by its JSON gateway."""

    def ask(path: str, body: JSON) -> JSON:
        request = urllib.request.Request(
            f"http://127.0.0.1:2379/v3/{path}", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            answered: JSON = json.load(answer)
        return answered

    revision = ask("kv/range", {"key": "AA=="})["header"]["revision"]
    ask("kv/compaction", {"revision": revision, "physical": True})


def test_what_a_killed_one_left_is_put_right(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.add("node2", "10.244.2.0/24", "fd00:10:244:2::/64", addresses=("10.9.0.2", "fd00:9::2"))
    cluster.process.start()
    cluster.wait(ready, "readiness")
    cluster.process.end(signal.SIGKILL)
    judge.run("ip", "route", "add", "10.250.0.0/24", "via", "10.9.0.200", netns=NETNS)
    judge.run("ip", "route", "del", "10.244.2.0/24", netns=NETNS)
    cluster.remove("node2")
    cluster.add("node3", "10.244.2.0/24", addresses=("10.9.0.3",))
    assert not ready()
    cluster.process.start()
    cluster.wait_for_routes({"10.244.2.0/24": "10.9.0.3"})
    (foreign,) = judge.ip("route", "show", "10.250.0.0/24", netns=NETNS)
    assert foreign["gateway"] == "10.9.0.200"
    cluster.wait(ready, "readiness")


def test_a_token_that_was_renewed_is_used(cluster: Cluster) -> None:
    cluster.add_me("10.244.1.0/24")
    cluster.process.start()
    cluster.wait(ready, "readiness")
    account = cluster.api.get(f"{SYSTEM}/serviceaccounts/cni-netkit")
    cluster.api.delete(f"{SYSTEM}/serviceaccounts/cni-netkit")
    # Tokens of the account before are worth nothing any more: they have its UID in them.
    bare = {key: account["metadata"][key] for key in ("name", "namespace")}
    cluster.api.create(f"{SYSTEM}/serviceaccounts", {**account, "metadata": bare})
    cluster.plane.api_server.end(signal.SIGKILL)
    cluster.plane.start_api_server()
    cluster.wait(lambda: "401" in STATUS.read_text() or "Unauthorized" in STATUS.read_text(), "401")
    give_token(cluster.api)
    cluster.add("node2", "10.244.2.0/24", addresses=("10.9.0.2",))
    cluster.wait_for_routes({"10.244.2.0/24": "10.9.0.2"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plugins": [{"type": "bridge"}]}, "0 of its plugins are of type netkit"),
        ({"name": None}, "name"),
    ],
)
def test_a_bad_template_is_refused_at_once(
    cluster: Cluster, template: JSON, change: JSON, said: str
) -> None:
    TEMPLATE.write_text(json.dumps(template | change))
    done = subprocess.run(
        [*COMMAND, "node"], env=os.environ | {"NODE_NAME": ME}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"cni-netkit node: {TEMPLATE}")
    assert said in done.stderr
    assert "ConfigMap" in done.stderr
