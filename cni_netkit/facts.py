"""What there is on this node, as far as a configuration depends on it. Read only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Feature, Link, Queue
from cni_netkit.spec.config import NetConf
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import Lease
from cni_netkit.steps.flows import NTUPLE

if TYPE_CHECKING:
    from cni_netkit.claims import Claim
    from cni_netkit.kernel.namespace import Namespace
    from cni_netkit.spec.nics import Preparation

DEFAULT_MTU = 1500
SYSFS = Path("/sys/class/net")


@dataclass(frozen=True)
class Nic:
    """The NIC that queues are leased from; `queues` are those of a NIC that is up.

    `refusal`: why it lends none at all, if that was asked. `preparation`: what it was prepared for,
    and `lacking`: what it has not, or no longer, of that; `ntuple`: whether it takes rules for
    flows; if that was asked.
    """

    link: Link
    queues: tuple[Queue, ...]
    refusal: KernelError | None = None
    preparation: Preparation | None = None
    lacking: tuple[str, ...] = ()
    ntuple: Feature | None = None


@dataclass(frozen=True)
class Facts:
    """`features`: those of `needed()` that the kernel has; `mtu` in bytes; `claims`: the pod's."""

    features: frozenset[str]
    mtu: int
    nic: Nic | None = None
    claims: tuple[Claim, ...] = ()


def needed(conf: NetConf) -> frozenset[str]:
    """The kernel features that a configuration needs, by the names of `Namespace.features`."""
    wanted = {"netkit"}
    if conf.pairing == "single":
        wanted.add("single")
    if (conf.scrub, conf.peer_scrub) != ("default", "default"):
        wanted.add("scrub")
    if conf.lease is not None or conf.claims:
        wanted.add("queue-create")
    if conf.lease is not None and conf.lease.workload == "af_xdp":
        wanted.add("xsk-diag")
    return frozenset(wanted)


def gather_facts(host: Namespace, conf: NetConf, pod: str = "") -> Facts:
    """Find out what an ADD depends on; by name only, without listing what there is.

    `pod` is the pod's UID, of which claims are asked.
    """
    nic = _nic(host, conf)
    return Facts(
        features=host.features(needed(conf)),
        mtu=conf.mtu or _automatic_mtu(host, nic),
        nic=nic,
        claims=_claims(pod) if conf.claims else (),
    )


def _claims(pod: str) -> tuple[Claim, ...]:
    # Only a network with claims needs it: a call without an agent pays for every import.
    from cni_netkit.claims import Claims

    return tuple(Claims().of_pod(pod))


def gather_status_facts(host: Namespace, conf: NetConf) -> Facts:
    """Find out whether the node has what any ADD needs."""
    features = host.features(needed(conf))
    nic = _nic(host, conf)
    if nic is not None and nic.link.kind is None and features == needed(conf):
        nic = replace(nic, refusal=host.queues.refusal_to_lend(nic.link))
    return Facts(features=features, mtu=conf.mtu, nic=nic)


def _nic(host: Namespace, conf: NetConf) -> Nic | None:
    if conf.lease is None:
        return None
    name = conf.lease.device
    if conf.nic_id:
        name = _resolved(conf.nic_id, host.links.of_device(conf.nic_id), name)
    link = host.links.get(name=name) if name else None
    if link is None:
        return None
    nic = _with_preparation(host, nic_with_queues(host, link), conf.lease)
    if conf.lease.wanted_flows:
        nic = replace(nic, ntuple=host.ethtool.feature(link, NTUPLE))
    return nic


def _with_preparation(host: Namespace, nic: Nic, lease: Lease) -> Nic:
    """Add what matters of it: the pool where none is configured, all where there is a workload."""
    if lease.workload is None and lease.queues is not None:
        return nic
    # Only a lease needs it: a call without an agent pays for every import.
    from cni_netkit.nics import readiness, state

    record = readiness.prepared(nic.link)
    if record is None:
        return nic
    of_use = lease.workload == record.preparation.role
    lacking = readiness.lacking(state.read_state(host, nic.link), record) if of_use else ()
    return replace(nic, preparation=record.preparation, lacking=lacking)


def nic_with_queues(host: Namespace, link: Link) -> Nic:
    """A device as a NIC: its queues can be seen where it is up."""
    return Nic(link, tuple(host.queues.all(link.index)) if link.up else ())


def nics(host: Namespace) -> list[Nic]:
    """The NICs of a namespace, with the queues of those that are up.

    Those with a device of a bus behind them: the kernel calls others virtual, and leases from none.
    """
    found = [link for link in host.links.all() if (SYSFS / link.name / "device").exists()]
    return [nic_with_queues(host, link) for link in found]


def _resolved(nic_id: str, devices: Sequence[str], device: str | None) -> str:
    """The device that an id stands for; `device` is the configuration's, which must be of it."""
    if not devices:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"deviceID: {nic_id} has no network device on the host",
            "it must be a device under /sys/bus/*/devices that the kernel's own driver has "
            "(not vfio-pci), or the name of a network device",
        )
    if device is not None:
        if device in devices:
            return device
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"lease.device is {device}, but deviceID {nic_id} is {', '.join(devices)}",
            "leave lease.device out where the runtime names the NIC",
        )
    if len(devices) > 1:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"deviceID: {nic_id} has more than one network device: {', '.join(devices)}",
            "name one of them in lease.device",
        )
    return devices[0]


def _automatic_mtu(host: Namespace, nic: Nic | None) -> int:
    if nic is not None:
        return nic.link.mtu
    link = host.links.default()
    return link.mtu if link else DEFAULT_MTU
