"""The process `cni-netkit node`: waits for changes of Node objects; has the node follow them."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

from cni_netkit import log, pages
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.node.conflist import Template
from cni_netkit.node.nodes import Node
from cni_netkit.node.reconciler import Outcome, Reconciler, Teller
from cni_netkit.node.status import FILE, RESYNC_SECONDS, Problem, Status
from cni_netkit.spec.errors import CNIError

TEMPLATE = Path("/etc/cni-netkit/10-netkit.conflist")
LIST = Path("/etc/cni/net.d/10-netkit.conflist")
REACH = (
    "the node goes on with what it knows; where kube-proxy cannot bring it to the API server, name "
    "one in the ConfigMap cni-netkit-api-server (docs/kubernetes.md)"
)
SETTLE_SECONDS = 1.0
"""At least between two times that all is made so: what changes meanwhile is one change."""


class NodeError(Exception):
    """It cannot begin; the text says why, and what to do."""


def run(health: pages.Address | None = None) -> int:
    """Follow the cluster until a signal says to end; `health`: where it tells whether it is ready.

    Raises `NodeError` where it cannot begin.
    """
    name = os.environ.get("NODE_NAME", "")
    if not name:
        raise NodeError("the variable NODE_NAME is not set: the DaemonSet sets it to spec.nodeName")
    try:
        from cni_netkit import apiserver
        from cni_netkit.node import api
    except ImportError as error:
        raise NodeError(
            f"{error}: install the package with its extra node, cni-netkit[node]"
        ) from None
    try:
        template = Template.read(TEMPLATE.read_bytes(), str(TEMPLATE))
        apiserver.check()
    except OSError as error:
        raise NodeError(f"read {TEMPLATE}: {error.strerror}") from None
    except CNIError as error:
        raise NodeError(f"{error.message}; {error.details}") from None
    except ValueError as error:
        raise NodeError(
            f"find the API server: {error}; it runs in a pod of the DaemonSet in conf/kubernetes"
        ) from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    # Of a process before: it is not to be believed of this one.
    FILE.unlink(missing_ok=True)
    reconciler = Reconciler(name, template, LIST, Namespace.current())
    teller = Teller(name, api.create_event)
    changed = threading.Event()
    nodes = api.Nodes(changed)
    status = _status(name, {}, Outcome(), "")
    with ExitStack() as stack:
        if health:
            page = {"/readyz": lambda: _readiness(status)}
            stack.enter_context(pages.shown(health, "--health", page))
        nodes.start()
        while True:
            changed.wait(RESYNC_SECONDS)
            changed.clear()
            if nodes.has_ended:
                return 1
            seen = nodes.seen()
            # Before the first list all stays as a process before left it.
            outcome = Outcome() if seen is None else reconciler.reconcile(seen)
            teller.tell(outcome.problems)
            status = _status(name, seen or {}, outcome, nodes.failure)
            try:
                status.save()
            except OSError as error:
                log.error("status not written", path=str(FILE), problem=error.strerror)
            time.sleep(SETTLE_SECONDS)


def _status(name: str, seen: Mapping[str, Node], outcome: Outcome, failure: str) -> Status:
    problems = outcome.problems
    if failure:
        problems += (Problem("APIServerUnreachable", f"watch Node objects: {failure}", REACH),)
    return Status(
        node=name,
        ready=outcome.ready,
        ranges=seen.get(name, Node()).ranges,
        nodes=len(seen),
        routes=outcome.routes,
        problems=problems,
        written=time.time(),
    )


def _readiness(status: Status) -> pages.Answer:
    """Ready is the node that has its list, by what the API server says."""
    lines = [f"{each.reason}: {each.text}; {each.remedy}\n" for each in status.problems]
    if status.ready:
        lines.insert(0, f"ok: {LIST} is complete, {status.routes} routes to other nodes\n")
        return pages.Answer(HTTPStatus.OK, "".join(lines).encode())
    lines.insert(0, f"failed: {LIST} is not complete, or not known to be\n")
    return pages.Answer(HTTPStatus.SERVICE_UNAVAILABLE, "".join(lines).encode())
