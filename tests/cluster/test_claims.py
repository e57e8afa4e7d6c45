"""Queues as resources: the scheduler finds the node, the kubelet prepares the claim, ADD takes the queues."""

import json
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import PODS, READY, Cluster, addresses_of, condition, pod, wait_for
from tests.cluster.left import nothing_left
from tests.cluster.machine import NETWORKS, Machine
from tests.cluster.test_leases import leased
from tests.kernel import judge

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
RESOURCES = "/apis/resource.k8s.io/v1"
SLICES = f"{RESOURCES}/resourceslices"
TEMPLATES = f"{RESOURCES}/namespaces/default/resourceclaimtemplates"
CLAIMS = f"{RESOURCES}/namespaces/default/resourceclaims"
DRIVER = "queues.cni-netkit"
NODES = ("node-2", "node-3")
POOL = range(4, 8)
NIC = 91
OTHER_END = 95
SECONDS = 30
OURS, OTHERS = "192.0.2.2", "192.0.2.1"
CLASSES = f"{RESOURCES}/deviceclasses"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
NUMA = "resource.kubernetes.io/numaNode"
SIMULATED = "simulated.example"
FAILED = "FailedPrepareDynamicResources"


@dataclass
class Nic:
    """A netdevsim of a node, with queues 4 to 7 to be claimed."""

    cluster: Cluster
    node: str
    number: int
    role: str
    name: str = ""

    @property
    def machine(self) -> Machine:
        return self.cluster.machines[self.node]

    def plug(self) -> None:
        """Have it there, up and prepared."""
        run = self.machine.run
        run("sh", "-c", f"echo '{self.number} 1 8' >/sys/bus/netdevsim/new_device")
        folder = f"/sys/bus/netdevsim/devices/netdevsim{self.number}/net"
        look = partial(run, "ls", folder, check=False)
        self.name = str(wait_for(look, "the NIC is there")).strip()
        run("ip", "link", "set", self.name, "up")
        self.prepare()

    def prepare(self) -> None:
        what = ["--role", self.role, "--queues", f"{POOL[0]}-{POOL[-1]}"]
        what += ["--copy"] * (self.role == "af_xdp")
        command = ("cni-netkit", "nic", "prepare", self.name, *what)
        self.cluster.on_agent(self.machine, *command)

    def unplug(self) -> None:
        """Pull it out, as it is; also where its node is off."""
        Path("/sys/bus/netdevsim/del_device").write_text(f"{self.number}")

    def restore(self) -> None:
        self.cluster.on_agent(self.machine, "cni-netkit", "nic", "restore", self.name)

    @property
    def leased(self) -> set[int]:
        """Numbers of the queues that are leased, as the kernel says there."""
        return leased(self.machine, self.name)


@pytest.fixture
def role() -> str:
    """What NICs are prepared for."""
    return "io_uring"


@pytest.fixture
def nics(cluster: Cluster, role: str) -> Iterator[dict[str, Nic]]:
    """A prepared NIC on each of two nodes, by node; all of both are to be claimed."""
    made = {node: Nic(cluster, node, NIC + n, role) for n, node in enumerate(NODES)}
    for each in made.values():
        each.plug()
    wait_for(lambda: published(cluster) == dict.fromkeys(NODES, "4"), "both are published", SECONDS)
    yield made
    for each in made.values():
        each.restore()
        each.unplug()
    wait_for(lambda: not published(cluster), "nothing is published", SECONDS)


def published(cluster: Cluster) -> dict[str, str]:
    """How many queues there are, by node."""
    return {
        each["spec"]["nodeName"]: device["capacity"]["queues"]["value"]
        for each in cluster.plane.api.items(SLICES)
        if each["spec"]["driver"] == DRIVER
        for device in each["spec"].get("devices", ())
    }


def slice_of(cluster: Cluster, node: str) -> JSON:
    """A node's ResourceSlice."""
    found = cluster.plane.api.items(SLICES)
    return next(
        each
        for each in found
        if (each["spec"]["driver"], each["spec"]["nodeName"]) == (DRIVER, node)
    )


