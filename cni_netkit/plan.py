"""Deciding: from a configuration and the facts to steps with every name fixed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cni_netkit.attachment import Attachment
from cni_netkit.facts import Facts, Nic, needed
from cni_netkit.kernel.model import LinkSpec
from cni_netkit.outcome import Outcome
from cni_netkit.record import Record
from cni_netkit.spec.config import NetConf
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import Lease, ranges
from cni_netkit.spec.runtime import Limits
from cni_netkit.steps.address import ContainerAddresses, HostRoutes
from cni_netkit.steps.bandwidth import Bandwidth
from cni_netkit.steps.base import Step, missing_nic
from cni_netkit.steps.device import Device
from cni_netkit.steps.flows import Flows
from cni_netkit.steps.ipam import Reservation
from cni_netkit.steps.lease import Leases, refused
from cni_netkit.steps.masquerade import Masquerade

if TYPE_CHECKING:
    from cni_netkit.claims import Claim
    from cni_netkit.spec.nics import Role

KINDS: dict[str, type[Any]] = {
    kind.name: kind
    for kind in (
        *(Reservation, Device, ContainerAddresses, HostRoutes, Bandwidth),
        *(Leases, Flows, Masquerade),
    )
}

Plan = tuple[Step, ...]
JSON = dict[str, Any]

LACKING = {
    # feature: what it is, which option asks for it, since when, what to do
    "netkit": (
        "netkit devices (CONFIG_NETKIT)",
        'type "netkit"',
        "6.7",
        'build the kernel with CONFIG_NETKIT=y, or set fallback to "veth"',
    ),
    "scrub": ("netkit scrub settings", "scrub or peerScrub", "6.12", "leave the option out"),
    "single": ("single netkit devices", 'pairing "single"', "7.1", "run a newer kernel"),
    "queue-create": ("leasing of receive queues", "lease", "7.1", "run a newer kernel"),
    "xsk-diag": (
        "listing of AF_XDP sockets (CONFIG_XDP_SOCKETS_DIAG)",
        'lease.workload "af_xdp"',
        "5.1",
        "install or build the module xsk_diag: by it the agent knows whose a socket is",
    ),
}


def decide(
    attachment: Attachment, conf: NetConf, facts: Facts, chained: Sequence[str] = ()
) -> Plan:
    """The steps of an ADD. Raises 100 to 103 where the facts are against it.

    `chained` are the addresses that other plugins of the list gave the container.
    """
    kind = check_prerequisites(conf, facts)
    if conf.lease is not None and facts.nic is None:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            "lease: no NIC is named",
            "name one in lease.device, or let the runtime do it (deviceID, as Multus for a network "
            "with a resource)",
        )
    nic = facts.nic.link.name if facts.nic else ""
    if conf.lease is not None and conf.lease.wanted_flows and not (conf.ipam or chained):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            "lease.flows: rules for flows need addresses, and the container has none",
            "give it some (ipam, or a plugin before this one in the list), "
            'or set lease.flows to "none"',
        )
    return steps(attachment, conf, kind, facts.mtu, nic, _pool(conf, facts), chained)


def check_prerequisites(conf: NetConf, facts: Facts) -> str:
    """Which kind of device it will be. Raises error 100 or 102 if the node lacks something.

    A NIC that the runtime names is not known before an ADD, and then not looked at.
    """
    falls_back = "netkit" not in facts.features and conf.fallback == "veth"
    if not falls_back:
        for feature in sorted(needed(conf) - facts.features, key=list(LACKING).index):
            what, option, since, _ = LACKING[feature]
            raise CNIError(
                Code.KERNEL_LACKS_FEATURE,
                f"this kernel has no {what}, which {option} needs (in Linux since {since})",
                _remedy(feature, conf),
            )
    if conf.lease is not None:
        _check_nic(conf, facts)
    return "veth" if falls_back else "netkit"


def _remedy(feature: str, conf: NetConf) -> str:
    """What to do where the kernel lacks a feature; a veth pair cannot stand for everything."""
    if feature == "netkit" and (conf.pairing == "single" or conf.lease is not None):
        return f"run Linux {LACKING['queue-create'][2]} or later, built with CONFIG_NETKIT=y"
    return LACKING[feature][3]


def steps(
    attachment: Attachment,
    conf: NetConf,
    kind: str,
    mtu: int,
    nic: str = "",
    pool: Sequence[int] = (),
    chained: Sequence[str] = (),
) -> Plan:
    """The steps themselves, in the order of doing. With claims there are none: see `promised`."""
    if conf.claims:
        return ()
    is_pair = conf.pairing == "pair"
    plan: list[Step] = []
    if conf.ipam is not None:
        plan.append(Reservation(conf.ipam["type"]))
    spec = _link_spec(attachment, conf, kind, mtu)
    plan.append(Device(spec, addressed=conf.ipam is not None))
    if conf.ipam is not None:
        # A single device has nobody behind it who could answer as a gateway.
        plan.append(ContainerAddresses(attachment.ifname, is_pair and spec.neighbours))
        if is_pair:
            plan.append(HostRoutes(attachment.host_device))
    if conf.limits is not None:
        plan.append(_bandwidth(attachment, conf.limits, mtu))
    if conf.lease is not None:
        plan.append(Leases(nic, attachment.ifname, conf.lease.count, tuple(pool)))
        if flows := conf.lease.wanted_flows:
            addresses = () if conf.ipam is not None else tuple(chained)
            plan.append(Flows(nic, attachment.ifname, flows, addresses))
    if conf.ip_masq:
        excluded = tuple(map(str, conf.non_masquerade_cidrs))
        plan.append(Masquerade(attachment.host_device, attachment.alias, excluded))
    return tuple(plan)


def promised(attachment: Attachment, conf: NetConf, claims: Sequence[Claim]) -> list[JSON]:
    """A configuration for each single device that a pod's claims want, to be added to `attachment`.

    Raises error 7 where two would have the same name.
    """
    if not claims:
        return []
    from cni_netkit.claims import devices  # only where there are some

    wanted = devices(attachment.ifname, claims)
    names = [attachment.ifname, *(each.name for each in wanted)]
    if twice := [each for each in wanted if names.count(each.name) > 1]:
        whose = dict.fromkeys(str(claim) for each in twice for claim, _ in each.shares)
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"{', '.join(whose)}: {', '.join(dict.fromkeys(each.name for each in twice))} would be "
            "the name of more than one attachment of the pod",
            "have ifName in the claims' parameters say something else for each; without it shares "
            "of one NIC with the same parameters are one device",
        )
    kept = conf.model_dump(
        by_alias=True, mode="json", exclude_defaults=True, include={"mtu", "headroom", "tailroom"}
    )
    return [
        {**kept, "type": "netkit", "pairing": "single", "ifName": each.name, "lease": each.lease}
        for each in wanted
    ]


def without_record(attachment: Attachment, conf: NetConf) -> Plan:
    """What there may be of an attachment whose record was lost; only what undoing needs is right.

    What the runtime asked for at the time nobody knows by now: there may be limits in any case.
    """
    return (
        *steps(attachment, conf, "netkit", mtu=0),
        *([] if conf.limits else [_bandwidth(attachment, Limits(), mtu=0)]),
    )


def to_record(plan: Plan) -> list[dict[str, Any]]:
    """The plan as JSON, for the attachment's record."""
    return [
        {"step": step.name}
        | {
            name: vars(value) if isinstance(value, LinkSpec) else value
            for name, value in vars(step).items()
        }
        for step in plan
    ]


