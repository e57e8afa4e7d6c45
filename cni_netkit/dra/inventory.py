"""What there is to be claimed: prepared NICs that lend queues, as devices of a ResourceSlice.

A NIC is one device that many may have a share of; how many queues are whose the scheduler counts
(consumable capacity, KEP 5075). Which queues, that ADD decides.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_netkit import records
from cni_netkit.claims import Claims
from cni_netkit.dra.attached import attached
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics import readiness, record, state
from cni_netkit.record import Record
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.nics import Preparation
from cni_netkit.state import Store

JSON = dict[str, Any]
DRIVER = "queues.cni-netkit"
"""Not the project's name: in what RBAC says of it kustomize would take that for the ConfigMap's."""

CAPACITY = "queues"
STANDARD = "resource.kubernetes.io"
"""Attributes that mean the same of all drivers: numaNode (KEP 6072); pcieRoot, pciBusID (4381)."""

SYSFS = Path("/sys/class/net")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
ROOT = re.compile(r"pci[0-9a-f]{4}:[0-9a-f]{2}\Z")
FUNCTION = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
"""Domain, bus, device and function, as sysfs names a PCI device."""


@dataclass(frozen=True)
class Device:
    """A prepared NIC in the words of the API; `nic` is what the node calls it.

    `queues`: how many may be claimed. `problem`: why nobody should now, in words; empty where all
    is well. `leased`: of queues, the index of the device that each is leased to, and the id of its
    namespace.
    """

    name: str
    nic: str
    problem: str = ""
    queues: int = 0
    attributes: Mapping[str, bool | int | str] = field(default_factory=dict)
    leased: Mapping[int, tuple[int, int | None]] = field(default_factory=dict)

    @property
    def offered(self) -> bool:
        """Whether it is there to be claimed."""
        return not self.problem and self.queues > 0

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
    """Every NIC that was prepared, in the order of names, whatever has become of it."""
    names = [path.stem for path in sorted(record.ROOT.glob("*.json"))]
    known = list(Store().all()) if names else []
    claimed = {each.record.attachment for each in attached(Claims().all(), known) if each.record}
    others = [each for each in known if each.attachment not in claimed]
    return [_device(host, name, others) for name in names]


def _device(host: Namespace, nic: str, others: Iterable[Record]) -> Device:
    """`others`: attachments that nobody has claimed. Their queues are no part of the pool."""
    name = device_name(nic)
    try:
        link = host.links.get(name=nic)
        if link is None:
            return Device(name, nic, f"NIC {nic} is gone")
        known = readiness.prepared(link)
        if known is None:
            return Device(name, nic, f"NIC {nic} is another than the one that was prepared")
        if not link.up or _read(nic, "carrier") != "1":
            return Device(name, nic, f"NIC {nic} {'has no link' if link.up else 'is down'}")
        lacking = readiness.lacking(state.read_state(host, link), known)
        queues = host.queues.all(link.index)
    except (KernelError, CNIError) as error:  # it goes just now; or a newer release has prepared it
        return Device(name, nic, f"NIC {nic}: {as_cni_error(error).message}")
    preparation = known.preparation
    held = records.holders(others, nic).keys() & set(preparation.queues)
    return Device(
        name,
        nic,
        f"NIC {nic} is not as it was prepared: {'; '.join(lacking)}" if lacking else "",
        len(preparation.queues) - len(held),
        dict(sorted({"mtu": link.mtu, **dict(_attributes(nic, preparation))}.items())),
        {
            each.number: (each.leased_index, each.netns_id)
            for each in queues
            if each.leased_index is not None
        },
    )


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
    parts = device.resolve().parts
    if root := next(filter(ROOT.match, parts), None):
        yield f"{STANDARD}/pcieRoot", root
    if FUNCTION.match(parts[-1]):
        yield f"{STANDARD}/pciBusID", parts[-1]


def _name_behind(link: Path) -> str:
    return link.resolve().name if link.is_symlink() else ""


def _read(nic: str, name: str) -> str:
    """A file of sysfs; "" where there is none, or the NIC cannot say."""
    try:
        return (SYSFS / nic / name).read_text().strip()
    except OSError:
        return ""