def example() -> JSON:
    """What the ResourceClaimTemplate of the documents has of devices; netdevsim has no filters."""
    text = (ROOT / "conf/kubernetes/dra/pods.yaml").read_text()
    template = next(each for each in yaml.safe_load_all(text) if each["kind"].endswith("Template"))
    devices: JSON = template["spec"]["spec"]["devices"]
    devices["config"][0]["opaque"]["parameters"] |= {"flows": "none"}
    return devices


@dataclass
class Claiming:
    """Creates pods that claim queues."""

    cluster: Cluster
    templates: set[str] = field(default_factory=set)

    def create(self, count: int, **spec: Any) -> str:
        """A pod that asks for so many queues; its name."""
        return self.create_with(f"queues-{count}", self.devices(count), **spec)

    @staticmethod
    def devices(count: int, **parameters: Any) -> JSON:
        """DeviceClaim of so many queues."""
        made = example()
        made["requests"][0]["exactly"]["capacity"]["requests"]["queues"] = str(count)
        made["config"][0]["opaque"]["parameters"] |= parameters
        return made

    def create_with(self, template: str, devices: JSON, **spec: Any) -> str:
        """A pod whose claim comes from a template of this name, made of `devices` if it is not there."""
        if template not in self.templates:
            made = {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaimTemplate",
                "metadata": {"name": template},
                "spec": {"spec": {"devices": devices}},
            }
            self.cluster.plane.api.create(TEMPLATES, made)
            self.templates.add(template)
        return self.create_pod({"resourceClaimTemplateName": template}, **spec)

    def create_pod(self, source: JSON, **spec: Any) -> str:
        """A pod with a claim from there."""
        self.cluster.counter += 1
        name = f"claiming-{self.cluster.counter}"
        made = pod(name, resourceClaims=[{"name": "queues", **source}])
        containers = spec.pop("container", {})
        made["spec"]["containers"][0] |= {
            "resources": {"claims": [{"name": "queues"}]},
            **containers,
        }
        made["spec"] |= spec
        self.cluster.plane.api.create(PODS, made)
        return name

    def claim(self, name: str) -> JSON:
        """The claim of a pod."""
        (entry,) = self.cluster.pods()[name]["status"]["resourceClaimStatuses"]
        return dict(self.cluster.plane.api.get(f"{CLAIMS}/{entry['resourceClaimName']}"))

    def status(self, name: str) -> JSON:
        """What the driver says of a pod's claim; {} before it says something."""
        devices = self.claim(name).get("status", {}).get("devices") or [{}]
        return next((each for each in devices if each.get("driver") == DRIVER), {})

    def told(self, name: str) -> JSON:
        """The same, once it is Ready."""

        def ready() -> JSON | None:
            found = self.status(name)
            return found if condition({"status": found}, "Ready") else None

        return dict(self.cluster.wait_for(ready, "the claim's status tells", SECONDS))

    def queues(self, name: str) -> list[int]:
        """Numbers of the queues that a pod has, by its claim."""
        return list(self.told(name)["data"]["queues"])


@pytest.fixture
def claiming(cluster: Cluster) -> Iterator[Claiming]:
    """What creates pods that claim queues; when the test is over all of it goes."""
    made = Claiming(cluster)
    yield made
    cluster.delete_pods(cluster.pods())
    wait_for(lambda: not generated(cluster), "the claims are gone")
    for name in made.templates:
        cluster.plane.api.delete(f"{TEMPLATES}/{name}")


def generated(cluster: Cluster) -> list[JSON]:
    """Claims that belong to a pod."""
    found = cluster.plane.api.items(CLAIMS)
    return [each for each in found if each["metadata"].get("ownerReferences")]


def rows_of(machine: Machine) -> list[JSON]:
    """The claims that are on record there."""
    text = machine.run("sh", "-c", "cat /var/lib/cni/netkit/claims/*.json 2>/dev/null || true")
    return [json.loads(each) for each in text.replace("}{", "}\n{").splitlines()]


