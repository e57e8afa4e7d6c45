"""`cni-netkit dra` beside a real API server; the tests are the kubelet, the scheduler and the administrator.

Rows are read as they are on disk, claims and slices as the API server has them. No NIC lends queues here, so those that
are on record are gone: what a slice says of a NIC is published by the tests, with the driver's own code. Needs no netkit:

    CNI_NETKIT_KUBERNETES=$(tests/cluster/kubernetes) unshare --net --mount --propagation private \\
        .venv/bin/python -m pytest tests/cluster/test_driver.py
"""

import copy
import json
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import sample
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cni_netkit.claims import Claim, Share
from cni_netkit.dra import (
    api,
    health_pb2,
    health_pb2_grpc,
    kubelet,
    plugin_pb2,
    plugin_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)
from cni_netkit.dra.inventory import Device
from cni_netkit.dra.keeper import Keeper
from cni_netkit.nics.record import NicRecord, NicStore
from cni_netkit.spec.nics import Preparation
from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.lone_node import (
    DRA,
    ENVIRONMENT,
    HERE,
    ME,
    NODES,
    SYSTEM,
    api_server,
    container,
    driver,
    give_account,
    node_object,
)
from tests.containers.process import Process
from tests.faults import tracer
from tests.faults.tracer import Point

JSON = dict[str, Any]
DRIVER = "queues.cni-netkit"
RESOURCE = "/apis/resource.k8s.io/v1"
SLICES = f"{RESOURCE}/resourceslices"
CLAIMS = f"{RESOURCE}/namespaces/default/resourceclaims"
PODS = f"{SYSTEM}/pods"
REGISTRY = Path(f"/var/lib/kubelet/plugins_registry/{DRIVER}-reg.sock")
STATE = Path("/var/lib/cni/netkit")
ROWS = STATE / "claims"
SHARE = "12345678-1234-1234-1234-123456789012"
SECONDS = 30.0
ANSWER_SECONDS = 20.0
OTHER = "gpu.example"
"""A driver that is not ours."""

LONG_AGO = "2001-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with api_server(tmp_path_factory.mktemp("cluster")) as made:
        made.api.create(NODES, node_object(ME, (), HERE))
        # The driver's pod: what it may do to the status of claims it may on the pod's node.
        pod = made.api.create(PODS, driver_pod())
        give_account(made, pod)
        yield made


def driver_pod() -> JSON:
    """One of the DaemonSet's, as far as the API server looks at it."""
    return {
        "metadata": {"name": "driver"},
        "spec": {
            "nodeName": ME,
            "serviceAccountName": "cni-netkit",
            "containers": [{"name": "dra", "image": "none"}],
        },
    }


