"""From a claim that is allocated to the row that ADD reads."""

from collections.abc import Iterable, Mapping
from typing import Any

from cni_netkit.claims import Claim, Share
from cni_netkit.dra.inventory import CAPACITY, DRIVER, JSON, device_name
from cni_netkit.nics import record
from cni_netkit.spec.claims import validate
from cni_netkit.spec.errors import CNIError

OWN = "have each pod make its own claim (resourceClaimTemplateName)"


class Refused(Exception):
    """A claim cannot be prepared; the text says why, and is for the pod's events."""


def read(found: JSON) -> Claim:
    """What a claim promises, by its allocation and whom it is reserved for. Raises `Refused`."""
    metadata, status = found["metadata"], found.get("status") or {}
    namespace, name = metadata["namespace"], metadata["name"]
    reserved = status.get("reservedFor") or []
    pods = [each["uid"] for each in reserved if each.get("resource") == "pods"]
    if len(pods) != 1 or len(reserved) != 1:
        users = ", ".join(f"{each.get('resource')} {each.get('name')}" for each in reserved)
        raise Refused(
            f"claim {namespace}/{name} is reserved for {users or 'nobody'}: queues are leased to "
            f"the device of one pod: {OWN}"
        )
    owners = [each["uid"] for each in metadata.get("ownerReferences") or ()]
    if pods[0] not in owners:
        # A second pod of the claim the kubelet would start without a word to any driver.
        raise Refused(
            f"claim {namespace}/{name} is no pod's own, so any number of pods may use it, and the "
            f"kubelet asks for the first one only: {OWN}"
        )
    allocation = ((status.get("allocation") or {}).get("devices")) or {}
    results = [each for each in allocation.get("results") or () if each["driver"] == DRIVER]
    shares = tuple(
        _share(each, allocation.get("config") or (), namespace, name) for each in results
    )
    if not shares:
        raise Refused(f"claim {namespace}/{name} has no queues of this node allocated")
    return Claim(namespace, name, metadata["uid"], pods[0], shares)


def _share(result: JSON, configs: Iterable[JSON], namespace: str, name: str) -> Share:
    request, device = result["request"], result["device"]
    where = f"request {request} of claim {namespace}/{name}"
    consumed = (result.get("consumedCapacity") or {}).get(CAPACITY)
    if consumed is None:
        raise Refused(
            f"{where}: how many queues is not said; consumable capacity is on by default since "
            "Kubernetes 1.36, before that by the feature gate DRAConsumableCapacity"
        )
    nic = next((each for each in _prepared() if device_name(each) == device), None)
    if nic is None:
        raise Refused(f"{where}: NIC {device} is not prepared on this node any more")
    lease: dict[str, Any] = {"workload": _role(nic)}
    ifname = ""
    for config in configs:
        opaque = config.get("opaque") or {}
        asked = config.get("requests") or ()
        if opaque.get("driver") != DRIVER or (asked and request not in asked):
            continue
        try:
            parameters = validate(_object(opaque.get("parameters")))
        except CNIError as error:
            raise Refused(f"{where}: {error.message}") from None
        lease |= parameters.lease
        ifname = parameters.if_name or ifname
    return Share(request, nic, int(consumed), lease, ifname, result.get("shareID") or "")


def _object(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _prepared() -> list[str]:
    return sorted(each.stem for each in record.ROOT.glob("*.json"))


def _role(nic: str) -> str | None:
    known = record.NicStore().load(nic)
    return known.preparation.role if known else None
