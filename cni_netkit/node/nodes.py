"""Nodes as their objects tell, and the routes that follow from them; pure."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cni_netkit.node.routes import NodeRoute
from cni_netkit.node.status import Problem
from cni_netkit.spec.addresses import ip_address

NAMED = 5
"""Nodes that a text names; a cluster has thousands, and an event has 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as far as it matters: its podCIDRs, and an InternalIP of each family."""

    ranges: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[str], addresses: Iterable[str]) -> "Node":
        """Of all its InternalIPs the first of each family counts, as kubelets have it."""
        first: dict[int, str] = {}
        for address in addresses:
            with suppress(ValueError):  # the API server does not look at them
                first.setdefault(ip_address(address).version, address)
        return cls(tuple(ranges), tuple(first.values()))


def routes(name: str, nodes: Mapping[str, Node]) -> tuple[list[NodeRoute], list[Problem]]:
    """A route for each range of each node, and which cannot be; `name` is this one."""
    made: list[NodeRoute] = []
    without_address: list[str] = []
    for other, node in sorted(nodes.items()):
        via = {_is_ipv6(address): address for address in node.addresses}
        for text in node.ranges:
            if other == name:
                made.append(NodeRoute(other, text))
            elif address := via.get(_is_ipv6(text)):
                made.append(NodeRoute(other, text, address))
            else:
                without_address.append(other)
    if not without_address:
        return made, []
    about = tuple(dict.fromkeys(without_address))
    text = f"no route to pods of {names(about)}: no InternalIP of the range's family"
    remedy = "give its kubelet --node-ip with an address of each family"
    return made, [Problem("NoInternalIP", text, remedy, about)]


def _is_ipv6(text: str) -> bool:
    """Of an address or a range. There are ten thousand of them at each change."""
    return ":" in text


def names(nodes: Sequence[str]) -> str:
    """Nodes in a sentence."""
    more = len(nodes) - NAMED
    told = ", ".join(nodes[:NAMED])
    what = "node" if len(nodes) == 1 else "nodes"
    return f"{what} {told}" + (f" and {more} more" if more > 0 else "")