def all_is_given_back(nics: dict[str, Nic]) -> bool:
    """Whether no queue is leased and no claim is on record."""
    return not any(each.leased or rows_of(each.machine) for each in nics.values())


def device_in(cluster: Cluster, nic: "Nic", found: JSON, name: str) -> JSON:
    """A device in a pod, as ip(8) shows it; {} where there is none."""
    inside = cluster.namespace_of(nic.machine, addresses_of(found)[0])
    links = nic.machine.ip("-n", inside, "link", "show")
    return next((each for each in links if each["ifname"] == name), {})


def node_of(cluster: Cluster, name: str) -> str:
    """Where a pod is; "" before it is placed."""
    return str(cluster.pods()[name]["spec"].get("nodeName", ""))


def unschedulable(cluster: Cluster, name: str) -> str:
    """Why a pod is on no node."""
    conditions = cluster.pods()[name]["status"].get("conditions", ())
    return "".join(each.get("message", "") for each in conditions if each["type"] == "PodScheduled")


def events_of(cluster: Cluster, name: str, reason: str) -> str:
    """What is told of a pod."""
    found = cluster.plane.api.items("/api/v1/namespaces/default/events")
    return "".join(
        each["message"]
        for each in found
        if (each["involvedObject"]["name"], each["reason"]) == (name, reason)
    )


@pytest.fixture
def sender(cluster: Cluster) -> Iterator[Nic]:
    """A NIC of another node, for the other end of a cable."""
    made = Nic(cluster, "node-1", OTHER_END, "")
    run = made.machine.run
    run("sh", "-c", f"echo '{OTHER_END} 1 16' >/sys/bus/netdevsim/new_device")
    look = partial(run, "ls", f"/sys/bus/netdevsim/devices/netdevsim{OTHER_END}/net", check=False)
    made.name = str(wait_for(look, "the NIC is there")).strip()
    # Nothing but what a test sends.
    run("sysctl", "-qw", f"net.ipv6.conf.{made.name}.disable_ipv6=1")
    run("ip", "link", "set", made.name, "up")
    run("ip", "address", "add", f"{OTHERS}/24", "dev", made.name)
    yield made
    made.unplug()


def plug_together(sender: Nic, nic: Nic) -> None:
    """Put a cable between them; what is sent to OURS arrives there."""
    (link,) = nic.machine.ip("link", "show", "dev", nic.name)
    (far,) = sender.machine.ip("link", "show", "dev", sender.name)
    mac = ("lladdr", link["address"], "dev", sender.name)
    sender.machine.run("ip", "neigh", "replace", OURS, *mac)
    with (
        open(f"/proc/{nic.machine.pid}/ns/net") as here,
        open(f"/proc/{sender.machine.pid}/ns/net") as there,
    ):
        ends = f"{here.fileno()}:{link['ifindex']} {there.fileno()}:{far['ifindex']}"
        Path("/sys/bus/netdevsim/link_device").write_text(ends)


