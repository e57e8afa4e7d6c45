"""Pods of a real cluster: each reaches each."""

from tests.cluster.cluster import Cluster, addresses_of

FAMILIES = ("IPv4", "IPv6")


def test_every_pod_reaches_every_pod(cluster: Cluster, figures: list[str]) -> None:
    """Over both families, and the API server's address."""
    names = {cluster.create_pod(node): node for node in cluster.machines}
    pods = cluster.running(names)
    assert {name: len(addresses_of(each)) for name, each in pods.items()} == dict.fromkeys(names, 2)
    reached: dict[tuple[str, str, str], bool] = {}
    for name, node in names.items():
        machine = cluster.machines[node]
        inside = cluster.namespace_of(machine, addresses_of(pods[name])[0])
        for other, place in names.items():
            for family, address in zip(FAMILIES, addresses_of(pods[other]), strict=True):
                reached[node, place, family] = cluster.ping(machine, inside, address)
        api_server = cluster.plane.address
        reached[node, "API server", FAMILIES[0]] = cluster.ping(machine, inside, api_server)
    for node in cluster.machines:
        row = [
            f"{to} {family} {'ok' if good else 'FAILED'}"
            for (of, to, family), good in reached.items()
            if of == node
        ]
        figures.append(f"a pod on {node} reaches one on: {', '.join(row)}")
    assert {key for key, good in reached.items() if not good} == set()
