"""What the driver asks of the API server: ResourceSlices, ResourceClaims (resource.k8s.io/v1)."""

from collections.abc import Callable, Sequence
from contextlib import closing
from http import HTTPStatus
from typing import Any, TypeVar

from lightkube.resources.core_v1 import Node
from lightkube.resources.resource_v1 import ResourceClaim, ResourceSlice
from lightkube.types import PatchType

from cni_netkit import log
from cni_netkit.apiserver import FAILURES, code, connected, words
from cni_netkit.claims import Claim
from cni_netkit.dra.inventory import DRIVER, JSON, Device

T = TypeVar("T")
ANSWER_SECONDS = 5.0
"""A kubelet waits for a claim, and the inventory is looked at again anyhow."""


class Unreachable(Exception):
    """The API server does not answer, or says no; the text says why."""


class NotAllowed(Exception):
    """The API server will not have it, however often it is asked; the text says why."""


NOT_ALLOWED = (HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)


def publish(node: str, devices: Sequence[Device]) -> None:
    """Have the node's slice say what there is, if it does not yet. Raises `Unreachable`.

    A node has one slice, and it is the whole pool; its owner is the Node object.
    """
    wanted = [each.as_dict() for each in devices]
    name = f"{node}-{DRIVER}"
    try:
        with closing(connected(ANSWER_SECONDS)) as client:
            found: Any = _found(lambda: client.request("get", ResourceSlice, name=name))
            owner = client.request("get", Node, name=node).metadata.uid
            if found is not None and _owners(found) != [owner]:
                # Of a Node object that had the same name; it goes with that one.
                client.request("delete", ResourceSlice, name=name)
                found = None
            if found is None:
                client.request("post", obj=_slice(name, node, owner, wanted, generation=1))
            elif _devices(found) != wanted:
                generation, version = found.spec.pool.generation, found.metadata.resourceVersion
                new = _slice(name, node, owner, wanted, generation + 1, version)
                client.request("put", obj=new)
            else:
                return
    except FAILURES as error:
        raise Unreachable(f"publish the NICs of {node}: {words(error)}") from None
    log.info("NICs published", devices=[f"{each.nic}: {each.queues}" for each in devices])


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


def tell(row: Claim, devices: Sequence[JSON]) -> None:
    """Have a claim's status say what became of it. Raises `Unreachable`, and `NotAllowed`.

    What other drivers say there is left alone. One that is gone, or another by now, is told
    nothing: its row goes soon. By a merge patch: server-side apply would write the keys of opaque
    parameters in another order, which counts as a change of the allocation (Kubernetes 1.36).
    """
    name, namespace = row.name, row.namespace
    try:
        with closing(connected(ANSWER_SECONDS)) as client:
            found: Any = _found(
                lambda: client.request("get", ResourceClaim, name=name, namespace=namespace)
            )
            if found is None or found.metadata.uid != row.uid:
                return
            others = [each for each in _told(found) if each["driver"] != DRIVER]
            body = {
                # Refused where somebody else was faster; then it is told anew.
                "metadata": {"resourceVersion": found.metadata.resourceVersion},
                "status": {"devices": [*others, *devices]},
            }
            kind = {"Content-Type": PatchType.MERGE.value}
            status = ResourceClaim.Status
            client.request("patch", status, body, name, namespace, headers=kind)
    except FAILURES as error:
        problem = f"tell the status of {row}: {words(error)}"
        if code(error) in NOT_ALLOWED:
            raise NotAllowed(problem) from None
        raise Unreachable(problem) from None


def _told(found: Any) -> list[JSON]:
    return [dict(each.to_dict()) for each in (found.status and found.status.devices) or ()]


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
