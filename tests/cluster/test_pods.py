"""Pods of a real cluster: each reaches each."""

from tests.cluster.cluster import Cluster, addresses_of


def test_every_pod_reaches_every_pod(cluster: Cluster) -> None:
    """Over both families, and the API server's address."""
    names = {cluster.create_pod(node): node for node in cluster.machines}
    pods = cluster.running(names)
    reached = {}
    for name, node in names.items():
        machine = cluster.machines[node]
        inside = cluster.namespace_of(machine, addresses_of(pods[name])[0])
        for other, place in names.items():
            for address in addresses_of(pods[other]):
                reached[node, place, address] = cluster.ping(machine, inside, address)
        reached[node, "API server", cluster.plane.address] = cluster.ping(
            machine, inside, cluster.plane.address
        )
    assert all(len(addresses_of(each)) == 2 for each in pods.values())
    assert {key for key, good in reached.items() if not good} == set()
