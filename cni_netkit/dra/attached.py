"""Which attachment has the queues of which claim, by the names of its pod's devices."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from cni_netkit.claims import ORDER, Claim, Share, devices
from cni_netkit.record import Record

POD = attrgetter("pod")


class Attached(NamedTuple):
    """A share of a claim, the record of the device for it, and which of that one's leases are its.

    `record` is None before the pod's ADD has made the device.
    """

    claim: Claim
    share: Share
    record: Record | None
    part: slice


def attached(rows: Iterable[Claim], records: Iterable[Record]) -> Iterator[Attached]:
    """Each share of all claims that are on record, in the order of the pods' devices."""
    known = list(records)
    for pod, claims in groupby(sorted(rows, key=POD), POD):
        ours = [each for each in known if f"K8S_POD_UID={pod}" in each.arguments.split(";")]
        bases = [each.attachment.ifname for each in ours if each.config.get("claims")]
        made = {each.attachment.ifname: each for each in ours if each.added_to and each.complete}
        for device in devices(bases[0] if bases else "", sorted(claims, key=ORDER)):
            record = made.get(device.name)
            for claim, share, part in device.parts():
                yield Attached(claim, share, record, part)
