"""Deciding (cni_netkit.plan)."""

from dataclasses import replace
from typing import Any

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.facts import Facts, Nic, needed
from cni_netkit.kernel.model import Feature, Link, Queue
from cni_netkit.outcome import Outcome
from cni_netkit.plan import (
    LACKING,
    Plan,
    check_prerequisites,
    decide,
    from_record,
    steps,
    to_record,
    without_record,
)
from cni_netkit.record import Record
from cni_netkit.spec.config import NetConf, validate
from cni_netkit.spec.nics import Preparation
from cni_netkit.steps.address import ContainerAddresses
from cni_netkit.steps.bandwidth import Bandwidth
from cni_netkit.steps.device import Device
from cni_netkit.steps.flows import Flows
from cni_netkit.steps.lease import Leases
from cni_netkit.steps.masquerade import Masquerade
from tests.unit.given import conf, record, refused
from tests.unit.test_nics import preparation

ATTACHMENT = Attachment("net", "c1", "eth0")
EVERYTHING = frozenset({"netkit", "single", "scrub", "queue-create"})
NIC = Nic(
    Link(2, "eth0", None, True, 9000, "02:00:00:00:00:02", None, None, 8),
    tuple(Queue(number) for number in range(8)),
    preparation=preparation(queues="1-7"),
    ntuple=Feature(on=True, changeable=True),
)
FACTS = Facts(EVERYTHING, 1400, NIC)

IPAM: dict[str, Any] = {"ipam": {"type": "host-local"}}
LEASE: dict[str, Any] = {"lease": {"device": "eth0"}}
SINGLE: dict[str, Any] = {"pairing": "single"}
VETH: dict[str, Any] = {"fallback": "veth"}
LIMITS: dict[str, Any] = {
    "runtimeConfig": {"bandwidth": {"ingressRate": 8000, "ingressBurst": 4294967295}}
}


def believed(**more: Any) -> NetConf:
    """A believed configuration."""
    return validate(conf(**more))


def plan_of(facts: Facts = FACTS, **more: Any) -> Plan:
    """The plan for a configuration."""
    return decide(ATTACHMENT, believed(**more), facts)


def device_of(plan: Plan) -> Device:
    """The plan's device."""
    return next(step for step in plan if isinstance(step, Device))


def leases_of(plan: Plan) -> Leases:
    """The plan's leases."""
    return next(step for step in plan if isinstance(step, Leases))


CONFIGURATIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["device"]),
    (IPAM, ["reservation", "device", "container-addresses", "host-routes"]),
    ({**IPAM, "mode": "l2"}, ["reservation", "device", "container-addresses", "host-routes"]),
    (
        {**IPAM, "ipMasq": True},
        ["reservation", "device", "container-addresses", "host-routes", "masquerade"],
    ),
    (SINGLE, ["device"]),
    ({**SINGLE, **IPAM}, ["reservation", "device", "container-addresses"]),
    (LEASE, ["device", "leases"]),
    ({**LEASE, **SINGLE}, ["device", "leases"]),
    (
        {**LEASE, **IPAM, "ipMasq": True},
        ["reservation", "device", "container-addresses", "host-routes", "leases", "masquerade"],
    ),
    (
        {**IPAM, "ipMasq": True, "lease": {"device": "eth0", "workload": "io_uring"}},
        [
            *("reservation", "device", "container-addresses", "host-routes"),
            *("leases", "flows", "masquerade"),
        ],
    ),
    (
        {**IPAM, "lease": {"device": "eth0", "workload": "io_uring", "flows": "none"}},
        ["reservation", "device", "container-addresses", "host-routes", "leases"],
    ),
    (LIMITS, ["device", "bandwidth"]),
    ({**LIMITS, **LEASE}, ["device", "bandwidth", "leases"]),
    (
        {**LIMITS, **IPAM, **VETH},
        ["reservation", "device", "container-addresses", "host-routes", "bandwidth"],
    ),
]


@pytest.mark.parametrize(("more", "expected"), CONFIGURATIONS, ids=str)
def test_steps_of_a_configuration(more: dict[str, Any], expected: list[str]) -> None:
    """A configuration has the steps it needs, addresses before the device, leases after it."""
    assert [step.name for step in plan_of(**more)] == expected


