"""The Kubernetes API: Node objects, listed and watched, and events; nobody else knows lightkube.

Follows the API's concepts (kubernetes.io, "Kubernetes API Concepts"): a list in chunks, then a
watch from its resource version on, with bookmarks; after an interruption the watch goes on from
where it was, and where the API server does not know that any more (410 Gone) all begins anew.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus

import msgspec
from lightkube.core.generic_client import GenericSyncClient
from lightkube.core.resource import GlobalResource
from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event
from lightkube.resources.core_v1 import Node as WholeNode

from cni_netkit import log
from cni_netkit.apiserver import FAILURES, code, connected, pause, words
from cni_netkit.node.nodes import Node

CHUNK = 100
"""Node objects in one answer to a list: an object has some 10 kB, most of it images' names."""

EVENT_SECONDS = 3.0
"""The same for an event: the node waits for it, and it can be created later."""

COMPONENT = "cni-netkit-node"
EVENTS_OF_NODES = "default"
"""The namespace of events of what has none itself."""

ADDRESS = "InternalIP"


class _Metadata(msgspec.Struct):
    name: str = ""
    resourceVersion: str = ""  # noqa: N815 - lightkube reads it by this name


class _Spec(msgspec.Struct):
    podCIDRs: tuple[str, ...] = ()  # noqa: N815 - the API's


class _Address(msgspec.Struct):
    type: str
    address: str


class _Status(msgspec.Struct):
    addresses: tuple[_Address, ...] = ()


class _Node(msgspec.Struct, GlobalResource):
    """What is decoded of a Node object; the rest, 99 % of it, becomes no Python objects."""

    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)

    _api_info = WholeNode._api_info

    @property
    def node(self) -> Node:
        addresses = (each.address for each in self.status.addresses if each.type == ADDRESS)
        return Node.of(self.spec.podCIDRs, addresses)


class Nodes:
    """Every node of the cluster by name, kept up to date by a thread.

    `changed` is set whenever there is something to look at: what `seen` says, or `failure`.
    """

    def __init__(self, changed: threading.Event) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._nodes: dict[str, Node] | None = None
        self._version = ""
        self.failure = ""
        """Why Node objects cannot be watched; empty while they are."""

        self.has_ended = False
        """Whether nobody keeps it up to date any more."""

    def start(self) -> None:
        """Begin; it ends with the process."""
        threading.Thread(target=self._run, name="nodes", daemon=True).start()

    def seen(self) -> dict[str, Node] | None:
        """All nodes as far as known now; None before the first list is there."""
        with self._lock:
            return None if self._nodes is None else dict(self._nodes)

    def _run(self) -> None:
        try:
            self._keep()
        finally:
            # By a fault, of which the thread tells. Without it nothing would be learnt any more.
            self.has_ended = True
            self._changed.set()

    def _keep(self) -> None:
        attempt = 0
        while True:
            try:
                with closing(connected()) as client:
                    if not self._version:
                        self._list(client)
                        attempt = 0
                    for kind, found in _watch(client, self._version):
                        self._take(kind, found)
                        attempt = 0
            except FAILURES as error:
                if code(error) == HTTPStatus.GONE:
                    log.info("Node objects are listed anew", because=words(error))
                    self._version = ""
                else:
                    self._tell(words(error))
            time.sleep(pause(attempt))
            attempt += 1

    def _list(self, client: GenericSyncClient) -> None:
        """Forget what was known: nobody tells of what was deleted while nobody listened."""
        chunks = client.list_chunks(
            client.prepare_request("list", _Node, params={"limit": str(CHUNK)})
        )
        nodes: dict[str, Node] = {}
        version = ""
        for found, chunk in chunks:
            version = found or ""
            nodes |= {each.metadata.name: each.node for each in chunk}
        self._version = version
        self._tell("")
        with self._lock:
            is_news = nodes != self._nodes
            self._nodes = nodes
        if is_news:
            self._changed.set()

    def _take(self, kind: str, found: _Node) -> None:
        """One event of the watch. Most are kubelets that say they live: these are no news."""
        self._version = found.metadata.resourceVersion
        self._tell("")
        if kind == "BOOKMARK":
            return
        name = found.metadata.name
        with self._lock:
            assert self._nodes is not None
            before = self._nodes.get(name)
            after = None if kind == "DELETED" else found.node
            if after is None:
                self._nodes.pop(name, None)
            else:
                self._nodes[name] = after
        if after != before:
            self._changed.set()

    def _tell(self, failure: str) -> None:
        if bool(failure) != bool(self.failure):
            if failure:
                log.warning("Node objects cannot be watched", problem=failure)
            else:
                log.info("Node objects are watched again")
        if failure != self.failure:
            self.failure = failure
            self._changed.set()


def create_event(node: str, reason: str, text: str) -> None:
    """Have an event of a node say why something is not as it should be.

    Its name follows from what it says: as long as the API server keeps it (an hour), it is there
    once. `reason` is a word in CamelCase. Raises ConnectionError.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    digits = hashlib.sha256(f"{reason} {text}".encode()).hexdigest()[:16]
    event = Event(
        metadata=ObjectMeta(name=f"{node}.{digits}", namespace=EVENTS_OF_NODES),
        # As kubelets do: a node's name is what its events have for its UID.
        involvedObject=ObjectReference(kind="Node", name=node, uid=node),
        type="Warning",
        reason=reason,
        message=text,
        source=EventSource(component=COMPONENT, host=node),
        firstTimestamp=now,
        lastTimestamp=now,
        count=1,
    )
    try:
        with closing(connected(EVENT_SECONDS)) as client:
            client.request("post", obj=event)
    except FAILURES as error:
        if code(error) != HTTPStatus.CONFLICT:
            raise ConnectionError(words(error)) from None


def _watch(client: GenericSyncClient, version: str) -> Iterator[tuple[str, _Node]]:
    """Events from a resource version on, until something is wrong.

    lightkube's own `watch` is made of these two calls, and cannot ask for bookmarks.
    """
    asked = {"resourceVersion": version, "allowWatchBookmarks": "true"}
    request = client.prepare_request("list", _Node, watch=True, params=asked)
    yield from client.watch(request)