def test_pods_are_placed_by_what_is_free(
    cluster: Cluster, nics: dict[str, Nic], claiming: Claiming, figures: list[str]
) -> None:
    """No node is overdrawn; who finds nothing waits, with the scheduler's words, and then runs."""
    wanted: dict[str, int] = {}
    for count in (3, 2, 2, 1):
        # One after the other: the scheduler does not move anybody to make room.
        name = claiming.create(count)
        wanted[name] = count
        wait_for(partial(node_of, cluster, name), "it is placed")
    running = cluster.running(wanted)
    for node, nic in nics.items():
        there = [name for name, each in running.items() if each["spec"]["nodeName"] == node]
        assert sum(wanted[name] for name in there) == len(POOL)
        assert nic.leased == set(POOL)
        for name in there:
            link = device_in(cluster, nic, running[name], "zc0")
            assert link["num_rx_queues"] == 1 + wanted[name]
            told = claiming.told(name)
            assert told["networkData"]["interfaceName"] == "zc0"
            assert len(told["data"]["queues"]) == wanted[name]
            (resource,) = dynamic_resources(nic.machine, name)
            assert (resource["driver_name"], resource["pool_name"]) == (DRIVER, node)
            assert resource["device_name"] == nic.name
            assert resource["share_id"] == told["shareID"]
        numbers = [queue for name in there for queue in claiming.queues(name)]
        assert sorted(numbers) == list(POOL)
    seen = cluster.plane.kubectl("get", "resourceslices,resourceclaims", "-o", "wide")
    figures += ["kubectl get resourceslices,resourceclaims -o wide:", *seen.splitlines()]
    late = claiming.create(1)
    wait_for(lambda: unschedulable(cluster, late), "the scheduler says why")
    assert "cannot allocate all claims" in unschedulable(cluster, late)
    figures.append(f"no node has enough: {unschedulable(cluster, late)}")
    cluster.delete_pods([next(name for name, count in wanted.items() if count == 1)])
    cluster.running([late])
    assert sum(len(rows_of(each.machine)) for each in nics.values()) == 4
    cluster.delete_pods(cluster.pods())
    wait_for(lambda: all_is_given_back(nics), "all is given back")


def dynamic_resources(machine: Machine, name: str) -> list[JSON]:
    """What of claims a kubelet says that a pod's container has (k8s.io/kubelet/pkg/apis/podresources/v1)."""
    return list(
        json.loads(
            machine.python(f"from tests.cluster import pod_resources as p; p.main({name!r})")
        )
    )


def test_the_slice_follows_the_nic(
    cluster: Cluster,
    nics: dict[str, Nic],
    claiming: Claiming,
    sender: Nic,
    figures: list[str],
) -> None:
    """Without link it is nobody's to claim, and gone it is gone: a pod that runs is told, and others go on."""
    name, other = claiming.create(3), claiming.create(2)
    running = cluster.running([name, other])
    nic, another = (nics[running[each]["spec"]["nodeName"]] for each in (name, other))
    assert nic is not another
    claiming.told(name)
    claiming.told(other)
    before = nic.leased
    # One without a cable has no link any more once it was down.
    plug_together(sender, nic)
    took = []
    for state, there in (("down", False), ("up", True)):
        began = time.monotonic()
        nic.machine.run("ip", "link", "set", nic.name, state)
        wait_for(partial(is_published, cluster, nic.node, there), f"it is {state}", SECONDS)
        took.append(time.monotonic() - began)
        reason = "Attached" if there else "NICNotReady"
        wait_for(partial(is_told, claiming, name, reason), f"the claim says {reason}", SECONDS)
        health = "Healthy" if there else "Unhealthy"
        wait_for(partial(is_well, cluster, name, health), f"the pod says {health}", SECONDS)
    assert nic.leased == before
    version = slice_of(cluster, nic.node)["metadata"]["resourceVersion"]
    cluster.delete_pods([name])
    again = claiming.create(3)
    cluster.running([again])
    claiming.told(again)
    # Nothing of it is in the slice: who has what is in the claims.
    assert slice_of(cluster, nic.node)["metadata"]["resourceVersion"] == version
    began = time.monotonic()
    nic.unplug()
    wait_for(partial(is_published, cluster, nic.node, False), "it is gone", SECONDS)
    took.append(time.monotonic() - began)
    wait_for(partial(is_told, claiming, again, "NICNotReady"), "the claim says so", SECONDS)
    wait_for(partial(is_well, cluster, again, "Unhealthy"), "the pod says so", SECONDS)
    waiting = claiming.create(4)
    wait_for(lambda: unschedulable(cluster, waiting), "nobody has four queues now")
    nic.plug()
    wait_for(partial(is_told, claiming, again, "Detached"), "the pod has lost them", SECONDS)
    assert claiming.told(other)["data"]["queues"]
    cluster.delete_pods([again])
    cluster.running([waiting])
    assert nic.leased == set(POOL)
    figures.append(
        f"a NIC that lost its link was out of the slice after {took[0]:.1f} s, back after "
        f"{took[1]:.1f} s; one that was removed was out after {took[2]:.1f} s"
    )


