"""Routes to the ranges of other nodes."""

from collections.abc import Collection
from dataclasses import dataclass

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import NetworkRoute
from cni_netkit.kernel.namespace import Namespace

PROTOCOL = 117
"""Our number among routing protocols; docs/decisions/D-35.md has who uses which."""


@dataclass(frozen=True)
class NodeRoute:
    """A node's range of addresses ("10.244.1.0/24"), and the address by which it is reached.

    That is one of the node's own, of the range's family. It is "" for the node where this runs:
    what no pod there has is unreachable then, and does not go out by the default route, to come
    back.
    """

    node: str
    range: str
    via: str = ""


class Routes:
    """The routes of this node that are ours: in the main table, with `PROTOCOL`."""

    def __init__(self, namespace: Namespace) -> None:
        self._routes = namespace.routes_of(PROTOCOL)

    def keep(self, wanted: Collection[NodeRoute]) -> dict[NodeRoute, KernelError]:
        """Have these routes and no others of ours; returns those that the kernel refused, and why.

        ENETUNREACH and EHOSTUNREACH: the node is on no link of this one; EEXIST: somebody else
        routes the range, and what they made is left alone, or two nodes have it. All that is not
        refused is in effect. Raises `KernelError` where the kernel lists or deletes nothing.
        """
        nodes: dict[NetworkRoute, NodeRoute] = {}
        for each in sorted(wanted, key=lambda each: (each.range, each.node)):
            nodes.setdefault(NetworkRoute.of(each.range, each.via or None), each)
        return {nodes[route]: error for route, error in self._routes.keep(list(nodes)).items()}
