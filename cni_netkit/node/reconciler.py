"""Makes the node what Node objects say it should be: its list, its routes, its exceptions.

Called with everything each time, so that it does not matter what came in between, nor what a
process before did that was killed.
"""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cni_netkit import log
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.node import conflist
from cni_netkit.node.nodes import Node, names, routes
from cni_netkit.node.routes import NodeRoute, Routes
from cni_netkit.node.status import RESYNC_SECONDS, Problem
from cni_netkit.spec.addresses import ip_network
from cni_netkit.spec.errors import CNIError

OTHER_LINK = (
    "its InternalIP must be reachable on a link of this node without a router in between; where it "
    "is not, have the cloud set the routes, join the nodes by a tunnel, or use a network that "
    "makes one, such as Cilium (docs/kubernetes.md)"
)
OCCUPIED = (
    "two nodes have this range, of which one Node object is to be deleted, so that its kubelet "
    "registers it anew; or another program routes it: of two that do, one has to go"
)
REFUSED = {
    errno.ENETUNREACH: ("NodeNotOnLink", OTHER_LINK),
    errno.EHOSTUNREACH: ("NodeNotOnLink", OTHER_LINK),
    errno.EEXIST: ("RouteExists", OCCUPIED),
}
NO_RANGE = (
    "start the controller manager with --allocate-node-cidrs and --cluster-cidr (kubeadm: "
    "--pod-network-cidr), or set spec.podCIDRs yourself; until then the node stays NotReady"
)


@dataclass(frozen=True)
class Outcome:
    """What came of it; `ready`: the list is complete, and in place."""

    ready: bool = False
    routes: int = 0
    problems: tuple[Problem, ...] = ()


class Reconciler:
    """One node: its name, the template of its list, and where the list goes."""

    def __init__(self, name: str, template: conflist.Template, path: Path, host: Namespace) -> None:
        self._name = name
        self._template = template
        self._path = path
        self._host = host
        self._routes = Routes(host)

    def reconcile(self, nodes: Mapping[str, Node]) -> Outcome:
        """Make it so. What cannot be made so is told, and does not keep the rest from it."""
        own = nodes.get(self._name, Node())
        # First the routes: a node that becomes ready can reach the others.
        wanted, problems = routes(self._name, nodes)
        refused = 0
        try:
            refusals = self._routes.keep(wanted)
            refused = len(refusals)
            problems += told(refusals)
        except KernelError as error:
            refused = len(wanted)
            problems.append(Problem("RoutesNotKept", str(error), "see the log of the container"))
        ready = False
        try:
            if self._name not in nodes:
                # It was deleted, or is not registered yet: nothing is known of its range.
                problems.append(_no_node(self._name))
            elif not own.ranges:
                # Its range of before, if there was one, may be another node's by now.
                if conflist.remove(self._path):
                    log.warning("list removed", path=str(self._path))
                text = f"the Node object {self._name} has no podCIDRs"
                problems.append(Problem("NoPodCIDR", text, NO_RANGE))
            else:
                self._configure(own, [each for node in nodes.values() for each in node.ranges])
                ready = True
        except conflist.ForeignList as error:
            remedy = "move it away; the list is written within five minutes then"
            problems.append(Problem("ForeignConfiguration", str(error), remedy))
        except CNIError as error:
            problems.append(Problem("InvalidConfiguration", error.message, error.details))
        except KernelError as error:
            problems.append(Problem("MasqueradingNotKept", str(error), "it is tried again"))
        except OSError as error:
            text = f"write {self._path}: {error.strerror}"
            problems.append(Problem("ConfigurationNotWritten", text, "it is tried again"))
        return Outcome(ready, len(wanted) - refused, tuple(problems))

    def _configure(self, own: Node, cluster: Iterable[str]) -> None:
        ranges = [str(ip_network(each)) for each in own.ranges]
        made = self._template.complete(ranges, cluster, str(self._path))
        if conflist.write(self._path, made):
            log.info("list written", path=str(self._path), ranges=ranges)
        if self._template.masquerades:
            # Pods that run were started with the list of before.
            self._host.masquerading.exclude(self._template.network, self._template.excluded(made))


class Teller:
    """Tells of problems by the log and by events of the node: once, and not each time."""

    def __init__(self, name: str, create_event: Callable[[str, str, str], None]) -> None:
        self._name = name
        self._create_event = create_event
        self._told: dict[str, Problem] = {}
        self._quiet_until: dict[str, float] = {}

    def tell(self, problems: Iterable[Problem]) -> None:
        """Tell what is new: another reason, or other nodes, these at most once in a resync."""
        current = {each.reason: each for each in problems}
        now = time.monotonic()
        for reason, each in current.items():
            before = self._told.get(reason)
            is_known = before is not None and set(each.about) <= set(before.about)
            if is_known or now < self._quiet_until.get(reason, 0):
                continue
            log.warning(each.text, reason=reason, remedy=each.remedy)
            try:
                self._create_event(self._name, reason, f"{each.text}; {each.remedy}")
            except ConnectionError as error:
                log.debug("event not created", reason=reason, problem=str(error))
                continue
            self._told[reason] = each
            self._quiet_until[reason] = now + RESYNC_SECONDS
        self._told = {reason: each for reason, each in self._told.items() if reason in current}


def told(refusals: Mapping[NodeRoute, KernelError]) -> Iterator[Problem]:
    """One problem for all that the kernel refused for one reason."""
    for number in sorted({error.errno for error in refusals.values()}):
        refused = {route: error for route, error in refusals.items() if error.errno == number}
        about = tuple(sorted({route.node for route in refused}))
        first = next(error for route, error in refused.items() if route.node == about[0])
        reason, remedy = REFUSED.get(number, ("RouteRefused", "see the kernel's log"))
        yield Problem(reason, f"no route to pods of {names(about)}: {first}", remedy, about)


def _no_node(name: str) -> Problem:
    text = f"there is no Node object {name}"
    return Problem("NoNode", text, "the kubelet registers it when it starts")