@dataclass
class Node:
    """What an administrator, the scheduler and the kubelet do, and what they see."""

    plane: ControlPlane
    process: Process

    @property
    def api(self) -> Api:
        return self.plane.api

    def begin(self) -> None:
        """Start the driver, and register it."""
        self.process.start()
        self.register()
        self.wait(lambda: page("/readyz")[0] == 200, "readiness")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until it is so; with what the process said where it does not come."""
        self.process.wait_for(condition, what, SECONDS)

    def lines(self, event: str) -> list[JSON]:
        """What the driver has told in its log of something."""
        found = [json.loads(each) for each in self.process.log.read_text().splitlines()]
        return [each for each in found if each["event"] == event]

    # The kubelet.

    @contextmanager
    def channel(self, path: Path) -> Iterator[grpc.Channel]:
        """A connection to a socket; in front of the first, until somebody listens."""
        self.wait(partial(listens, path), f"{path}")
        with grpc.insecure_channel(f"unix://{path}") as made:
            yield made

    def register(self, error: str = "") -> Any:
        """What a kubelet does when it sees the socket; `error`: why it will not have the driver."""
        status = registration_pb2.RegistrationStatus(plugin_registered=not error, error=error)
        with self.channel(REGISTRY) as channel:
            stub = registration_pb2_grpc.RegistrationStub(channel)
            info = stub.GetInfo(registration_pb2.InfoRequest(), timeout=ANSWER_SECONDS)
            stub.NotifyRegistrationStatus(status, timeout=ANSWER_SECONDS)
        return info

    @contextmanager
    def served(self) -> Iterator[grpc.Channel]:
        with self.channel(REGISTRY) as channel:
            stub = registration_pb2_grpc.RegistrationStub(channel)
            info = stub.GetInfo(registration_pb2.InfoRequest(), timeout=ANSWER_SECONDS)
        with self.channel(Path(info.endpoint)) as channel:
            yield channel

    def prepare(self, claim: JSON) -> Any:
        """What the driver answers before the pod's ADD."""
        return self._ask("NodePrepareResources", claim)

    def unprepare(self, claim: JSON) -> Any:
        """What the driver answers after the pod's DEL."""
        return self._ask("NodeUnprepareResources", claim)

    def _ask(self, call: str, claim: JSON) -> Any:
        known = claim["metadata"]
        asked = plugin_pb2.Claim(**{key: known[key] for key in ("namespace", "name", "uid")})
        request = getattr(plugin_pb2, f"{call}Request")(claims=[asked])
        with self.served() as channel:
            stub = plugin_pb2_grpc.DRAPluginStub(channel)
            answer = getattr(stub, call)(request, timeout=ANSWER_SECONDS)
        return answer.claims[known["uid"]]

    @contextmanager
    def health(self) -> Iterator[Any]:
        """The stream of what is told of NICs."""
        with self.served() as channel:
            stub = health_pb2_grpc.DRAResourceHealthStub(channel)
            request = health_pb2.NodeWatchResourcesRequest()
            stream = stub.NodeWatchResources(request, timeout=SECONDS)
            yield stream
            stream.cancel()

    # Administrator and scheduler.

    def claim(self, name: str, *results: JSON, **status: Any) -> JSON:
        """A claim that is allocated, and reserved for a pod of its own."""
        spec = {"devices": {"requests": [requested("queues"), requested("gpu")]}}
        pod = {"apiVersion": "v1", "kind": "Pod", "name": pod_of(name), "uid": pod_of(name)}
        metadata = {"name": name, "ownerReferences": [pod]}
        made = self.api.create(CLAIMS, {"metadata": metadata, "spec": spec})
        return self.allocate(made, *results, **status)

    def allocate(
        self,
        claim: JSON,
        *results: JSON,
        parameters: JSON | None = None,
        pods: tuple[str, ...] | None = None,
        pool: str = ME,
        spaced: bool = False,
    ) -> JSON:
        """Anew, as the scheduler does; or for other pods (`pods`: their UIDs)."""
        name = claim["metadata"]["name"]
        found = copy.deepcopy(claim)
        if found.get("status"):  # an allocation is not changed, but taken back
            found["status"] = {}
            found = self.api.ask("PUT", f"{CLAIMS}/{name}/status", found)
        found["status"] = {
            "allocation": allocation(results or (share(pool=pool),), parameters, pool),
            "reservedFor": [
                {"resource": "pods", "name": each, "uid": each}
                for each in (pods if pods is not None else (pod_of(name),))
            ],
        }
        data = json.dumps(found).encode() if spaced else found
        return dict(self.api.ask("PUT", f"{CLAIMS}/{name}/status", data))

    def devices(self, name: str) -> list[JSON]:
        """What is told of what a claim has come to."""
        found = self.api.get(f"{CLAIMS}/{name}")["status"]
        return list(found.get("devices") or ())

    def slice(self) -> JSON:
        """The node's, of which there is one."""
        (found,) = self.api.items(SLICES)
        return found


def requested(name: str) -> JSON:
    return {"name": name, "exactly": {"deviceClassName": "cni-netkit"}}


