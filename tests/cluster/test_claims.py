"""Queues as resources: the scheduler finds the node, the kubelet prepares the claim, ADD takes the queues."""

import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import PODS, Cluster, addresses_of, condition, pod, wait_for
from tests.cluster.machine import Machine
from tests.cluster.test_leases import leased

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
RESOURCES = "/apis/resource.k8s.io/v1"
SLICES = f"{RESOURCES}/resourceslices"
TEMPLATES = f"{RESOURCES}/namespaces/default/resourceclaimtemplates"
CLAIMS = f"{RESOURCES}/namespaces/default/resourceclaims"
NODES = ("node-2", "node-3")
POOL = range(4, 8)
NIC = 91
SECONDS = 30


def example() -> JSON:
    """The ResourceClaimTemplate of the documents."""
    text = (ROOT / "conf/kubernetes/dra/pods.yaml").read_text()
    return next(each for each in yaml.safe_load_all(text) if each["kind"].endswith("Template"))


@pytest.fixture
def nics(cluster: Cluster) -> Iterator[dict[str, str]]:
    """A prepared NIC on each of two nodes, by node; all of both are to be claimed."""
    made = {}
    for number, name in enumerate(NODES):
        machine = cluster.machines[name]
        machine.run("sh", "-c", f"echo '{NIC + number} 1 8' >/sys/bus/netdevsim/new_device")
        folder = f"/sys/bus/netdevsim/devices/netdevsim{NIC + number}/net"
        look = partial(machine.run, "ls", folder, check=False)
        made[name] = str(wait_for(look, "the NIC is there")).strip()
        machine.run("ip", "link", "set", made[name], "up")
        prepare = (
            "cni-netkit",
            "nic",
            "prepare",
            made[name],
            "--role",
            "io_uring",
            "--queues",
            "4-7",
        )
        cluster.on_agent(machine, *prepare)
    wait_for(lambda: published(cluster) == dict.fromkeys(NODES, "4"), "both are published", SECONDS)
    yield made
    for number, (name, device) in enumerate(made.items()):
        cluster.on_agent(cluster.machines[name], "cni-netkit", "nic", "restore", device)
        remove = f"echo {NIC + number} >/sys/bus/netdevsim/del_device"
        cluster.machines[name].run("sh", "-c", remove)
    wait_for(lambda: not published(cluster), "nothing is published", SECONDS)


def published(cluster: Cluster) -> dict[str, str]:
    """How many queues there are, by node."""
    return {
        each["spec"]["nodeName"]: device["capacity"]["queues"]["value"]
        for each in cluster.plane.api.items(SLICES)
        for device in each["spec"].get("devices", ())
    }


@pytest.fixture
def claiming(cluster: Cluster) -> Iterator[Callable[[int], str]]:
    """Creates a pod that asks for so many queues; its name."""
    templates = set()

    def create(count: int) -> str:
        name = f"queues-{count}"
        if name not in templates:
            template = example()
            template["metadata"]["name"] = name
            devices = template["spec"]["spec"]["devices"]
            devices["requests"][0]["exactly"]["capacity"]["requests"]["queues"] = str(count)
            # netdevsim has no ntuple filters.
            devices["config"][0]["opaque"]["parameters"]["flows"] = "none"
            cluster.plane.api.create(TEMPLATES, template)
            templates.add(name)
        cluster.counter += 1
        made = pod(
            f"claiming-{cluster.counter}",
            resourceClaims=[{"name": "queues", "resourceClaimTemplateName": name}],
        )
        made["spec"]["containers"][0]["resources"] = {"claims": [{"name": "queues"}]}
        cluster.plane.api.create(PODS, made)
        return str(made["metadata"]["name"])

    yield create
    cluster.delete_pods(cluster.pods())
    wait_for(lambda: not cluster.plane.api.items(CLAIMS), "the claims are gone")
    for name in templates:
        cluster.plane.api.delete(f"{TEMPLATES}/{name}")


def test_pods_are_placed_by_what_is_free(
    cluster: Cluster, nics: dict[str, str], claiming: Callable[[int], str]
) -> None:
    """No node is overdrawn; who finds nothing waits, with the scheduler's words, and then runs."""
    wanted = {claiming(count): count for count in (3, 2, 1, 2)}
    running = cluster.running(wanted)
    for node, nic in nics.items():
        there = [name for name, each in running.items() if each["spec"]["nodeName"] == node]
        assert sum(wanted[name] for name in there) == len(POOL)
        assert leased(cluster.machines[node], nic) == set(POOL)
        for name in there:
            inside = cluster.namespace_of(cluster.machines[node], addresses_of(running[name])[0])
            (link,) = cluster.machines[node].ip("-n", inside, "link", "show", "dev", "zc0")
            assert link["num_rx_queues"] == 1 + wanted[name]
            numbers = wait_for(partial(told, cluster, name), "the claim's status tells", SECONDS)
            assert len(numbers) == wanted[name]
        numbers = [queue for name in there for queue in told(cluster, name)]
        assert sorted(numbers) == list(POOL)
    late = claiming(1)
    wait_for(lambda: unschedulable(cluster, late), "the scheduler says why")
    assert "cannot allocate all claims" in unschedulable(cluster, late)
    cluster.delete_pods([next(name for name, count in wanted.items() if count == 1)])
    cluster.running([late])
    rows = [each for name in NODES for each in rows_of(cluster.machines[name])]
    assert len(rows) == 4
    cluster.delete_pods(cluster.pods())
    machines = [cluster.machines[node] for node in nics]
    wait_for(
        lambda: not any(map(leased, machines, nics.values())), "the queues are the NICs' again"
    )
    wait_for(lambda: not any(map(rows_of, machines)), "no claim is on record")


