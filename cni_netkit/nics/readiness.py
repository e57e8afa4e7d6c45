"""Whether a NIC is what it was prepared to be; for ADD and STATUS, which change nothing there."""

from cni_netkit.kernel.model import Link
from cni_netkit.nics.record import NicRecord, NicStore
from cni_netkit.nics.settings import differences, words
from cni_netkit.nics.state import NicState


def prepared(link: Link) -> NicRecord | None:
    """How a NIC was prepared, to the end; None also for another that had the same name."""
    record = NicStore().load(link.name)
    return record if record and record.complete and record.is_of(link) else None


def lacking(state: NicState, record: NicRecord) -> tuple[str, ...]:
    """What the role needs and the NIC has not, in words; how large things are does not matter."""
    faults = [
        f"{setting.name} is {words(setting, found)}, needed: {words(setting, wanted)}"
        for setting, found, wanted in differences(record.preparation, state, record.made)
        if setting.of_role
    ]
    pool = [queue for queue in record.preparation.queues if queue >= state.queues]
    if pool:
        faults.append(f"there are {state.queues} receive queues, and the pool goes to {pool[-1]}")
    return tuple(faults)
