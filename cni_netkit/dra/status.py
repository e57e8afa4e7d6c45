"""What became of a claim: status.devices of a ResourceClaim, by what is on record of its pod."""

from collections.abc import Iterable
from typing import Any

from cni_netkit.claims import Claim, named
from cni_netkit.dra.inventory import DRIVER, JSON, device_name
from cni_netkit.record import Record

READY, WAITING = ("True", "Attached"), ("False", "NotAttached")


def of(claim: Claim, node: str, rows: Iterable[Claim], records: Iterable[Record]) -> list[JSON]:
    """An AllocatedDeviceStatus for each share; a condition has no time yet (see `dated`).

    `rows` are all claims of the node, `records` all of its attachments.
    """
    siblings = sorted(
        (each for each in rows if each.pod == claim.pod),
        key=lambda each: (each.namespace, each.name),
    )
    known = [each for each in records if f"K8S_POD_UID={claim.pod}" in each.arguments.split(";")]
    bases = [each for each in known if each.config.get("claims")]
    added = {each.attachment.ifname: each for each in known if each.added_to and each.complete}
    prefix = bases[0].attachment.ifname if bases else ""
    return [
        {
            "driver": DRIVER,
            "pool": node,
            "device": device_name(share.nic),
            **({"shareID": share.share} if share.share else {}),
            **_contents(added.get(name)),
        }
        for name, owner, share in named(prefix, siblings)
        if owner == claim
    ]


def dated(devices: list[JSON], now: str) -> list[JSON]:
    """With the time at which each condition became so: RFC 3339."""
    return [
        {
            **each,
            "conditions": [{**one, "lastTransitionTime": now} for one in each["conditions"]],
        }
        for each in devices
    ]


def _contents(record: Record | None) -> JSON:
    if record is None:
        return _condition(WAITING, "the pod has no device for it")
    outcome = record.outcome
    queues = [queue for queue, _ in outcome.get("leases", ())]
    addresses = next(
        (step["addresses"] for step in record.steps if step.get("step") == "flows"), ()
    )
    network: dict[str, Any] = {"interfaceName": record.attachment.ifname}
    if mac := outcome.get("container_mac"):
        network["hardwareAddress"] = mac
    if addresses:
        network["ips"] = [f"{each}/{128 if ':' in each else 32}" for each in addresses]
    return {
        **_condition(READY, f"{record.attachment.ifname} has {len(queues)} queues"),
        "networkData": network,
        "data": {"queues": queues},
    }


def _condition(state: tuple[str, str], message: str) -> JSON:
    status, reason = state
    return {
        "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]
    }