def test_the_slice_follows_the_nic(
    cluster: Cluster, nics: dict[str, str], claiming: Callable[[int], str], figures: list[str]
) -> None:
    """Without its link it is nobody's to claim; a pod that runs keeps what it has."""
    name = claiming(2)
    (running,) = cluster.running([name]).values()
    node = running["spec"]["nodeName"]
    machine, nic = cluster.machines[node], nics[node]
    before = leased(machine, nic)
    took = []
    for state, there in (("down", False), ("up", True)):
        began = time.monotonic()
        machine.run("ip", "link", "set", nic, state)
        wait_for(partial(is_published, cluster, node, there), f"it is {state}", SECONDS)
        took.append(time.monotonic() - began)
    version = slice_of(cluster, node)["metadata"]["resourceVersion"]
    assert leased(machine, nic) == before
    cluster.delete_pods([name])
    cluster.running([claiming(4)])
    # Nothing of it is in the slice: who has what is in the claims.
    assert slice_of(cluster, node)["metadata"]["resourceVersion"] == version
    figures.append(
        f"a NIC that lost its link was out of the slice after {took[0]:.1f} s, back after {took[1]:.1f} s"
    )


def is_published(cluster: Cluster, node: str, there: bool) -> bool:
    """Whether a node's NIC is in its slice, or is not."""
    return (node in published(cluster)) == there


def slice_of(cluster: Cluster, node: str) -> JSON:
    """A node's ResourceSlice."""
    found = cluster.plane.api.items(SLICES)
    return next(each for each in found if each["spec"]["nodeName"] == node)


def test_many_pods_share_few_queues(
    cluster: Cluster,
    nics: dict[str, str],
    claiming: Callable[[int], str],
    figures: list[str],
    request: pytest.FixtureRequest,
) -> None:
    """Random numbers, random deletions, driver and agent killed meanwhile: what is promised is there."""
    long = request.config.getoption("--long")
    number = 100 if long else 16
    chance = random.Random(request.config.getoption("randomly_seed", 1))
    alive: set[str] = set()
    killed = 0
    for turn in range(number):
        alive.add(claiming(chance.choice((1, 1, 2, 3))))
        if turn % 6 == 5:
            machine = cluster.machines[chance.choice(NODES)]
            machine.run("pkill", "-KILL", "-f", f"cni-netkit {chance.choice(('dra', 'agent'))}")
            killed += 1
        while len(alive) > 5:
            pods = cluster.pods()
            run = sorted(name for name in alive if condition(pods[name], "Ready"))
            for name in chance.sample(run, (len(run) + 1) // 2):
                cluster.plane.api.delete(f"{PODS}/{name}")
                alive.remove(name)
            for node, nic in nics.items():
                assert leased(cluster.machines[node], nic) <= set(POOL)
            if not run:
                cluster.running([min(alive, key=lambda each: int(each.partition("-")[2]))], 240)
    wait_for(lambda: len(cluster.pods()) == len(alive), "those that were deleted are gone")
    events = cluster.plane.api.items("/api/v1/namespaces/default/events")
    short = [each["message"] for each in events if "and fewer are free" in each["message"]]
    assert not short
    cluster.delete_pods(alive)
    machines = [cluster.machines[node] for node in nics]
    wait_for(
        lambda: not any(map(leased, machines, nics.values())), "the queues are the NICs' again"
    )
    wait_for(lambda: not any(map(rows_of, machines)), "no claim is on record")
    figures.append(f"{number} pods through 8 queues, driver or agent killed {killed} times")


def told(cluster: Cluster, name: str) -> list[int]:
    """The queues that a pod's claim says it has, once it is Ready."""
    (entry,) = cluster.pods()[name]["status"]["resourceClaimStatuses"]
    found = cluster.plane.api.get(f"{CLAIMS}/{entry['resourceClaimName']}")
    (device,) = found["status"].get("devices") or [{}]
    if not condition({"status": device}, "Ready"):
        return []
    assert device["networkData"]["interfaceName"] == "zc0"
    return list(device["data"]["queues"])


def unschedulable(cluster: Cluster, name: str) -> str:
    """Why a pod is on no node."""
    conditions = cluster.pods()[name]["status"].get("conditions", ())
    return "".join(each.get("message", "") for each in conditions if each["type"] == "PodScheduled")


def rows_of(machine: Machine) -> list[JSON]:
    """The claims that are on record there."""
    text = machine.run("sh", "-c", "cat /var/lib/cni/netkit/claims/*.json 2>/dev/null || true")
    return [json.loads(each) for each in text.replace("}{", "}\n{").splitlines()]