def from_record(record: Record) -> tuple[Plan, Outcome]:
    """The plan that a record holds, and what doing it brought. Raises ValueError for what is none.

    Either all of it is understood or nothing is believed.
    """
    try:
        plan = tuple(KINDS[entry["step"]](**_fields(entry)) for entry in record.steps)
        return plan, Outcome(**record.outcome)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the record of {record.attachment} is damaged: {error!r}") from None


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value)
        if isinstance(value, list)
        else LinkSpec(**value)
        if name == "spec"
        else value
        for name, value in entry.items()
        if name != "step"
    }


def _link_spec(attachment: Attachment, conf: NetConf, kind: str, mtu: int) -> LinkSpec:
    is_pair = conf.pairing == "pair"
    return LinkSpec(
        kind=kind,
        pairing=conf.pairing,
        name=attachment.host_device if is_pair else attachment.ifname,
        alias=attachment.alias,
        mtu=mtu,
        peer_name=attachment.ifname if is_pair else "",
        mode=conf.mode,
        policy=conf.policy,
        peer_policy=conf.peer_policy,
        scrub=conf.scrub,
        peer_scrub=conf.peer_scrub,
        headroom=conf.headroom,
        tailroom=conf.tailroom,
        rx_queues=1 + (conf.lease.count if conf.lease else 0),
        mac=None if is_pair else conf.mac,
        peer_mac=conf.mac if is_pair else None,
    )