def allocation(results: tuple[JSON, ...], parameters: JSON | None, node: str) -> JSON:
    """What the scheduler decides."""
    said = {"apiVersion": "cni-netkit/v1", "kind": "Queues", **(parameters or {})}
    opaque = {"driver": DRIVER, "parameters": said}
    config = [{"source": "FromClaim", "requests": [], "opaque": opaque}]
    match = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {
        "devices": {"results": list(results), "config": config},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [match]}]},
    }


def share(pool: str = ME) -> JSON:
    """Two queues of a NIC."""
    return {
        "request": "queues",
        "driver": DRIVER,
        "pool": pool,
        "device": "eth0",
        "consumedCapacity": {"queues": "2"},
        "shareID": SHARE,
    }


def row(claim: JSON, pod: str = "", **said: Any) -> JSON:
    """What is to be on disk of such a claim."""
    name = claim["metadata"]["name"]
    one = {
        "request": "queues",
        "nic": "eth0",
        "count": 2,
        "lease": {"workload": "io_uring"},
        "ifname": "",
        "share": SHARE,
    }
    return {
        "format": 1,
        "namespace": "default",
        "name": name,
        "uid": claim["metadata"]["uid"],
        "pod": pod or pod_of(name),
        "shares": [one | said],
    }


def pod_of(claim: str) -> str:
    """The UID of the pod that a claim is reserved for."""
    return f"pod-of-{claim}"


def path_of(claim: JSON, pod: str = "") -> Path:
    """Where ADD looks for it."""
    return ROWS / f"{pod or pod_of(claim['metadata']['name'])}.{claim['metadata']['uid']}.json"


def rows() -> dict[Path, JSON | str]:
    """All that is on disk; what is no JSON as it is."""
    found: dict[Path, JSON | str] = {}
    for each in ROWS.glob("*"):
        text = each.read_text()
        try:
            found[each] = json.loads(text)
        except ValueError:
            found[each] = text
    return found


def write_row(path: Path, content: JSON | str) -> Path:
    """As one that wrote it before left it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def record_nic(name: str) -> None:
    """A NIC that was prepared, and is gone."""
    preparation = Preparation.model_validate({"device": name, "role": "io_uring", "queues": "4-7"})
    NicStore().save(NicRecord(preparation, ["boot", 2], complete=True))


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(str(path))
    return True


def page(path: str) -> tuple[int, str]:
    """Status and text, as the kubelet's probe and Prometheus get them."""
    asked = container(DRA, "dra")["readinessProbe"]["httpGet"]
    try:
        with urllib.request.urlopen(f"http://{asked['host']}:{asked['port']}{path}") as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figures() -> dict[tuple[str, ...], float]:
    """What Prometheus gets: by name and the values of labels."""
    return {
        (each.name, *each.labels.values()): each.value
        for family in text_string_to_metric_families(page("/metrics")[1])
        for each in family.samples
    }


def delete_all(asked: Api, path: str) -> None:
    for each in asked.items(path):
        asked.delete(f"{path}/{each['metadata']['name']}")