def is_published(cluster: Cluster, node: str, there: bool) -> bool:
    """Whether a node's NIC is in its slice, or is not."""
    return (node in published(cluster)) == there


def is_told(claiming: Claiming, name: str, reason: str) -> bool:
    """Whether a pod's claim gives this for a reason."""
    conditions = claiming.status(name).get("conditions", ())
    return [each["reason"] for each in conditions] == [reason]


def is_well(cluster: Cluster, name: str, health: str) -> bool:
    """Whether the kubelet says so of what a pod's container has (KEP 4680)."""
    (container,) = cluster.pods()[name]["status"]["containerStatuses"]
    found = [
        resource["health"]
        for each in container.get("allocatedResourcesStatus", ())
        for resource in each["resources"]
    ]
    return found == [health]


def test_what_cannot_be_right_is_refused_with_a_reason(
    cluster: Cluster, nics: dict[str, Nic], claiming: Claiming
) -> None:
    """Parameters that are wrong, and one claim for two pods: the pod's events say why, nothing is taken."""
    wrong = claiming.create_with("wrong", claiming.devices(1, workloads="io_uring"))
    shared = {"metadata": {"name": "shared"}, "spec": {"devices": claiming.devices(1)}}
    cluster.plane.api.create(CLAIMS, {"kind": "ResourceClaim", **shared})
    pair = [claiming.create_pod({"resourceClaimName": "shared"}) for _ in range(2)]
    wait_for(lambda: "workloads" in events_of(cluster, wrong, FAILED), "it is told", READY)

    def is_refused() -> bool:
        return all("make its own claim" in events_of(cluster, each, FAILED) for each in pair)

    wait_for(is_refused, "both are told", READY)
    assert not any(rows_of(nic.machine) for nic in nics.values())
    cluster.delete_pods(cluster.pods())
    cluster.plane.api.delete(f"{CLAIMS}/shared")
    wait_for(lambda: all_is_given_back(nics), "all is given back")


def send(sender: Nic, queue: int, text: str) -> None:
    """A UDP datagram that arrives on a queue (as tests/kernel/test_xsk.py does it: by XPS)."""
    device = f"/sys/class/net/{sender.name}/queues"
    script = (
        f'for each in {device}/tx-*/xps_cpus; do echo 0 >"$each"; done; '
        f"echo {judge.every_processor()} >{device}/tx-{queue + 1}/xps_cpus; "
        f"echo -n {text} >/dev/udp/{OURS}/9000"
    )
    sender.machine.run("bash", "-c", script)


@pytest.mark.parametrize("role", ["af_xdp"])
def test_frames_arrive_by_claim_alone(
    cluster: Cluster, nics: dict[str, Nic], claiming: Claiming, sender: Nic, tmp_path: Path
) -> None:
    """The pod knows no NIC: it asks for a queue, opens zc0, and its rings have what the NIC receives."""
    program = tmp_path / "xsk_receive"
    source = str(ROOT / "examples/xsk_receive.c")
    judge.run("cc", "-O2", "-static", "-o", str(program), source)
    for nic in nics.values():
        nic.machine.run("mkdir", "-p", "/run/programs")
        seen = Path(f"/proc/{nic.machine.pid}/root/run/programs/xsk_receive")
        seen.write_bytes(program.read_bytes())
        seen.chmod(0o755)
    name = claiming.create_with(
        "for-af-xdp",
        claiming.devices(1, workload="af_xdp"),
        container={
            "command": ["/programs/xsk_receive", "--copy", "zc0", "1"],
            "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}},
            "volumeMounts": [
                {"name": "programs", "mountPath": "/programs", "readOnly": True},
                {"name": "sockets", "mountPath": "/run/cni-netkit", "readOnly": True},
            ],
        },
        volumes=[
            {"name": "programs", "hostPath": {"path": "/run/programs"}},
            {"name": "sockets", "hostPath": {"path": "/run/cni-netkit/xsk"}},
        ],
    )
    (running,) = cluster.running([name]).values()
    nic = nics[running["spec"]["nodeName"]]
    (queue,) = claiming.queues(name)
    said = partial(cluster.plane.kubectl, "logs", name)
    cluster.wait_for(lambda: "receiving" in said(), "the program receives", READY)
    plug_together(sender, nic)
    send(sender, queue, "by-claim-alone")
    cluster.wait_for(lambda: "by-claim-alone" in said(), "the frame is there", SECONDS)
    send(sender, next(each for each in POOL if each != queue), "for-somebody-else")
    send(sender, queue, "again")
    cluster.wait_for(lambda: "again" in said(), "the next one is there", SECONDS)
    assert "for-somebody-else" not in said()


