"""What `cni-netkit lease` says of the queues that it leased, or released."""

import sys

from cni_netkit.admin.list import described, records, shown_ids
from cni_netkit.admin.output import print_table, print_text
from cni_netkit.record import Record


def print_leases(record: Record) -> None:
    """Print the device of an attachment, with each of its queues."""
    made, names = described(record), record.attachment
    device = (made["ifname"], made["deviceIndex"])
    container = shown_ids([record, *records()])[names.container_id]
    print_table(
        ("device", "index", "queue", "NIC", "queue of the NIC"),
        [(*device, each["deviceQueue"], each["nic"], each["queue"]) for each in made["leases"]],
        title=f"{names.ifname} of container {container} on network {names.network}",
        empty="it had no queue yet",
    )


def print_ways_of_traffic(record: Record) -> None:
    """Say on standard error how traffic comes to the queues, where nothing brings any."""
    if any(step["step"] == "flows" for step in record.steps):
        return
    first, *_ = described(record)["leases"]
    of_container = [each for each in records() if each.attachment == record.base]
    addresses = [address for each in of_container for address in described(each)["addresses"]]
    address = addresses[0].partition("/")[0] if addresses else "ADDRESS"
    kind = "tcp6" if ":" in address else "tcp4"
    rule = f"ethtool -N {first['nic']} flow-type {kind} dst-ip {address} action {first['queue']}"
    for text, indent in (
        (
            "no traffic is led to these queues yet. With --flows address the NIC gets rules for "
            "what is sent to the container's addresses; or lead it there by a rule such as",
            "",
        ),
        (rule, "    "),
        (f"or by the NIC's RSS table (ethtool -X {first['nic']})", ""),
    ):
        print_text(text, indent, sys.stderr)
