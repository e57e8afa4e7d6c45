"""Nodes come, go, are restarted; the API server is away: what runs goes on, the rest follows."""

import ipaddress
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.cluster import NODES, READY, Cluster, addresses_of, wait_for
from tests.cluster.machine import Machine

JSON = dict[str, Any]
SECONDS = 5
"""What routes may take to follow, by contract of the tests' table."""

AWAY = 60
"""Seconds that the API server is away."""


def ranges(cluster: Cluster, node: str) -> list[str]:
    """The ranges of a node."""
    return list(cluster.nodes()[node]["spec"]["podCIDRs"])


def routed(machine: Machine, wanted: str) -> bool:
    """Whether a node has a route for just that range by another node."""
    return bool(gateways(machine, wanted))


def gateways(machine: Machine, wanted: str) -> set[str]:
    """Where a node sends what is for just that range."""
    family = "-6" if ":" in wanted else "-4"
    found = machine.ip(family, "route", "show", wanted)
    return {each["gateway"] for each in found if "gateway" in each}


def all_routed(cluster: Cluster) -> bool:
    """Whether each node has a route to each range of each other node."""
    return all(
        routed(machine, each)
        for machine in cluster.machines.values()
        for other in cluster.machines
        if other != machine.name
        for each in ranges(cluster, other)
    )


@contextmanager
def pinged(machine: Machine, namespace: str, address: str) -> Iterator[list[str]]:
    """Send ten packets a second from a pod meanwhile; the line that says what became of them."""
    said: list[str] = []
    log = f"/run/tmp/ping-{address.replace(':', '-')}"
    ping = machine.background(
        "sh", "-c", f"exec ip netns exec {namespace} ping -i 0.1 {address} >{log}"
    )
    try:
        yield said
    finally:
        # It tells what was lost when it is interrupted, and waits for no answer then.
        machine.run("pkill", "-INT", "-f", f"ping -i 0.1 {address}")
        ping.wait(30)
        said += [line for line in machine.run("cat", log).splitlines() if "packet loss" in line]


def test_node_is_removed_and_added_with_another_range(cluster: Cluster, figures: list[str]) -> None:
    """Its routes go and come on the others in time; pods that run do not notice any of it."""
    one, two, three = cluster.machines.values()
    names = [cluster.create_pod(each.name) for each in (one, two)]
    pods = cluster.running(names)
    inside = cluster.namespace_of(one, addresses_of(pods[names[0]])[0])
    old = ranges(cluster, three.name)
    wait_for(lambda: all_routed(cluster), "all nodes have all routes")
    target = addresses_of(pods[names[1]])
    with pinged(one, inside, target[0]) as first, pinged(one, inside, target[1]) as second:
        three.kubelet.end(signal.SIGKILL)
        cluster.plane.api.delete(f"{NODES}/{three.name}")
        began = time.monotonic()
        wait_for(
            lambda: not any(routed(each, range_) for each in (one, two) for range_ in old),
            "the routes to the node that is removed are gone",
            SECONDS,
        )
        gone = time.monotonic() - began
        three.kubelet.start()
        wait_for(
            lambda: cluster.nodes().get(three.name, {}).get("spec", {}).get("podCIDRs"),
            "the node is back and has ranges",
        )
        began = time.monotonic()
        new = ranges(cluster, three.name)
        assert not set(new) & set(old)
        wait_for(
            lambda: all(routed(each, range_) for each in (one, two) for range_ in new),
            "there are routes to the new ranges",
            SECONDS,
        )
        back = time.monotonic() - began
        wait_for(lambda: three.name in cluster.ready(), f"{three.name} is ready", READY)
        cluster.plane.api_server.end(signal.SIGKILL)
        assert cluster.ping(one, inside, target[0], seconds=AWAY)
        assert all(routed(each, range_) for each in (one, two) for range_ in new)
        cluster.plane.start_api_server()
    assert " 0% packet loss" in first[0]
    assert " 0% packet loss" in second[0]
    name = cluster.create_pod(three.name)
    (found,) = cluster.running([name]).values()
    for address, range_ in zip(addresses_of(found), new, strict=True):
        assert ipaddress.ip_address(address) in ipaddress.ip_network(range_)
        assert cluster.ping(one, inside, address)
    figures.append(
        f"routes to a node that was removed were gone after {gone:.1f} s, to its new ranges there "
        f"after {back:.1f} s; pings meanwhile: {first[0].strip()}; {second[0].strip()}"
    )


def test_node_changes_its_address(cluster: Cluster) -> None:
    """The others' routes lead to the new one."""
    one, two = list(cluster.machines.values())[:2]
    wanted = ranges(cluster, two.name)
    two.move(42)
    try:
        wait_for(
            lambda: set().union(*(gateways(one, each) for each in wanted)) == set(two.addresses),
            f"the routes to {wanted} lead to the new address",
        )
        names = [cluster.create_pod(each.name) for each in (one, two)]
        pods = cluster.running(names)
        inside = cluster.namespace_of(one, addresses_of(pods[names[0]])[0])
        # Connections from the old address are dead, and those of the node's own `node` to the API server
        # are found to be so within a minute (TCP keepalive).
        target = addresses_of(pods[names[1]])
        wait_for(lambda: all(cluster.ping(one, inside, each) for each in target), "it is reached")
    finally:
        two.move(2)
    wait_for(lambda: all_routed(cluster), "all nodes have all routes again")