@pytest.mark.parametrize("more", [more for more, _ in CONFIGURATIONS], ids=str)
def test_record_round_trip(more: dict[str, Any]) -> None:
    """A plan that went through a record, as JSON, is the same plan."""
    plan = plan_of(**more)
    written = record(steps=to_record(plan), outcome=Outcome(host_index=5).as_dict())
    assert from_record(Record.load(written.dump())) == (plan, Outcome(host_index=5))


@pytest.mark.parametrize("more", [more for more, _ in CONFIGURATIONS], ids=str)
def test_every_step_has_its_own_words(more: dict[str, Any]) -> None:
    """Each step says in words what it makes."""
    words = [step.describe() for step in plan_of(**more)]
    assert all(words)
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("entry", [{}, {"step": "magic"}, {"step": "masquerade", "foo": 1}])
def test_a_step_that_nobody_knows(entry: dict[str, Any]) -> None:
    """Then nothing of the record is believed, and it says whose it is."""
    with pytest.raises(ValueError, match="eth0 of container c1 on network net is damaged"):
        from_record(record(steps=[*to_record(plan_of()), entry]))


def test_an_outcome_that_nobody_knows() -> None:
    """Likewise."""
    with pytest.raises(ValueError, match="damaged"):
        from_record(record(steps=to_record(plan_of()), outcome={"foo": 1}))


def test_pair() -> None:
    """A pair has the hashed name on the host, CNI_IFNAME inside, and the options as configured."""
    device = device_of(
        plan_of(mode="l2", policy="blackhole", peerScrub="none", headroom=64, tailroom=32)
    )
    spec = device.spec
    assert (spec.kind, spec.pairing, spec.mac, spec.peer_mac) == ("netkit", "pair", None, None)
    assert device.host_name == ATTACHMENT.host_device
    assert (device.container_name, spec.alias) == ("eth0", ATTACHMENT.alias)
    assert (spec.mode, spec.policy, spec.peer_policy) == ("l2", "blackhole", "forward")
    assert (spec.scrub, spec.peer_scrub) == ("default", "none")
    assert (spec.headroom, spec.tailroom) == (64, 32)
    assert (spec.mtu, spec.rx_queues) == (1400, 1)


def test_single() -> None:
    """A single device has no host end."""
    device = device_of(plan_of(**SINGLE))
    assert (device.spec.pairing, device.host_name, device.container_name) == ("single", "", "eth0")


def test_mac() -> None:
    """The MAC address that the runtime asks for is the device's."""
    plan = plan_of(mode="l2", runtimeConfig={"mac": "02:00:00:00:00:01"})
    assert device_of(plan).spec.peer_mac == "02:00:00:00:00:01"


@pytest.mark.parametrize("count", [1, 3])
def test_receive_queues(count: int) -> None:
    """The device has a queue of its own and one for each lease."""
    plan = plan_of(lease={"device": "eth0", "count": count})
    assert device_of(plan).spec.rx_queues == 1 + count
    assert leases_of(plan).count == count


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        (None, (7, 6, 5, 4, 3, 2, 1)),
        ("2-4", (4, 3, 2)),
        ([0, 7], (7, 0)),
    ],
)
def test_pool(queues: object, expected: tuple[int, ...]) -> None:
    """Queues are tried from the highest; without a pool all but queue 0."""
    assert leases_of(plan_of(lease={"device": "eth0", "queues": queues})).pool == expected


@pytest.mark.parametrize(
    ("more", "features", "expected"),
    [
        ({}, EVERYTHING, False),
        ({"mode": "l2"}, EVERYTHING, True),
        (SINGLE, EVERYTHING, False),
        ({**SINGLE, "mode": "l2"}, EVERYTHING, False),
        (VETH, frozenset(), True),
    ],
    ids=str,
)
def test_neighbours(more: dict[str, Any], features: frozenset[str], expected: bool) -> None:
    """Only the container end of an l2 or veth pair has neighbours to resolve."""
    plan = plan_of(replace(FACTS, features=features), **IPAM, **more)
    addresses = next(step for step in plan if isinstance(step, ContainerAddresses))
    assert addresses.neighbours is expected