def _bandwidth(attachment: Attachment, limits: Limits, mtu: int) -> Bandwidth:
    return Bandwidth(
        device=attachment.host_device,
        ifb=attachment.ifb_device,
        alias=attachment.alias,
        mtu=mtu,
        ingress_rate=limits.ingress_rate,
        ingress_burst=limits.ingress_burst,
        egress_rate=limits.egress_rate,
        egress_burst=limits.egress_burst,
    )


def _check_nic(conf: NetConf, facts: Facts) -> None:
    assert conf.lease is not None
    if facts.nic is None:
        if conf.lease.device is None:
            return
        raise missing_nic(conf.lease.device)
    name = facts.nic.link.name
    if facts.nic.link.kind is not None:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"lease.device: {name} is a virtual device ({facts.nic.link.kind}), "
            "only a physical NIC has queues to lease",
        )
    if not facts.nic.link.up:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"lease.device: {name} is down, its queues cannot be seen",
            f"ip link set {name} up",
        )
    if facts.nic.refusal is not None:
        raise refused(facts.nic.refusal, name)
    existing = {queue.number for queue in facts.nic.queues}
    if lacking := sorted(set(conf.lease.queues or ()) - existing):
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"lease.queues: {name} has {len(existing)} receive queues, numbered from 0; "
            f"there is no queue {', '.join(map(str, lacking))}",
            f"ethtool -l {name} shows how many it has and can have",
        )
    if conf.lease.workload is not None:
        _check_ready(conf.lease, conf.lease.workload, facts.nic)
    if conf.lease.wanted_flows:
        _check_rules(facts.nic)


def _check_ready(lease: Lease, workload: Role, nic: Nic) -> None:
    """Whether the NIC is prepared for what the queues are for. Raises error 102."""
    name, preparation = nic.link.name, nic.preparation
    if preparation is None:
        # A proposal that can be typed as it is: the host keeps the lower half.
        pool = lease.queues or range((len(nic.queues) + 1) // 2, len(nic.queues))
        raise CNIError(
            Code.UNUSABLE_NIC,
            f'lease.workload: {name} is not prepared for "{workload}"',
            f"cni-netkit nic prepare {name} --role {workload} --queues {ranges(pool)}",
        )
    if preparation.role != workload:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f'lease.workload: {name} is prepared for "{preparation.role}", not for "{workload}", '
            "and a NIC has one role",
            f"use another NIC, or cni-netkit nic restore {name} and prepare it anew",
        )
    if nic.lacking:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f'lease.workload: {name} is no longer ready for "{workload}": '
            + "; ".join(nic.lacking),
            preparation.command,
        )
    if outside := sorted(set(lease.queues or ()) - set(preparation.queues)):
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"lease.queues: {ranges(outside)} is not in the pool that {name} was prepared with, "
            f"{ranges(preparation.queues)}: other traffic may come there",
            "leave lease.queues out, or prepare the NIC with a larger pool",
        )


def _check_rules(nic: Nic) -> None:
    """Whether the NIC takes rules for flows. Raises error 102."""
    name = nic.link.name
    if nic.ntuple is None:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"lease.flows: {name}: the driver has no rules for flows (ntuple-filters)",
            'set lease.flows to "none", and bring the flows to the leased queues otherwise',
        )
    if not nic.ntuple.on:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"lease.flows: {name}: rules for flows (ntuple-filters) are off",
            f"ethtool -K {name} ntuple on; preparing the NIC (cni-netkit nic prepare) does it, too",
        )


def _pool(conf: NetConf, facts: Facts) -> list[int]:
    """The queues to choose from, highest first.

    Those of the configuration, else those that the NIC was prepared with, else every one but 0.
    """
    if conf.lease is None or facts.nic is None:
        return []
    prepared = facts.nic.preparation.queues if facts.nic.preparation else ()
    every = (queue.number for queue in facts.nic.queues if queue.number)
    return sorted(conf.lease.queues or prepared or every, reverse=True)
