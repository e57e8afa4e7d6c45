"""What records say together, and whether what they speak of is still there."""

from collections.abc import Iterable

from cni_netkit.attachment import Attachment, bears
from cni_netkit.kernel.errors import NoNamespace
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.record import Record
from cni_netkit.state import Store


def holders(records: Iterable[Record], nic: str) -> dict[int, str]:
    """Which attachment holds which queue of a NIC, as far as these records tell."""
    found: dict[int, str] = {}
    for record in records:
        leases = next((step for step in record.steps if step.get("step") == "leases"), None)
        if leases and leases.get("nic") == nic:
            for queue, _ in record.outcome.get("leases", ()):
                found[queue] = str(record.attachment)
    return found


def addressed(store: Store, address: str, but: Attachment) -> Attachment | None:
    """Which attachment, but one, has an address, as far as records tell."""
    for record in store.all():
        given = (each["address"] for each in record.outcome.get("addresses", ()))
        if record.attachment != but and any(each.partition("/")[0] == address for each in given):
            return record.attachment
    return None


def netns_of(record: Record) -> str:
    """The path of a record's namespace, if it still leads to the same one."""
    try:
        namespace = Namespace.at(record.netns)
    except NoNamespace:
        return ""
    same = list(namespace.netns.identity) == record.netns_identity
    namespace.close()
    return record.netns if same else ""


def device_of(record: Record) -> Link | None:
    """The single device of a record, wherever the path of its namespace leads by now."""
    nsid = record.outcome.get("container_nsid")
    if nsid is None:
        return None
    host = Namespace.current()
    try:
        index = record.outcome.get("container_index", 0)
        found = host.links.get(record.attachment.ifname, index, nsid)
    finally:
        host.close()
    return found if found and bears(found.alias, record.attachment.alias) else None