def test_masquerade() -> None:
    """The rules have the attachment's own names, so that they are found without it."""
    rules = plan_of(**IPAM, ipMasq=True)[-1]
    assert rules == Masquerade(ATTACHMENT.host_device, ATTACHMENT.alias, ())


def test_masquerade_with_exceptions() -> None:
    """As they were given."""
    ranges = ("10.244.0.0/16", "fd00:244::/48")
    rules = plan_of(**IPAM, ipMasq=True, nonMasqueradeCIDRs=[*ranges])[-1]
    assert isinstance(rules, Masquerade)
    assert rules.excluded == ranges


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"netkit"}),
        (SINGLE, {"netkit", "single"}),
        ({"scrub": "none"}, {"netkit", "scrub"}),
        ({"peerScrub": "none"}, {"netkit", "scrub"}),
        (LEASE, {"netkit", "queue-create"}),
        ({**LEASE, **SINGLE}, {"netkit", "single", "queue-create"}),
    ],
    ids=str,
)
def test_features(more: dict[str, Any], expected: set[str]) -> None:
    """A configuration needs the features that its options come from, and no others."""
    assert needed(believed(**more)) == expected


@pytest.mark.parametrize(
    ("more", "lacking", "words"),
    [
        ({}, "netkit", ["6.7", "CONFIG_NETKIT", "fallback"]),
        (SINGLE, "single", ["pairing", "7.1"]),
        ({"scrub": "none"}, "scrub", ["scrub", "6.12"]),
        (LEASE, "queue-create", ["lease", "7.1"]),
    ],
    ids=str,
)
def test_kernel_lacks_a_feature(more: dict[str, Any], lacking: str, words: list[str]) -> None:
    """Error 100 names the feature, the option that needs it and since when Linux has it."""
    with refused(100, *words):
        plan_of(replace(FACTS, features=EVERYTHING - {lacking}), **more)


SCRUBS: dict[str, Any] = {"peerScrub": "none"}
AF_XDP: dict[str, Any] = {"lease": {"device": "eth0", "workload": "af_xdp"}}


