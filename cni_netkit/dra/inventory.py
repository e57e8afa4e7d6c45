"""What there is to be claimed: prepared NICs that lend queues, as devices of a ResourceSlice.

A NIC is one device that many may have a share of; how many queues are whose the scheduler counts
(consumable capacity, KEP 5075). Which queues, that ADD decides.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_netkit import records
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics import readiness, record, state
from cni_netkit.spec.nics import Preparation
from cni_netkit.state import Store

JSON = dict[str, Any]
DRIVER = "cni-netkit"
CAPACITY = "queues"
STANDARD = "resource.kubernetes.io"
"""Whose attributes mean the same of all drivers: numaNode (KEP 6072), pcieRoot (KEP 4381)."""

SYSFS = Path("/sys/class/net")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
ROOT = re.compile(r"pci[0-9a-f]{4}:[0-9a-f]{2}\Z")


@dataclass(frozen=True)
class Device:
    """A NIC in the words of the API; `nic` is what the node calls it."""

    name: str
    nic: str
    queues: int
    attributes: Mapping[str, bool | int | str]

    def as_dict(self) -> JSON:
        """An entry of ResourceSlice.spec.devices."""
        kinds = {bool: "bool", int: "int", str: "string"}
        return {
            "name": self.name,
            "attributes": {
                name: {kinds[type(value)]: value} for name, value in self.attributes.items()
            },
            "allowMultipleAllocations": True,
            "capacity": {
                CAPACITY: {
                    "value": str(self.queues),
                    "requestPolicy": {"default": "1", "validRange": {"min": "1", "step": "1"}},
                }
            },
        }


def device_name(nic: str) -> str:
    """A NIC's name as a DNS label; one that is none gets a hash, so that no two are the same."""
    if LABEL.match(nic):
        return nic
    kept = re.sub(r"[^a-z0-9]+", "-", nic.lower()).strip("-")
    return "-".join(filter(None, (kept, hashlib.sha256(nic.encode()).hexdigest()[:8])))


def devices(host: Namespace) -> list[Device]:
    """Those that a pod could get queues of now, in the order of their names."""
    found = (_device(host, path.stem) for path in sorted(record.ROOT.glob("*.json")))
    return [each for each in found if each]


def _device(host: Namespace, nic: str) -> Device | None:
    """None where it is gone, down, without link, or not what it was prepared to be."""
    try:
        link = host.links.get(name=nic)
        if link is None or not link.up or _read(nic, "carrier") != "1":
            return None
        known = readiness.prepared(link)
        if known is None or readiness.lacking(state.read_state(host, link), known):
            return None
    except KernelError:  # it goes just now
        return None
    preparation = known.preparation
    free = len(preparation.queues) - len(_held_otherwise(nic, preparation))
    if free < 1:
        return None
    attributes = {"mtu": link.mtu, **dict(_attributes(nic, preparation))}
    return Device(device_name(nic), nic, free, dict(sorted(attributes.items())))


def _held_otherwise(nic: str, preparation: Preparation) -> set[int]:
    """Queues of the pool that somebody has who did not claim them: these are no part of it."""
    store = Store()
    known = list(store.all())
    bases = {each.attachment for each in known if each.config.get("claims")}
    claimed = {str(each.attachment) for each in known if each.base in bases}
    held = records.holders(store, nic)
    return {
        queue
        for queue, attachment in held.items()
        if queue in preparation.queues and attachment not in claimed
    }


def _attributes(nic: str, preparation: Preparation) -> Iterator[tuple[str, bool | int | str]]:
    yield "interface", nic
    yield "role", preparation.role
    yield "zeroCopy", not preparation.copies
    device = SYSFS / nic / "device"
    if driver := _name_behind(device / "driver"):
        yield "driver", driver
    if (speed := _read(nic, "speed")).isdecimal():
        yield "speedMbps", int(speed)
    if (node := _read(nic, "device/numa_node")).isdecimal():
        yield f"{STANDARD}/numaNode", int(node)
    for part in Path(device).resolve().parts:
        if ROOT.match(part):
            yield f"{STANDARD}/pcieRoot", part
            break


def _name_behind(link: Path) -> str:
    return link.resolve().name if link.is_symlink() else ""


def _read(nic: str, name: str) -> str:
    """A file of sysfs; "" where there is none, or the NIC cannot say."""
    try:
        return (SYSFS / nic / name).read_text().strip()
    except OSError:
        return ""
