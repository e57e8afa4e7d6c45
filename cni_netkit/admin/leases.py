"""`cni-netkit leases`: the receive queues of every NIC, and who holds which.

The kernel says what is leased, to which device; the records say whose device that is.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing

from cni_netkit.admin.list import holder, leased, pod_of, records, shown_ids
from cni_netkit.admin.output import JSON, print_json, print_table
from cni_netkit.facts import Nic, nics
from cni_netkit.kernel.model import Queue
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.record import Record
from cni_netkit.records import netns_of

NO_NIC = "there is no NIC here: no device of this network namespace has hardware behind it"

Seat = tuple[str, int, int, int]
"""NIC, its queue, index of the container's device, and that one's queue."""


def report(found: Sequence[Nic], recorded: Iterable[Record]) -> JSON:
    """The report, as docs/admin.md describes it."""
    holders = _holders(recorded)
    return {
        "nics": [
            {
                "name": nic.link.name,
                "index": nic.link.index,
                "up": nic.link.up,
                "queues": [_queue(nic.link.name, queue, holders) for queue in nic.queues],
            }
            for nic in found
        ]
    }


def main(*, as_json: bool) -> int:
    """Print the report; the exit status."""
    with closing(Namespace.current()) as host:
        made = report(nics(host), found := records())
    if as_json:
        print_json(made)
    else:
        _print(made, shown_ids(found))
    return 0


def _holders(recorded: Iterable[Record]) -> dict[Seat, JSON]:
    """Who holds what, by the records.

    Where two have the same seat, one is of a container that is gone: a queue that was given back
    can be leased to a device with the same index in another namespace.
    """
    return {
        (nic, queue, record.outcome.get("container_index", 0), number): holder(record)
        for record in sorted(recorded, key=lambda record: bool(netns_of(record)))
        for nic, queue, number in leased(record)
    }


def _queue(nic: str, queue: Queue, holders: dict[Seat, JSON]) -> JSON:
    lease = None
    if queue.leased_index is not None:
        seat = (nic, queue.number, queue.leased_index, queue.leased_queue or 0)
        lease = {
            "deviceIndex": queue.leased_index,
            "deviceQueue": queue.leased_queue,
            "netnsID": queue.netns_id,
            "attachment": holders.get(seat),
        }
    return {
        "number": queue.number,
        "state": queue.state,
        "user": queue.user and queue.user.removeprefix("a "),
        "lease": lease,
    }


def _print(made: JSON, shown: dict[str, str]) -> None:
    rows: list[tuple[object, ...]] = []
    for nic in made["nics"]:
        if not nic["up"]:
            rows.append((nic["name"], None, "down", None, None, None))
        for each in nic["queues"]:
            held = _held(each["lease"], shown)
            rows.append((nic["name"], each["number"], each["state"], *held, each["user"]))
    columns = ("NIC", "queue", "state", "held by", "device:queue", "in use by")
    print_table(columns, rows, empty=NO_NIC)


def _held(lease: JSON | None, shown: dict[str, str]) -> tuple[str | None, str | None]:
    """Who has it, and as which queue of which device."""
    if lease is None:
        return None, None
    attachment, number = lease["attachment"], lease["deviceQueue"]
    if attachment is None:
        where = (
            "here" if lease["netnsID"] is None else f"in the namespace with id {lease['netnsID']}"
        )
        return f"no record: a device {where}", f"index {lease['deviceIndex']}:{number}"
    who = pod_of(attachment) or f"container {shown[attachment['containerID']]}"
    return who, f"{attachment['ifname']}:{number}"
