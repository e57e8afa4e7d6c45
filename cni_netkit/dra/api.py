"""What the driver asks of the API server: ResourceSlices, ResourceClaims (resource.k8s.io/v1)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from http import HTTPStatus
from typing import Any, TypeVar

from lightkube import ALL_NS
from lightkube.resources.core_v1 import Node
from lightkube.resources.resource_v1 import ResourceClaim, ResourceSlice
from lightkube.types import PatchType

from cni_netkit import log
from cni_netkit.apiserver import FAILURES, code, connected, words
from cni_netkit.claims import Claim
from cni_netkit.dra import status
from cni_netkit.dra.inventory import CAPACITY, DRIVER, JSON

T = TypeVar("T")
ANSWER_SECONDS = 5.0
"""A kubelet waits for a claim, and the inventory is looked at again anyhow."""

TRIES = 3
"""To write what others write as well."""

CHUNK = 100
"""ResourceClaims in one answer to a list."""


class Unreachable(Exception):
    """The API server does not answer, or says no; the text says why."""


class NotAllowed(Exception):
    """The API server will not have it, however often it is asked; the text says why."""


NOT_ALLOWED = (HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)


def publish(node: str, devices: list[JSON]) -> bool:
    """Have the node's slice say what there is, if it does not yet; whether it did not.

    A node has one slice, and it is the whole pool; its owner is the Node object. Raises
    `Unreachable`.
    """
    name = f"{node}-{DRIVER}"
    try:
        with closing(connected(ANSWER_SECONDS)) as client:
            found: Any = _found(lambda: client.request("get", ResourceSlice, name=name))
            owner = client.request("get", Node, name=node).metadata.uid
            if found is not None and _owners(found) != [owner]:
                # Of a Node object that had the same name; it goes with that one.
                client.request("delete", ResourceSlice, name=name)
                found = None
            made: Any
            if found is None:
                made = client.request("post", obj=_slice(name, node, owner, devices, generation=1))
            elif _devices(found) != devices:
                generation, version = found.spec.pool.generation, found.metadata.resourceVersion
                new = _slice(name, node, owner, devices, generation + 1, version)
                made = client.request("put", obj=new)
            else:
                return False
    except FAILURES as error:
        raise Unreachable(f"publish the NICs of {node}: {words(error)}") from None
    if _devices(made) != devices:
        log.error(
            "the API server leaves out a part of what is published of NICs",
            remedy="turn the feature gate DRAConsumableCapacity on, for API server and scheduler",
        )
    told = [f"{each['name']}: {each['capacity'][CAPACITY]['value']}" for each in devices]
    log.info("NICs published, with so many queues", devices=told)
    return True


def allocated(node: str) -> Iterator[JSON]:
    """Every claim that has something of this node's pool. Raises `Unreachable`."""
    try:
        with closing(connected(ANSWER_SECONDS)) as client:
            request = client.prepare_request(
                "list", ResourceClaim, namespace=ALL_NS, params={"limit": str(CHUNK)}
            )
            for _, chunk in client.list_chunks(request):
                for each in chunk:
                    found = dict(each.to_dict())
                    if shares(found, node):
                        yield found
    except FAILURES as error:
        raise Unreachable(f"list ResourceClaims: {words(error)}") from None


def claim(namespace: str, name: str) -> JSON | None:
    """A ResourceClaim as the API has it; None if there is none. Raises `Unreachable`."""
    try:
        with closing(connected(ANSWER_SECONDS)) as client:
            found = _found(
                lambda: client.request("get", ResourceClaim, name=name, namespace=namespace)
            )
    except FAILURES as error:
        raise Unreachable(f"get claim {namespace}/{name}: {words(error)}") from None
    return None if found is None else dict(found.to_dict())


def tell(row: Claim, devices: Sequence[JSON], tries: int = TRIES) -> bool:
    """Have a claim's status say what became of it, if it does not yet; whether it did not.

    What other drivers say there is left alone. One that is gone, or another by now, is told
    nothing: its row goes soon. By a JSON patch: with server-side apply keys of opaque parameters
    come in another order, with a merge patch others' data without its nulls, and either counts as
    a change of what is not ours (Kubernetes 1.36). Raises `Unreachable`, and `NotAllowed`.
    """
    name, namespace = row.name, row.namespace
    try:
        with closing(connected(ANSWER_SECONDS)) as client:
            found: Any = _found(
                lambda: client.request("get", ResourceClaim, name=name, namespace=namespace)
            )
            if found is None or found.metadata.uid != row.uid:
                return False
            there = _told(found)
            ours = [each for each in there if each["driver"] == DRIVER]
            now = status.dated(devices, ours)
            if now == ours:
                return False
            patch = _patch(found.metadata.resourceVersion, there, now)
            kind = {"Content-Type": PatchType.JSON.value}
            client.request("patch", ResourceClaim.Status, patch, name, namespace, headers=kind)
    except FAILURES as error:
        if code(error) == HTTPStatus.CONFLICT and tries > 1:
            return tell(row, devices, tries - 1)
        problem = f"tell the status of {row}: {words(error)}"
        if code(error) in NOT_ALLOWED:
            raise NotAllowed(problem) from None
        raise Unreachable(problem) from None
    return True


def shares(claim: JSON, node: str) -> list[JSON]:
    """What is allocated to a claim of this node's pool (DeviceRequestAllocationResult)."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results = (allocation.get("devices") or {}).get("results") or ()
    return [each for each in results if (each["driver"], each["pool"]) == (DRIVER, node)]


def _told(found: Any) -> list[JSON]:
    return [dict(each.to_dict()) for each in (found.status and found.status.devices) or ()]


def _patch(version: str, there: Sequence[JSON], now: Iterable[JSON]) -> list[JSON]:
    """What makes of `there` what others say of their devices, and `now` (RFC 6902)."""
    place = "/status/devices"
    ours = [number for number, each in enumerate(there) if each["driver"] == DRIVER]
    return [
        # Refused where somebody else was faster.
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        *({"op": "remove", "path": f"{place}/{number}"} for number in reversed(ours)),
        *([] if there else [{"op": "add", "path": place, "value": []}]),
        *({"op": "add", "path": f"{place}/-", "value": each} for each in now),
    ]


def _found(ask: Callable[[], T]) -> T | None:
    """An answer; None where there is no such object."""
    try:
        return ask()
    except FAILURES as error:
        if code(error) == HTTPStatus.NOT_FOUND:
            return None
        raise


def _slice(
    name: str, node: str, owner: str, devices: list[JSON], generation: int, version: str = ""
) -> ResourceSlice:
    """`version` is the resource version of the one that it replaces."""
    reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner, "controller": True}
    metadata = {"name": name, "ownerReferences": [reference]}
    made = ResourceSlice.from_dict(
        {
            "metadata": {**metadata, **({"resourceVersion": version} if version else {})},
            "spec": {
                "driver": DRIVER,
                "nodeName": node,
                "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
                "devices": devices,
            },
        }
    )
    assert isinstance(made, ResourceSlice)
    return made


def _owners(found: Any) -> list[str]:
    return [each.uid for each in found.metadata.ownerReferences or ()]


def _devices(found: Any) -> list[JSON]:
    return [dict(each.to_dict()) for each in found.spec.devices or ()]