def followed(remedy: str, given: dict[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The configuration, and what the kernel has, once the advice was taken."""
    if remedy == 'build the kernel with CONFIG_NETKIT=y, or set fallback to "veth"':
        return given | VETH, frozenset()
    if remedy == "leave the option out":
        return {key: given[key] for key in given.keys() - SCRUBS.keys()}, EVERYTHING - {"scrub"}
    assert remedy in (
        "run Linux 7.1 or later, built with CONFIG_NETKIT=y",
        "run a newer kernel",
        "install or build the module xsk_diag: by it the agent knows whose a socket is",
    )
    return given, frozenset(LACKING)


ASKED = [{}, IPAM, SCRUBS, LEASE, SINGLE, SINGLE | LEASE, SINGLE | AF_XDP, SCRUBS | LEASE]


@pytest.mark.parametrize(
    ("more", "lacking"),
    [(more, feature) for more in ASKED for feature in sorted(needed(believed(**more)))],
    ids=str,
)
def test_what_error_100_advises_is_possible(more: dict[str, Any], lacking: str) -> None:
    """What follows is no error 7: a veth pair stands for no single device, and leases no queues."""
    nic = replace(NIC, preparation=preparation(queues="1-7", role="af_xdp"))
    lacks = {"netkit", "scrub", "single", "queue-create"} if lacking == "netkit" else {lacking}
    facts = Facts(frozenset(LACKING) - lacks, 1400, nic)
    with refused(100) as error:
        check_prerequisites(believed(**more), facts)
    given, features = followed(error.details, more)
    assert check_prerequisites(believed(**given), replace(facts, features=features))


def test_feature_that_is_not_needed() -> None:
    """A feature that the configuration does not ask for may be missing."""
    assert plan_of(replace(FACTS, features=frozenset({"netkit"})))


def test_netkit_is_missed_first() -> None:
    """On a kernel without netkit that is the error, whatever else it lacks."""
    with refused(100, "netkit devices"):
        plan_of(replace(FACTS, features=frozenset()), **LEASE, **SINGLE)


@pytest.mark.parametrize("more", [{}, {"scrub": "none"}, {"mode": "l2"}, IPAM], ids=str)
def test_fallback(more: dict[str, Any]) -> None:
    """With fallback a kernel without netkit gets a veth pair, one with it a netkit pair."""
    without = replace(FACTS, features=frozenset[str]())
    assert device_of(plan_of(without, **VETH, **more)).spec.kind == "veth"
    assert device_of(plan_of(**VETH, **more)).spec.kind == "netkit"


def test_fallback_is_for_a_kernel_without_netkit() -> None:
    """Where netkit is there and only an option of it is missing, that is an error all the same."""
    with refused(100, "scrub"):
        plan_of(replace(FACTS, features=frozenset({"netkit"})), **VETH, scrub="none")


@pytest.mark.parametrize(
    ("nic", "words"),
    [
        (None, ["no device eth0"]),
        (replace(NIC, link=replace(NIC.link, kind="veth")), ["eth0", "virtual", "veth"]),
        (replace(NIC, link=replace(NIC.link, up=False), queues=()), ["eth0", "down", "up"]),
    ],
)
def test_unusable_nic(nic: Nic | None, words: list[str]) -> None:
    """A NIC that is missing, virtual or down is error 102 with the reason."""
    with refused(102, *words):
        plan_of(replace(FACTS, nic=nic), **LEASE)


@pytest.mark.parametrize(("queues", "missing"), [("6-9", "8, 9"), ([8], "8"), ("0-8", "8")])
def test_pool_larger_than_the_nic(queues: object, missing: str) -> None:
    """A pool with queues that the NIC does not have is error 102 and names them."""
    with refused(102, f"there is no queue {missing}", "8 receive queues"):
        plan_of(lease={"device": "eth0", "queues": queues})


@pytest.mark.parametrize(
    ("nic", "more", "words"),
    [
        (
            {"preparation": None},
            {},
            (
                'eth0 is not prepared for "io_uring"',
                "cni-netkit nic prepare eth0 --role io_uring --queues 4-7",
            ),
        ),
        (
            {"preparation": None},
            {"queues": "2-3"},
            ("not prepared", "cni-netkit nic prepare eth0 --role io_uring --queues 2-3"),
        ),
        (
            {"preparation": preparation(role="af_xdp")},
            {},
            ('eth0 is prepared for "af_xdp", not for "io_uring"', "cni-netkit nic restore eth0"),
        ),
        (
            {"preparation": preparation(queues="4-5"), "lacking": ("one is off", "two is on")},
            {},
            (
                'no longer ready for "io_uring": one is off; two is on',
                "cni-netkit nic prepare eth0 --role io_uring --queues 4-5",
            ),
        ),
        (
            {"preparation": preparation(queues="4-5")},
            {"queues": "5-7"},
            ("6-7 is not in the pool that eth0 was prepared with, 4-5",),
        ),
    ],
    ids=["not prepared", "with a pool", "another role", "no longer", "outside the pool"],
)
def test_a_nic_that_is_not_ready(
    nic: dict[str, Any], more: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Error 102 with the command that mends it, as ADD and STATUS find it."""
    facts = replace(FACTS, nic=replace(NIC, **nic))
    lease = {"device": "eth0", "workload": "io_uring", "flows": "none", **more}
    with refused(102, *words):
        plan_of(facts, lease=lease)
    with refused(102, *words):
        check_prerequisites(believed(lease=lease), facts)


@pytest.mark.parametrize(
    ("ntuple", "words"),
    [
        (None, ("has no rules for flows", 'set lease.flows to "none"')),
        (Feature(on=False, changeable=True), ("are off", "ethtool -K eth0 ntuple on")),
    ],
)
def test_a_nic_that_takes_no_rules(ntuple: Feature | None, words: tuple[str, ...]) -> None:
    """Error 102, unless none are wanted."""
    facts = replace(FACTS, nic=replace(NIC, ntuple=ntuple))
    with refused(102, *words):
        check_prerequisites(believed(**IPAM, lease={"device": "eth0", "flows": "address"}), facts)
    assert plan_of(facts, **IPAM, **LEASE)


@pytest.mark.parametrize(
    ("prepared", "queues", "pool"),
    [
        (preparation(queues="4-5"), None, (5, 4)),
        (preparation(queues="4-5"), "2,7", (7, 2)),
        (None, None, (7, 6, 5, 4, 3, 2, 1)),
    ],
)
def test_the_pool(prepared: Preparation | None, queues: object, pool: tuple[int, ...]) -> None:
    """The configuration's, else the prepared one, else every queue but 0; highest first."""
    facts = replace(FACTS, nic=replace(NIC, preparation=prepared))
    assert leases_of(plan_of(facts, lease={"device": "eth0", "queues": queues})).pool == pool


CHAINED = ("10.1.0.2", "fd00:1::2")
IO_URING: dict[str, Any] = {"lease": {"device": "eth0", "workload": "io_uring"}}


def test_flows_of_a_device_that_is_chained() -> None:
    """Without IPAM the rules are for the addresses that the chain gave; with it, for its own."""
    chained = decide(ATTACHMENT, believed(**SINGLE, **IO_URING), FACTS, CHAINED)
    assert chained[-1] == Flows("eth0", "eth0", ("tcp",), CHAINED)
    own = decide(ATTACHMENT, believed(**IPAM, **IO_URING), FACTS, CHAINED)
    assert own[-1] == Flows("eth0", "eth0", ("tcp",))


def test_flows_without_any_address() -> None:
    """Error 7 in ADD says what to do; STATUS, which knows no chain, does not mind."""
    with refused(7, "the container has none", 'set lease.flows to "none"'):
        plan_of(**SINGLE, **IO_URING)
    assert check_prerequisites(believed(**SINGLE, **IO_URING), FACTS) == "netkit"


def test_nobody_names_the_nic() -> None:
    """ADD is told both ways to name it; before, when only the runtime will know, it is no fault."""
    nobody = replace(FACTS, nic=None)
    with refused(7, "no NIC is named", "lease.device", "deviceID"):
        plan_of(nobody, lease={"count": 1})
    assert check_prerequisites(believed(lease={"count": 1}), nobody) == "netkit"


def test_the_runtime_named_the_nic() -> None:
    """Leases come from the NIC that was found."""
    found = replace(FACTS, nic=replace(NIC, link=replace(NIC.link, name="ens3")))
    assert leases_of(plan_of(found, lease={"count": 1}, deviceID="0000:03:00.0")).nic == "ens3"


def test_nic_of_no_interest() -> None:
    """Without a lease the NIC is not looked at."""
    assert check_prerequisites(believed(), replace(FACTS, nic=None)) == "netkit"


def test_steps_without_facts() -> None:
    """DEL without a record has the steps of the configuration, by names alone."""
    names = [step.name for step in steps(ATTACHMENT, believed(**LEASE, **IPAM), "netkit", mtu=0)]
    assert names == ["reservation", "device", "container-addresses", "host-routes", "leases"]


def test_bandwidth_is_shaped_between_host_end_and_ifb() -> None:
    """Names that follow from the attachment, the device's MTU, and what was asked for."""
    *_, shaped = plan_of(**LIMITS)
    assert shaped == Bandwidth(
        device=ATTACHMENT.host_device,
        ifb=ATTACHMENT.ifb_device,
        alias=ATTACHMENT.alias,
        mtu=1400,
        ingress_rate=8000,
        ingress_burst=4294967295,
        egress_rate=0,
        egress_burst=0,
    )


@pytest.mark.parametrize("more", [{}, LIMITS, SINGLE, {**IPAM, "ipMasq": True}], ids=str)
def test_without_record_there_may_be_limits(more: dict[str, Any]) -> None:
    """DEL and GC do not know what the runtime asked for then: the ifb device is looked for once."""
    plan = without_record(ATTACHMENT, believed(**more))
    (shaped,) = [step for step in plan if isinstance(step, Bandwidth)]
    assert (shaped.ifb, shaped.alias) == (ATTACHMENT.ifb_device, ATTACHMENT.alias)
    assert [step.name for step in plan].index("device") < plan.index(shaped)