def give_numa_node(nic: Nic, node: int) -> None:
    """Have the driver's container see a NUMA node of a NIC in sysfs: the lab has none, nor has a netdevsim."""
    device = f"/sys/bus/netdevsim/devices/netdevsim{nic.number}"
    (process, *_) = nic.machine.run("pgrep", "-o", "-f", "cni-netkit dra").split()
    nic.machine.python(f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open("/proc/{process}/ns/mnt", os.O_RDONLY), 0x20000):  # CLONE_NEWNS
    raise OSError(ctypes.get_errno(), "setns")
os.makedirs("/dev/shm/numa", exist_ok=True)
with open("/dev/shm/numa/numa_node", "w") as file:
    file.write("{node}\\n")
where = os.path.realpath("{device}")
options = f"lowerdir=/dev/shm/numa:{{where}}"
if libc.mount(b"overlay", where.encode(), b"overlay", 0, options.encode()):
    raise OSError(ctypes.get_errno(), f"mount on {{where}}: {{options}}")
""")


def is_on(cluster: Cluster, node: str, numa: int) -> bool:
    """Whether a node's NIC is told to be on a NUMA node."""
    (device,) = slice_of(cluster, node)["spec"]["devices"]
    return bool(device["attributes"].get(NUMA) == {"int": numa})


@contextmanager
def simulated(machine: Machine) -> Iterator[None]:
    """Another driver's program on a node."""
    root = str(ROOT)
    command = ("env", f"PYTHONPATH={root}", sys.executable, "-m", "tests.cluster.simulated_driver")
    process = machine.background(*command, SIMULATED, machine.name)
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def simulated_slice(node: str) -> JSON:
    """One device of it, on NUMA node 1."""
    return {
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-{SIMULATED}"},
        "spec": {
            "driver": SIMULATED,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "device", "attributes": {NUMA: {"int": 1}}}],
        },
    }


def simulated_class() -> JSON:
    """All of its devices."""
    selector = {"cel": {"expression": f'device.driver == "{SIMULATED}"'}}
    return {
        "kind": "DeviceClass",
        "metadata": {"name": SIMULATED},
        "spec": {"selectors": [selector]},
    }


