"""Pods with leased queues, by manifest: the network that a RuntimeClass stands for has a lease."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, addresses_of, wait_for
from tests.cluster.machine import NETWORKS, Machine

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
CLASSES = ROOT / "conf/kubernetes/leases/runtimeclasses.yaml"
LABELS = ("cni-netkit/leasing", "cni-netkit/af-xdp")
NIC = 90
QUEUES = 8


@pytest.fixture
def machine(cluster: Cluster) -> Iterator[Machine]:
    """A node with a NIC of its own, and the classes."""
    made = cluster.machines["node-3"]
    made.run("sh", "-c", f"echo '{NIC} 1 {QUEUES}' >/sys/bus/netdevsim/new_device")
    cluster.plane.kubectl("apply", "-f", str(CLASSES))
    cluster.plane.kubectl("label", "node", made.name, *(f"{label}=true" for label in LABELS))
    yield made
    cluster.plane.kubectl("label", "node", made.name, *(f"{label}-" for label in LABELS))
    cluster.plane.kubectl("delete", "-f", str(CLASSES))
    made.run("sh", "-c", f"echo {NIC} >/sys/bus/netdevsim/del_device")


def nic(machine: Machine) -> str:
    """The NIC's name, up."""
    folder = f"/sys/bus/netdevsim/devices/netdevsim{NIC}/net"
    name = str(wait_for(lambda: machine.run("ls", folder, check=False), "the NIC is there")).strip()
    machine.run("ip", "link", "set", name, "up")
    return name


def leased(machine: Machine, nic: str) -> set[int]:
    """Numbers of the leased queues of a NIC, as the kernel says there."""
    said = machine.python(
        f"import json; from tests.kernel import judge; print(json.dumps(list(judge.leases('{nic}'))))"
    )
    return set(json.loads(said))


@pytest.mark.parametrize(
    ("handler", "example", "role", "host_ends"),
    [
        ("leasing", "20-pair-with-lease", "io_uring", 1),
        ("af-xdp", "30-single-af-xdp", "af_xdp", 0),
    ],
)
def test_a_pod_has_a_queue_of_the_nic(
    cluster: Cluster, machine: Machine, handler: str, example: str, role: str, host_ends: int
) -> None:
    """On a NIC that was prepared; the queue is the NIC's again when the pod is gone."""
    device = nic(machine)
    copy = ["--copy"] if role == "af_xdp" else []
    cluster.on_agent(
        machine, "cni-netkit", "nic", "prepare", device, "--role", role, "--queues", "4-7", *copy
    )
    conflist: JSON = json.loads((ROOT / "conf" / f"{example}.conflist").read_text())
    # netdevsim has no ntuple filters.
    conflist["plugins"][0]["lease"] |= {"device": device, "flows": "none"}
    folder = NETWORKS.format(handler)
    machine.run("mkdir", "-p", folder)
    machine.write(f"{folder}/{example}.conflist", json.dumps(conflist))
    name = cluster.create_pod(machine.name, runtimeClassName=handler)
    (pod,) = cluster.running([name]).values()
    taken = leased(machine, device)
    assert len(taken) == 1
    assert taken <= {4, 5, 6, 7}
    inside = cluster.namespace_of(machine, addresses_of(pod)[0])
    (link,) = machine.ip("-n", inside, "link", "show", "dev", "eth0")
    assert link["linkinfo"]["info_kind"] == "netkit"
    assert link["ifalias"].endswith(f" {device}:{taken.pop()}")
    mark = f"cni-netkit {conflist['name']} "
    hosts = [each for each in machine.ip("link") if each.get("ifalias", "").startswith(mark)]
    assert len(hosts) == host_ends
    cluster.delete_pods([name])
    wait_for(lambda: not leased(machine, device), "the queue is the NIC's again")
    cluster.on_agent(machine, "cni-netkit", "nic", "restore", device)
