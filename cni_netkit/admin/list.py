"""`cni-netkit list`: every attachment on this node, as its record has it."""

import os
from collections.abc import Iterator
from typing import Any

from cni_netkit.admin.failure import Unreadable
from cni_netkit.admin.output import JSON, print_json, print_table
from cni_netkit.record import Record
from cni_netkit.state import ROOT, Store

POD_ARGUMENTS = {"podNamespace": "K8S_POD_NAMESPACE", "podName": "K8S_POD_NAME"}
"""What Kubernetes runtimes put into CNI_ARGS (containerd, CRI-O)."""


def records() -> list[Record]:
    """Every record of this node. Raises `Unreadable`."""
    check_readable()
    return list(Store(ROOT).all())


def check_readable() -> None:
    """Raises `Unreadable` where records may not be looked for: then none would be found."""
    try:
        os.scandir(ROOT).close()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unreadable(str(ROOT), error.errno or 0) from None


def holder(record: Record) -> JSON:
    """Who an attachment is, as every report names it."""
    given = dict(pair.partition("=")[::2] for pair in record.arguments.split(";"))
    return {
        "network": record.attachment.network,
        "containerID": record.attachment.container_id,
        "ifname": record.attachment.ifname,
        **{key: given.get(name) for key, name in POD_ARGUMENTS.items()},
    }


def leased(record: Record) -> Iterator[tuple[str, int, int]]:
    """NIC, its queue, and the device's queue, for each lease of an attachment."""
    nic = _step(record, "leases").get("nic", "")
    for queue, number in record.outcome.get("leases") or ():
        yield nic, queue, number


def report(found: list[Record]) -> JSON:
    """The report, as docs/admin.md describes it."""
    return {"attachments": [described(record) for record in found]}


def main(*, as_json: bool) -> int:
    """Print the report; the exit status."""
    made = report(records())
    if as_json:
        print_json(made)
    else:
        _print(made)
    return 0


def described(record: Record) -> JSON:
    """An attachment, as docs/admin.md describes it."""
    spec = _step(record, "device").get("spec", {})
    return {
        **holder(record),
        "addedTo": record.added_to,
        "netns": record.netns or None,
        "deviceIndex": record.outcome.get("container_index") or None,
        "hostDevice": spec.get("name") if spec.get("pairing") == "pair" else None,
        "kind": spec.get("kind"),
        "pairing": spec.get("pairing"),
        "addresses": [each["address"] for each in record.outcome.get("addresses") or ()],
        "leases": [
            {"nic": nic, "queue": queue, "deviceQueue": number}
            for nic, queue, number in leased(record)
        ],
        "state": _state(record),
    }


def _state(record: Record) -> str:
    if record.complete:
        return "complete"
    return "abandoned" if record.abandoned else "under way"


def _step(record: Record, name: str) -> dict[str, Any]:
    return next((step for step in record.steps if step.get("step") == name), {})


def pod_of(held: JSON) -> str | None:
    """NAMESPACE/NAME, where the runtime said it."""
    if not held["podName"]:
        return None
    return f"{held['podNamespace'] or ''}/{held['podName']}"


def _added(each: JSON) -> str | None:
    return None if each["addedTo"] is None else f"(added to {each['addedTo'] or 'a namespace'})"


def _print(made: JSON) -> None:
    columns = ("network", "container", "pod", "device", "host device", "kind")
    print_table(
        (*columns, "addresses", "leased queues", "state"),
        [
            (
                each["network"],
                each["containerID"],
                pod_of(each),
                each["ifname"],
                each["hostDevice"],
                " ".join(filter(None, (each["kind"], each["pairing"], _added(each)))),
                each["addresses"],
                [f"{lease['nic']}:{lease['queue']}" for lease in each["leases"]],
                each["state"],
            )
            for each in made["attachments"]
        ],
    )