def test_queues_and_another_drivers_device_are_on_one_numa_node(
    cluster: Cluster, nics: dict[str, Nic], claiming: Claiming
) -> None:
    """matchAttribute: of two NICs that which is where the other device is; both drivers prepare the claim."""
    near, far = nics["node-2"], nics["node-3"]
    for nic, node in ((near, 1), (far, 0)):
        give_numa_node(nic, node)
    for nic, node in ((near, 1), (far, 0)):
        wait_for(partial(is_on, cluster, nic.node, node), f"{nic.node} tells it", SECONDS)
    with simulated(near.machine), simulated(far.machine):
        for each in (near, far):
            cluster.plane.api.create(SLICES, simulated_slice(each.node))
        cluster.plane.api.create(CLASSES, simulated_class())
        try:
            devices = claiming.devices(1)
            request = {"name": "other", "exactly": {"deviceClassName": SIMULATED}}
            devices["requests"].append(request)
            match = {"requests": ["queues", "other"], "matchAttribute": NUMA}
            devices["constraints"] = [match]
            # The other node has more room, and its device is on another NUMA node than its NIC.
            names = [claiming.create_with("numa", devices) for _ in range(2)]
            wait_for(lambda: any(unschedulable(cluster, each) for each in names), "one waits")
            first = min(names, key=lambda each: len(unschedulable(cluster, each)))
            (running,) = cluster.running([first]).values()
            assert running["spec"]["nodeName"] == near.node
            claiming.told(first)
            drivers = [each["driver"] for each in claiming.claim(first)["status"]["devices"]]
            assert drivers == [DRIVER]
            results = claiming.claim(first)["status"]["allocation"]["devices"]["results"]
            assert sorted(each["driver"] for each in results) == [DRIVER, SIMULATED]
        finally:
            cluster.delete_pods(cluster.pods())
            wait_for(lambda: not generated(cluster), "the claims are gone")
            cluster.plane.api.delete(f"{CLASSES}/{SIMULATED}")
            for each in (near, far):
                cluster.plane.api.delete(f"{SLICES}/{each.node}-{SIMULATED}")


def test_behind_another_plugins_network(
    cluster: Cluster, nics: dict[str, Nic], claiming: Claiming
) -> None:
    """A pod whose eth0 is ptp's has its queues by netkit chained behind."""
    conflist = {
        "cniVersion": "1.0.0",
        "name": "ptp-with-claims",
        "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.99.0.0/24"}},
            {"type": "netkit", "pairing": "single", "claims": True},
        ],
    }
    folder = NETWORKS.format("leasing")
    for nic in nics.values():
        nic.machine.run("mkdir", "-p", folder)
        nic.machine.write(f"{folder}/ptp.conflist", json.dumps(conflist))
    handler = {"metadata": {"name": "leasing"}, "handler": "leasing"}
    cluster.plane.api.create(RUNTIME_CLASSES, {"kind": "RuntimeClass", **handler})
    try:
        name = claiming.create(2, runtimeClassName="leasing")
        (running,) = cluster.running([name]).values()
        nic = nics[running["spec"]["nodeName"]]
        kinds = [
            device_in(cluster, nic, running, each)["linkinfo"]["info_kind"]
            for each in ("eth0", "zc0")
        ]
        assert kinds == ["veth", "netkit"]
        assert nic.leased == set(claiming.queues(name))
        cluster.delete_pods([name])
        wait_for(lambda: all_is_given_back(nics), "all is given back")
    finally:
        cluster.delete_pods(cluster.pods())
        cluster.plane.api.delete(f"{RUNTIME_CLASSES}/leasing")
        for nic in nics.values():
            nic.machine.run("rm", f"{folder}/ptp.conflist")


def test_a_node_that_was_off_or_drained_keeps_nothing(
    cluster: Cluster, nics: dict[str, Nic], claiming: Claiming
) -> None:
    """A claim that was deleted while the node was off leaves no row; a drained node has none."""
    names = [claiming.create(3), claiming.create(3)]
    running = cluster.running(names)
    off, drained = (nics[running[each]["spec"]["nodeName"]] for each in names)
    assert off is not drained
    off.machine.power_off()
    # A NIC of a machine that is off is another one when it is on again.
    off.unplug()
    api = cluster.plane.api
    api.ask("DELETE", f"{PODS}/{names[0]}?gracePeriodSeconds=0")
    wait_for(lambda: len(generated(cluster)) == 1, "its claim is gone", READY)
    cluster.plane.kubectl("drain", drained.node, "--ignore-daemonsets", "--force", "--timeout=60s")
    wait_for(lambda: not drained.leased and not rows_of(drained.machine), "nothing is left there")
    cluster.plane.kubectl("uncordon", drained.node)
    off.machine.boot()
    off.machine.start()
    wait_for(lambda: off.node in cluster.ready(), "it is ready", READY)
    wait_for(lambda: not rows_of(off.machine), "its row is gone", READY)
    wait_for(lambda: nothing_left([off.machine]), "nothing is left there", READY)
    off.plug()
    name = claiming.create(4)
    other = claiming.create(4)
    cluster.running([name, other], READY)


