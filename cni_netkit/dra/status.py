"""What became of a claim: status.devices of a ResourceClaim, by records and the node's NICs."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cni_netkit.claims import Claim
from cni_netkit.dra.attached import Attached, attached
from cni_netkit.dra.inventory import DRIVER, JSON, Device, device_name
from cni_netkit.record import Record
from cni_netkit.steps.device import NO_MAC

READY = "Attached"
DETACHED = (
    "has lost its queues, as when its NIC is removed: delete the pod, a new one gets some again"
)


def of(
    claim: Claim,
    node: str,
    rows: Iterable[Claim],
    records: Iterable[Record],
    nics: Iterable[Device],
) -> list[JSON]:
    """An AllocatedDeviceStatus for each share; a condition has no time yet (see `dated`).

    `rows` are all claims of the node, `records` all of its attachments, `nics` those prepared.
    """
    there = {each.nic: each for each in nics}
    return [
        {
            "driver": DRIVER,
            "pool": node,
            "device": device_name(each.share.nic),
            **({"shareID": each.share.share} if each.share.share else {}),
            **_contents(each, there.get(each.share.nic)),
        }
        for each in attached(rows, records)
        if each.claim == claim
    ]


def dated(devices: Iterable[JSON], before: Iterable[JSON]) -> list[JSON]:
    """With the time at which each condition became so (RFC 3339): now, or as told `before`."""
    known = {_key(each): each.get("conditions", []) for each in before}
    return [
        {
            **each,
            "conditions": [
                {**one, "lastTransitionTime": _since(one, known.get(_key(each), []))}
                for one in each["conditions"]
            ],
        }
        for each in devices
    ]


def _key(device: JSON) -> tuple[Any, ...]:
    return tuple(device.get(each) for each in ("driver", "pool", "device", "shareID"))


def _since(condition: JSON, before: Iterable[JSON]) -> str:
    same = (condition["type"], condition["status"])
    times = [
        each["lastTransitionTime"] for each in before if (each["type"], each["status"]) == same
    ]
    return str(times[0]) if times else datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _contents(found: Attached, nic: Device | None) -> JSON:
    share, record, part = found.share, found.record, found.part
    outcome = record.outcome if record else {}
    queues = [queue for queue, _ in outcome.get("leases", ())][part]
    if record is None or len(queues) < share.count:
        return _condition("NotAttached", "the pod has no device for it")
    ifname = record.attachment.ifname
    addresses = next(
        (step["addresses"] for step in record.steps if step.get("step") == "flows"), ()
    )
    network: dict[str, Any] = {"interfaceName": ifname}
    if (mac := outcome.get("container_mac")) not in (None, "", NO_MAC):
        network["hardwareAddress"] = mac
    if addresses:
        network["ips"] = [f"{each}/{128 if ':' in each else 32}" for each in addresses]
    ours = outcome.get("container_index"), outcome.get("container_nsid")
    if nic is None or nic.problem:
        condition = _condition("NICNotReady", nic.problem if nic else f"NIC {share.nic} is gone")
    elif any(nic.leased.get(queue) != ours for queue in queues):
        condition = _condition("Detached", f"{ifname} {DETACHED}")
    else:
        condition = _condition(READY, f"{ifname} has {len(queues)} queues of {share.nic}")
    return {**condition, "networkData": network, "data": {"queues": queues}}


def _condition(reason: str, message: str) -> JSON:
    status = str(reason == READY)
    return {
        "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]
    }
