"""`cni-netkit list`: every attachment on this node, as its record has it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cni_netkit.admin.failure import Unreadable
from cni_netkit.admin.output import JSON, on_terminal, print_json, print_table
from cni_netkit.record import Record, cut_off
from cni_netkit.spec.lease import ranges
from cni_netkit.state import ROOT, DamagedRecord, NewerRecord, Store

Found = Record | NewerRecord | DamagedRecord

POD_ARGUMENTS = {"podNamespace": "K8S_POD_NAMESPACE", "podName": "K8S_POD_NAME"}
"""What Kubernetes runtimes put into CNI_ARGS (containerd, CRI-O)."""

SHORT_ID = 12
"""How many characters of a container's id are shown on a terminal, as podman does."""

LONG_ID = 24
"""Up to so many characters somebody may have chosen an id to be read."""

NEWER, DAMAGED = "of a newer release", "damaged"

NO_ATTACHMENT = "there is no attachment on this node"


def records() -> list[Record]:
    """Every record of this node that this release knows. Raises `Unreadable`."""
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


def report(found: Sequence[Found]) -> JSON:
    """The report, as docs/admin.md describes it."""
    return {"attachments": [described(record) for record in found]}


def main(*, as_json: bool, wide: bool) -> int:
    """Print the report; the exit status."""
    check_readable()
    found = [*Store(ROOT).scan()]
    made = report(found)
    if as_json:
        print_json(made)
    elif wide:
        _print_wide(made)
    else:
        _print(made, shown_ids(found))
    return 0


def shown_ids(found: Iterable[Found]) -> dict[str, str]:
    """How each container's id is shown: on a terminal as much of it as tells it from the others."""
    every = sorted({record.attachment.container_id for record in found})
    if not on_terminal():
        return {each: each for each in every}
    shown = {}
    for before, each, after in zip(["", *every], every, [*every[1:], ""], strict=False):
        length = SHORT_ID if len(each) > LONG_ID else len(each)
        while length < len(each) and each[:length] in (before[:length], after[:length]):
            length += 1
        shown[each] = each[:length]
    return shown


def described(record: Found) -> JSON:
    """An attachment, as docs/admin.md describes it."""
    if not isinstance(record, Record):
        state = NEWER if isinstance(record, NewerRecord) else DAMAGED
        return described(cut_off(record.attachment)) | {"state": state}
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


def queues_of(held: JSON) -> str | None:
    """NIC:QUEUES; all of an attachment are of one NIC."""
    if not held["leases"]:
        return None
    return f"{held['leases'][0]['nic']}:{ranges(each['queue'] for each in held['leases'])}"


def _added(each: JSON) -> str | None:
    return None if each["addedTo"] is None else f"(added to {each['addedTo'] or 'a namespace'})"


def _print(made: JSON, shown: dict[str, str]) -> None:
    print_table(
        ("container", "pod", "device", "addresses", "leased queues", "state"),
        [
            (
                shown[each["containerID"]],
                pod_of(each),
                each["ifname"],
                [address.partition("/")[0] for address in each["addresses"]],
                queues_of(each),
                each["state"],
            )
            for each in made["attachments"]
        ],
        empty=NO_ATTACHMENT,
    )


def _print_wide(made: JSON) -> None:
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
                queues_of(each),
                each["state"],
            )
            for each in made["attachments"]
        ],
        empty=NO_ATTACHMENT,
    )