@pytest.fixture
def node(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node without claims, on which the driver does not run yet, and eth0 was prepared and is gone."""
    for path in (CLAIMS, SLICES):
        delete_all(plane.api, path)
    if not plane.api.find(f"{NODES}/{ME}"):
        plane.api.create(NODES, node_object(ME, (), HERE))
    for folder in (STATE, Path("/var/lib/kubelet/plugins"), REGISTRY.parent):
        shutil.rmtree(folder, ignore_errors=True)
    record_nic("eth0")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    process = driver(tmp_path / "dra.log")
    try:
        yield Node(plane, process)
    finally:
        process.end(signal.SIGKILL)


# The kubelet, and one claim.


def test_a_kubelet_finds_it_and_it_is_ready(node: Node) -> None:
    node.process.start()
    node.wait(lambda: page("/readyz")[0] == 503, "not ready")
    node.wait(lambda: ("cni_netkit_dra_published",) in figures(), "figures")
    node.wait(lambda: figures()["cni_netkit_dra_published",] == 1, "the slice")
    assert page("/readyz") == (503, "failed: the kubelet has not registered this driver yet\n")
    assert figures()["cni_netkit_dra_registered",] == 0
    node.register(error="no such version")
    node.wait(lambda: node.lines("the kubelet does not take this driver"), "the refusal")
    (line,) = node.lines("the kubelet does not take this driver")
    assert (line["level"], line["problem"]) == ("error", "no such version")
    assert page("/readyz")[0] == 503
    info = node.register()
    assert (info.type, info.name, list(info.supported_versions)) == (
        "DRAPlugin",
        DRIVER,
        ["v1.DRAPlugin"],
    )
    node.wait(lambda: page("/readyz")[0] == 200, "readiness")
    node.wait(lambda: figures()["cni_netkit_dra_registered",] == 1, "the figure")
    found = node.slice()
    assert found["metadata"]["name"] == f"{ME}-{DRIVER}"
    assert found["spec"]["nodeName"] == ME
    assert found["spec"]["pool"] == {"name": ME, "generation": 1, "resourceSliceCount": 1}
    # Its only NIC is gone.
    assert not found["spec"].get("devices")
    # A page is a second old at most.
    node.register(error="another has this name")
    node.wait(lambda: page("/readyz")[0] == 503, "not ready any more")


def test_a_claim_is_prepared_and_forgotten(node: Node) -> None:
    node.begin()
    claim = node.claim("one", parameters={"workload": "io_uring", "ifName": "fast0"})
    for _ in range(2):
        answer = node.prepare(claim)
        assert answer.error == ""
        (device,) = answer.devices
        assert (device.pool_name, device.device_name, device.share_id) == (ME, "eth0", SHARE)
        assert list(device.request_names) == ["queues"]
        assert rows() == {path_of(claim): row(claim, ifname="fast0")}
    node.wait(lambda: node.devices("one"), "the claim's status")
    (told,) = node.devices("one")
    assert (told["pool"], told["device"], told["shareID"]) == (ME, "eth0", SHARE)
    (condition,) = told["conditions"]
    assert (condition["type"], condition["status"]) == ("Ready", "False")
    node.wait(lambda: figures()["cni_netkit_claims",] == 1, "the figure")
    for _ in range(2):
        assert node.unprepare(claim).error == ""
        assert rows() == {}
    node.wait(lambda: figures()["cni_netkit_claims",] == 0, "the figure")
    found = figures()
    assert found["cni_netkit_claims_answered_total", "prepare", "ok"] == 2
    assert found["cni_netkit_claims_answered_total", "unprepare", "ok"] == 2
    assert found["cni_netkit_dra_written_total", "statuses"] == 1


def test_what_cannot_be_prepared_is_told_in_words(node: Node) -> None:
    """To the kubelet, which has it in the pod's events."""
    node.begin()
    gone = node.claim("gone")
    node.api.delete(f"{CLAIMS}/gone")
    renewed = node.claim("renewed")
    node.api.delete(f"{CLAIMS}/renewed")
    node.claim("renewed")
    wanted = {
        "default/gone": (gone, "is gone"),
        "default/renewed": (renewed, "is gone"),
        "default/wrong": (node.claim("wrong", parameters={"workload": "dpdk"}), "workload"),
        "default/shared": (node.claim("shared", pods=("p", "q")), "reserved for pods p, pods q"),
        "default/free": (node.claim("free", pods=()), "reserved for nobody"),
        "eth7": (node.claim("other", {**share(), "device": "eth7"}), "not prepared on this node"),
    }
    for name, (claim, said) in wanted.items():
        answer = node.prepare(claim)
        assert name in answer.error
        assert said in answer.error
        assert not answer.devices
    assert rows() == {}
    refused = "cni_netkit_claims_answered_total", "prepare", "refused"
    node.wait(lambda: figures()[refused] == len(wanted), "the figure")
    assert [each["claim"] for each in node.lines("claim not prepared")] == [
        f"default/{each['metadata']['name']}" for each, _ in wanted.values()
    ]


def test_it_goes_on_while_the_api_server_is_away(node: Node) -> None:
    node.begin()
    before, after = node.claim("before"), node.claim("after")
    assert node.prepare(before).error == ""
    node.wait(lambda: node.devices("before"), "the claim's status")
    node.plane.api_server.end(signal.SIGKILL)
    try:
        answer = node.prepare(after)
        for said in ("get claim default/after", ENVIRONMENT["KUBERNETES_SERVICE_HOST"], "refused"):
            assert said in answer.error
        assert rows() == {path_of(before): row(before)}
        # What needs nobody works.
        assert node.unprepare(before).error == ""
        assert rows() == {}
        node.register()
        node.wait(lambda: node.lines("the API server is asked again"), "that it is told")
        # NICs' health is the kubelet's business alone.
        with node.health() as stream:
            record_nic("eth9")
            assert wait_for_health(stream, "eth9") == {
                "eth0": "NIC eth0 is gone",
                "eth9": "NIC eth9 is gone",
            }
    finally:
        node.plane.start_api_server()
    assert node.prepare(after).error == ""
    node.wait(lambda: node.devices("after"), "the claim's status")
    node.wait(lambda: page("/readyz")[0] == 200, "readiness")


def test_a_driver_that_starts_while_the_api_server_is_away(node: Node) -> None:
    """What is on record is left alone until the API server says what is right."""
    claim = node.claim("one")
    stale = write_row(ROWS / "pod.none.json", {"format": 1})
    node.plane.api_server.end(signal.SIGKILL)
    try:
        node.process.start()
        node.register()
        node.wait(lambda: node.lines("the API server is asked again"), "that it is told")
        assert page("/readyz") == (503, "failed: the API server is not told of NICs yet\n")
        assert list(rows()) == [stale]
    finally:
        node.plane.start_api_server()
    node.wait(lambda: rows() == {path_of(claim): row(claim)}, "rows and claims agree")
    node.wait(lambda: page("/readyz")[0] == 200, "readiness")


# Rows and claims.


@dataclass
class Beginning:
    """What a driver finds on a node that was off for a while."""

    before: dict[Path, JSON | str]
    after: dict[Path, JSON]
    right: Path

    def lay_out(self, api: Api) -> None:
        """Have the node as it was left, and nothing told to the API server."""
        delete_all(api, SLICES)
        for each in api.items(CLAIMS):
            if each["status"].get("devices"):
                api.patch(
                    f"{CLAIMS}/{each['metadata']['name']}/status", {"status": {"devices": None}}
                )
        shutil.rmtree(ROWS, ignore_errors=True)
        for path, content in self.before.items():
            write_row(path, content)


@pytest.fixture
def beginning(node: Node) -> Beginning:
    """Every way in which rows and claims may differ, and a row that is right."""
    right, deleted, old, moved, elsewhere = (
        node.claim(each) for each in ("right", "deleted", "renewed", "moved", "elsewhere")
    )
    freed, missing, damaged, newer, nobodys = (
        node.claim(each) for each in ("freed", "missing", "damaged", "newer", "nobodys")
    )
    for each in ("deleted", "renewed"):
        node.api.delete(f"{CLAIMS}/{each}")
    node.api.delete(f"{CLAIMS}/nobodys")
    renewed = node.claim("renewed")
    node.allocate(moved, pods=("another",))
    node.allocate(elsewhere, pool="node2")
    node.allocate(freed, pods=())
    node.claim("shared", pods=("p", "q"))
    node.claim("wrong", parameters={"workload": "dpdk"})
    good = {path_of(each): row(each) for each in (right, deleted, old, moved, elsewhere, freed)}
    bad: dict[Path, JSON | str] = {
        path_of(damaged): '{"format": 1, "name',
        path_of(newer): {"format": 99},
        path_of(nobodys): "",
    }
    after = {path_of(each): row(each) for each in (right, renewed, missing, damaged, newer)}
    return Beginning({**good, **bad}, after, path_of(right))


def test_rows_and_claims_are_made_to_agree_at_start(node: Node, beginning: Beginning) -> None:
    beginning.lay_out(node.api)
    before = beginning.right.stat()
    node.begin()
    node.wait(lambda: rows() == beginning.after, "rows and claims agree")
    same = beginning.right.stat()
    assert (same.st_ino, same.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    mended = "cni_netkit_claims_mended_total"
    # deleted, renewed, moved, elsewhere, freed, nobodys; renewed, missing, damaged, newer
    node.wait(
        lambda: [figures()[mended, f"without {each}"] for each in ("claim", "row")] == [6, 4],
        "the figures",
    )
    # Nor is the API server told of what no claim stands behind.
    assert node.lines("a claim's status is not told") == []
    problems = [each["problem"] for each in node.lines("claim passed over")]
    assert len(problems) == 4
    shared = "default/shared is reserved for pods p, pods q"
    for said in (shared, "default/moved is no pod's own", "default/wrong", "default/freed"):
        assert any(said in each for each in problems)


def test_a_driver_killed_and_started_anew_goes_on(node: Node, beginning: Beginning) -> None:
    beginning.lay_out(node.api)
    node.process.start()
    node.wait(lambda: rows_now() != set(beginning.before), "the first row is mended")
    node.process.end(signal.SIGKILL)
    # Its sockets are still there.
    node.begin()
    node.wait(lambda: rows() == beginning.after, "rows and claims agree")


def rows_now() -> set[Path]:
    return set(ROWS.glob("*.json"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_any_moment_of_the_start(node: Node, beginning: Beginning) -> None:
    """Before or after a system call that changes something; the next start mends the rest."""
    beginning.lay_out(node.api)
    calls = tracer.run(reconciled).calls
    points = [Point(number, after) for number in range(len(calls)) for after in (False, True)]
    names = {content["name"] for content in beginning.after.values()}
    mends = [each for each in points if calls[each.number] in ("rename", "unlink")]
    assert len(mends) == 2 * 10, calls  # the rows that are written, or go
    for point in sample(points, 10) + sample(mends, 10):
        beginning.lay_out(node.api)
        assert tracer.run(reconciled, point).killed, point
        assert tracer.run(reconciled).status == 0, point
        assert rows() == beginning.after, point
        assert len(node.api.items(SLICES)) == 1, point
        assert {name for name in names if node.devices(name)} == names, point


def reconciled() -> int:
    """What the driver does first."""
    keeper = Keeper(ME, kubelet.Driver(ME).restore)
    devices = keeper.look()
    keeper.publish(devices, anew=True)
    keeper.reconcile()
    keeper.tell(devices)
    return 0


def test_a_row_damaged_meanwhile_is_mended_at_the_next_comparison(node: Node) -> None:
    node.begin()
    claim = node.claim("one")
    assert node.prepare(claim).error == ""
    write_row(path_of(claim), "{")
    node.register()
    node.wait(lambda: rows() == {path_of(claim): row(claim)}, "the row")


def test_a_claim_deleted_meanwhile_is_found_at_the_next_comparison(node: Node) -> None:
    node.begin()
    claims = [node.claim(each) for each in ("one", "two")]
    for each in claims:
        assert node.prepare(each).error == ""
    node.api.delete(f"{CLAIMS}/one")
    node.register()
    node.wait(lambda: rows() == {path_of(claims[1]): row(claims[1])}, "the row is gone")


# The slice.

NIC = Device("eth0", "eth0", "", 4, {"mtu": 1500, "zeroCopy": True, "role": "io_uring"})


def version(found: JSON) -> str:
    return str(found["metadata"]["resourceVersion"])


def test_a_slice_is_written_where_it_is_news(node: Node) -> None:
    two = [NIC.as_dict(), replace(NIC, name="eth1", nic="eth1").as_dict()]
    assert api.publish(ME, two)
    first = node.slice()
    assert first["spec"]["devices"] == two
    (owner,) = first["metadata"]["ownerReferences"]
    me = node.api.get(f"{NODES}/{ME}")
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", ME, me["metadata"]["uid"])
    assert not api.publish(ME, two)
    assert version(node.slice()) == version(first)
    less = [replace(NIC, queues=3).as_dict()]
    assert api.publish(ME, less)
    second = node.slice()
    assert second["spec"]["devices"] == less
    assert second["spec"]["pool"]["generation"] == 2
    assert second["metadata"]["uid"] == first["metadata"]["uid"]


def test_another_node_of_the_same_name_has_a_slice_of_its_own(node: Node) -> None:
    """The old one goes with the Node object that it is of, whenever that is."""
    assert api.publish(ME, [NIC.as_dict()])
    before = node.slice()
    node.api.delete(f"{NODES}/{ME}")
    with pytest.raises(api.Unreachable, match=f'"{ME}" not found'):
        api.publish(ME, [NIC.as_dict()])
    assert version(node.slice()) == version(before)
    registered = node.api.create(NODES, node_object(ME, (), HERE))
    assert api.publish(ME, [NIC.as_dict()])
    after = node.slice()
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert [each["uid"] for each in after["metadata"]["ownerReferences"]] == [
        registered["metadata"]["uid"]
    ]
    assert after["spec"]["devices"] == before["spec"]["devices"]


def test_a_slice_that_a_kubelet_removed_is_back_when_it_registers(node: Node) -> None:
    node.begin()
    before = version(node.slice())
    node.register()
    written = ("cni_netkit_dra_written_total", "slices")
    claim = node.claim("one")
    assert node.prepare(claim).error == ""
    # By now it has compared all.
    node.wait(lambda: node.devices("one"), "the claim's status")
    assert version(node.slice()) == before
    assert figures()[written] == 1
    node.api.delete(f"{SLICES}/{ME}-{DRIVER}")
    node.register()
    node.wait(lambda: len(node.api.items(SLICES)) == 1, "the slice")
    node.wait(lambda: figures()[written] == 2, "the figure")


# The claims' status.


def told(status: str = "False", message: str = "the pod has no device for it") -> JSON:
    condition = {"type": "Ready", "status": status, "reason": "Any", "message": message}
    return {
        "driver": DRIVER,
        "pool": ME,
        "device": "eth0",
        "shareID": SHARE,
        "conditions": [condition],
    }


def promised(claim: JSON) -> Claim:
    known = claim["metadata"]
    shares = (Share("queues", "eth0", 2, {"workload": "io_uring"}, "", SHARE),)
    return Claim("default", known["name"], known["uid"], pod_of(known["name"]), shares)


def test_what_others_say_of_their_devices_stays(node: Node) -> None:
    gpu = {"request": "gpu", "driver": OTHER, "pool": "gpus", "device": "gpu-0"}
    claim = node.claim("one", share(), gpu)
    theirs = {
        **{key: gpu[key] for key in ("driver", "pool", "device")},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Good",
                "message": "",
                "observedGeneration": 3,
                "lastTransitionTime": LONG_AGO,
            }
        ],
        "data": {"b": [1, {"a": None}]},
        "networkData": {"interfaceName": "ib0", "ips": ["10.0.0.1/24"]},
    }
    claim["status"]["devices"] = [theirs]
    node.api.ask("PUT", f"{CLAIMS}/one/status", claim)
    assert api.tell(promised(claim), [told()])
    before = node.api.get(f"{CLAIMS}/one")
    assert before["status"]["devices"][0] == theirs
    assert [each["driver"] for each in before["status"]["devices"]] == [OTHER, DRIVER]
    assert before["status"]["allocation"] == claim["status"]["allocation"]
    assert before["status"]["reservedFor"] == claim["status"]["reservedFor"]
    assert not api.tell(promised(claim), [told()])
    assert version(node.api.get(f"{CLAIMS}/one")) == version(before)


def test_a_condition_keeps_its_time_until_its_status_changes(node: Node) -> None:
    claim = node.claim("one")
    (entry,) = [told()]
    entry["conditions"][0]["lastTransitionTime"] = LONG_AGO
    node.api.patch(f"{CLAIMS}/one/status", {"status": {"devices": [entry]}})
    assert api.tell(promised(claim), [told(message="zc0 has lost its queues")])
    ((condition,),) = [each["conditions"] for each in node.devices("one")]
    assert condition["message"] == "zc0 has lost its queues"
    assert condition["lastTransitionTime"] == LONG_AGO
    assert api.tell(promised(claim), [told("True", "zc0 has 2 queues of eth0")])
    ((condition,),) = [each["conditions"] for each in node.devices("one")]
    assert condition["status"] == "True"
    assert condition["lastTransitionTime"] > LONG_AGO


def test_a_claim_that_is_another_by_now_is_told_nothing(node: Node) -> None:
    first = node.claim("one")
    node.api.delete(f"{CLAIMS}/one")
    assert not api.tell(promised(first), [told()])
    node.claim("one")
    assert not api.tell(promised(first), [told()])
    assert node.devices("one") == []


def test_a_status_that_the_api_server_will_not_have_holds_up_nothing(node: Node) -> None:
    """Parameters with spaces, as json.dumps() writes them: a patch counts as another allocation."""
    node.begin()
    claim = node.claim("spaced", spaced=True)
    assert node.prepare(claim).error == ""
    not_told = "a claim's status is not told"
    node.wait(lambda: node.lines(not_told), "the line of the log")
    # What is done meanwhile has it looked at again, each time.
    for each in ("one", "two"):
        assert node.prepare(node.claim(each)).error == ""
        node.wait(partial(node.devices, each), "the claim's status")
    assert node.unprepare(node.api.get(f"{CLAIMS}/one")).error == ""
    node.register()
    node.api.delete(f"{CLAIMS}/two")
    node.register()
    node.wait(lambda: rows() == {path_of(claim): row(claim)}, "the rows")
    (line,) = node.lines(not_told)
    assert line["level"] == "error"
    assert "tell the status of claim default/spaced" in line["problem"]
    assert node.lines("the API server is asked again") == []
    assert node.devices("spaced") == []


# Health.


def health_of(answer: Any) -> dict[str, str]:
    """By NIC why it is not well."""
    assert all(each.device.pool_name == ME for each in answer.devices)
    assert all((each.health == health_pb2.HEALTHY) == (not each.message) for each in answer.devices)
    return {each.device.device_name: each.message for each in answer.devices}


def wait_for_health(stream: Any, name: str) -> dict[str, str]:
    """What is told as soon as it names a NIC."""
    return next(found for found in map(health_of, stream) if name in found)


def test_health_is_told_to_each_kubelet_that_asks(node: Node) -> None:
    node.begin()
    with node.health() as first, node.health() as second:
        for each in (first, second):
            assert health_of(next(each)) == {"eth0": "NIC eth0 is gone"}
        record_nic("eth9")
        for each in (first, second):
            assert wait_for_health(each, "eth9")["eth9"] == "NIC eth9 is gone"
        first.cancel()
        record_nic("eth8")
        assert wait_for_health(second, "eth8")["eth8"] == "NIC eth8 is gone"
    # More of them than there are threads, one after the other.
    for _ in range(20):
        with node.health() as stream:
            assert "eth9" in health_of(next(stream))


def test_a_stream_of_health_ends_with_the_driver(node: Node) -> None:
    node.begin()
    with node.health() as stream:
        next(stream)
        node.process.end(signal.SIGTERM)
        # An end, no error.
        assert all("eth0" in health_of(each) for each in stream)
    assert not REGISTRY.exists()
    node.begin()
    with node.health() as stream:
        next(stream)
        node.process.end(signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    node.begin()
    with node.health() as stream:
        assert health_of(next(stream)) == {"eth0": "NIC eth0 is gone"}
