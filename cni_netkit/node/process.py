"""The process `cni-netkit node`: waits for changes of Node objects; has the node follow them."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from cni_netkit import log
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


def run() -> int:
    """Follow the cluster until a signal says to end. Raises `NodeError` where it cannot begin."""
    name = os.environ.get("NODE_NAME", "")
    if not name:
        raise NodeError("the variable NODE_NAME is not set: the DaemonSet sets it to spec.nodeName")
    try:
        from cni_netkit.node import api
    except ImportError as error:
        raise NodeError(
            f"{error}: install the package with its extra node, cni-netkit[node]"
        ) from None
    try:
        template = Template.read(TEMPLATE.read_bytes(), str(TEMPLATE))
        api.check()
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
    # Of a process before: whoever asks whether this one is ready shall not believe it.
    FILE.unlink(missing_ok=True)
    reconciler = Reconciler(name, template, LIST, Namespace.current())
    teller = Teller(name, api.create_event)
    changed = threading.Event()
    nodes = api.Nodes(changed)
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
        _save(name, seen or {}, outcome, nodes.failure)
        time.sleep(SETTLE_SECONDS)


def _save(name: str, seen: Mapping[str, Node], outcome: Outcome, failure: str) -> None:
    problems = outcome.problems
    if failure:
        problems += (Problem("APIServerUnreachable", f"watch Node objects: {failure}", REACH),)
    try:
        Status(
            node=name,
            ready=outcome.ready,
            ranges=seen.get(name, Node()).ranges,
            nodes=len(seen),
            routes=outcome.routes,
            problems=problems,
            written=time.time(),
        ).save()
    except OSError as error:
        log.error("status not written", path=str(FILE), problem=error.strerror)