def until_it_runs(cluster: Cluster, create: Callable[[], str]) -> float:
    """Seconds from before a pod is created to the event that says that it is ready."""
    began = time.monotonic()
    name = create()
    with cluster.plane.api.watch(f"{PODS}?fieldSelector=metadata.name%3D{name}") as events:
        for event in events:
            if condition(event["object"], "Ready"):
                return time.monotonic() - began
    raise AssertionError(f"{name} does not run: {cluster.events()}")


def test_a_claim_costs(
    cluster: Cluster,
    nics: dict[str, Nic],
    claiming: Claiming,
    figures: list[str],
    request: pytest.FixtureRequest,
) -> None:
    """From the request that creates a pod until it runs, with a claim and without, in turns."""
    turns = 15 if request.config.getoption("--long") else 3
    where = {"nodeSelector": {"kubernetes.io/hostname": nics["node-2"].node}}
    with_claim: list[float] = []
    without: list[float] = []
    for _ in range(turns):
        for took, create in (
            (with_claim, partial(claiming.create, 2, **where)),
            (without, partial(cluster.create_pod, "", **where)),
        ):
            took.append(until_it_runs(cluster, create))
            cluster.delete_pods(cluster.pods())
    one, other = statistics.median(with_claim), statistics.median(without)
    figures.append(
        f"from its creation a pod with a claim runs after {one:.1f} s, without one after "
        f"{other:.1f} s: {one / other:.2f} (medians of {turns}, in turns)"
    )


def test_many_pods_share_few_queues(
    cluster: Cluster,
    nics: dict[str, Nic],
    claiming: Claiming,
    figures: list[str],
    request: pytest.FixtureRequest,
) -> None:
    """Random numbers, random deletions, whatever runs is killed meanwhile: what is promised is there."""
    number = 100 if request.config.getoption("--long") else 16
    chance = random.Random(request.config.getoption("randomly_seed", 1))
    alive: set[str] = set()
    killed: list[str] = []
    for turn in range(number):
        alive.add(claiming.create(chance.choice((1, 1, 2, 3))))
        if turn % 6 == 5:
            machine = cluster.machines[chance.choice(NODES)]
            killed.append(chance.choice(("dra", "agent", "kubelet")))
            kill(machine, killed[-1])
        while len(alive) > 5:
            # Who wants many may wait for long behind those who want few; somebody runs always.
            run = cluster.wait_for(partial(ready, cluster, alive), "one of them runs", READY)
            for name in chance.sample(run, (len(run) + 1) // 2):
                cluster.plane.api.delete(f"{PODS}/{name}")
                alive.remove(name)
            for nic in nics.values():
                assert nic.leased <= set(POOL)
    wait_for(lambda: len(cluster.pods()) == len(alive), "those that were deleted are gone")
    events = cluster.plane.api.items("/api/v1/namespaces/default/events")
    short = [each["message"] for each in events if "and fewer are free" in each["message"]]
    assert not short
    cluster.delete_pods(alive)
    wait_for(lambda: all_is_given_back(nics), "all is given back")
    counts = ", ".join(f"{each} {killed.count(each)}" for each in sorted(set(killed)))
    figures.append(f"{number} pods through 8 queues; killed meanwhile: {counts} times")


def ready(cluster: Cluster, names: set[str]) -> list[str]:
    """Which of these pods are ready."""
    pods = cluster.pods()
    return sorted(name for name in names if condition(pods[name], "Ready"))


def kill(machine: Machine, what: str) -> None:
    """End a program by SIGKILL; all but the kubelet are started again by that."""
    if what == "kubelet":
        machine.kubelet.end(signal.SIGKILL)
        machine.kubelet.start()
    else:
        machine.run("pkill", "-KILL", "-f", f"cni-netkit {what}")
