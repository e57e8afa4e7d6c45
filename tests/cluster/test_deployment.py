"""Many pods come and go while the agents under them are replaced."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, addresses_of, condition, pod, wait_for
from tests.cluster.left import left_on, nothing_left

JSON = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
DAEMONSETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
NAME = "many"
REPLICAS = 30
ROLLING = 300
"""Seconds for pods to start, or for the DaemonSet to roll, where both happen at a time."""


@pytest.fixture
def deployment(cluster: Cluster) -> Iterator[str]:
    """Where it is in the API, with no replica yet."""
    template = pod(NAME, {"app": NAME})
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": NAME}},
    }
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": {"app": NAME}},
        "template": {
            "metadata": {"labels": {"app": NAME}},
            "spec": {**template["spec"], "topologySpreadConstraints": [spread]},
        },
    }
    cluster.plane.api.create(
        DEPLOYMENTS,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": NAME},
            "spec": spec,
        },
    )
    yield f"{DEPLOYMENTS}/{NAME}"
    cluster.plane.api.delete(f"{DEPLOYMENTS}/{NAME}")


def scale(cluster: Cluster, deployment: str, replicas: int) -> dict[str, JSON]:
    """Have that many replicas; the pods, when all of them are ready and no other is left."""
    cluster.plane.api.patch(deployment, {"spec": {"replicas": replicas}})

    def settled() -> dict[str, JSON] | None:
        pods = cluster.pods(f"app={NAME}")
        # One that is deleted ends by SIGKILL, and so has failed for a moment.
        alive = [each for each in pods.values() if "deletionTimestamp" not in each["metadata"]]
        assert not any(each["status"].get("phase") == "Failed" for each in alive)
        good = len(pods) == replicas and all(condition(each, "Ready") for each in pods.values())
        return pods if good else None

    if not replicas:
        wait_for(lambda: not cluster.pods(f"app={NAME}"), "no replica is left", ROLLING)
        return {}
    pods = dict(cluster.wait_for(settled, f"{replicas} replicas are ready", ROLLING))
    cluster.say(f"{replicas} replicas are ready")
    return pods


def test_scaled_while_the_daemonset_rolls(
    cluster: Cluster, deployment: str, figures: list[str]
) -> None:
    """Up, down, up: no pod fails, no address is given twice, and nothing is left in the end."""
    cluster.plane.kubectl("-n", "kube-system", "rollout", "restart", "daemonset/cni-netkit")
    seen = [scale(cluster, deployment, number) for number in (REPLICAS, 6, REPLICAS)]
    for pods in seen:
        given = Counter(address for each in pods.values() for address in addresses_of(each))
        assert len(given) == 2 * len(pods), given
        restarts = [
            each["status"]["containerStatuses"][0]["restartCount"] for each in pods.values()
        ]
        assert not any(restarts)
    daemonset = wait_for(lambda: rolled(cluster), "the DaemonSet has rolled", ROLLING)
    assert daemonset["status"]["numberAvailable"] == len(cluster.machines)
    on_nodes = Counter(each["spec"]["nodeName"] for each in seen[-1].values())
    for name, machine in cluster.machines.items():
        # One of a pod is of the device, the other of what it might claim.
        containers = {each.partition(":")[0] for each in left_on(machine).records}
        assert len(containers) == on_nodes[name]
    scale(cluster, deployment, 0)
    wait_for(lambda: nothing_left(cluster.machines.values()), "nothing is left on any node")
    retried = [
        each
        for each in cluster.plane.api.items("/api/v1/namespaces/default/events")
        if each["reason"] == "FailedCreatePodSandBox" and 'type="netkit"' in each["message"]
    ]
    assert all(
        "no agent listens" in each["message"] or "stopped" in each["message"] for each in retried
    )
    figures.append(
        f"{REPLICAS}, 6, {REPLICAS}, 0 replicas while the DaemonSet rolled: "
        f"{len(retried)} sandboxes were asked for again since the agent was being replaced"
    )


def rolled(cluster: Cluster) -> JSON | None:
    """The DaemonSet when all its pods are of the newest form, and available."""
    found: JSON = cluster.plane.api.get(f"{DAEMONSETS}/cni-netkit")
    status, wanted = found["status"], len(cluster.machines)
    good = (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedNumberScheduled") == wanted
        and status.get("numberAvailable") == wanted
    )
    return found if good else None
