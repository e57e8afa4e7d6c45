"""What a pod chooses by annotation (cni_netkit.spec.annotations), as `believe` believes it."""

from typing import Any

import pytest

from cni_netkit.spec.annotations import CAPABILITY, CHOICES
from cni_netkit.spec.config import NetConf, validate
from tests.unit.given import conf, refused

CONFIGURED = {"device": "eth0", "queues": "4-7"}


def pod(allowed: list[str], annotations: object, **more: Any) -> dict[str, Any]:
    """A network configuration, with what the runtime says of a pod's annotations."""
    return conf(
        allowAnnotations=allowed,
        capabilities={CAPABILITY: True},
        runtimeConfig={CAPABILITY: annotations},
        **more,
    )


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("mode", "l2", "l2"),
        ("policy", "blackhole", "blackhole"),
        ("peerPolicy", "blackhole", "blackhole"),
        ("scrub", "none", "none"),
        ("peerScrub", "none", "none"),
        ("headroom", "64", 64),
        ("tailroom", "65535", 65535),
        ("mtu", "1400", 1400),
    ],
)
def test_a_key_that_is_allowed(key: str, text: str, value: object) -> None:
    """The configuration is the one that has the value in it, and so it is without the key before."""
    listed = {"allowAnnotations": [key], "capabilities": {CAPABILITY: True}}
    expected = validate(conf(**{key: value}, **listed))
    believed = validate(pod([key], {f"cni-netkit/{key}": text}))
    assert without_choices(believed) == without_choices(expected)
    assert without_choices(believed) != without_choices(validate(conf()))


def without_choices(believed: NetConf) -> dict[str, Any]:
    """What there will be of it."""
    return believed.model_dump(exclude={"allow_annotations", "runtime_config"})


def test_it_goes_before_the_configuration() -> None:
    """Otherwise a configuration would have to leave out what pods may choose."""
    assert validate(pod(["mtu"], {"cni-netkit/mtu": "1400"}, mtu=9000)).mtu == 1400
    assert validate(pod(["mtu"], {}, mtu=9000)).mtu == 9000


@pytest.mark.parametrize(
    ("allowed", "text", "expected"),
    [
        (["lease"], '{"count": 2}', ("eth0", 2, (4, 5, 6, 7), None)),
        (["lease.count"], '{"count": 2}', ("eth0", 2, (4, 5, 6, 7), None)),
        (["lease"], '{"workload": "io_uring"}', ("eth0", 1, (4, 5, 6, 7), "io_uring")),
        (["lease.workload"], '{"workload": "io_uring"}', ("eth0", 1, (4, 5, 6, 7), "io_uring")),
        (["lease.device"], '{"device": "eth1"}', ("eth1", 1, (4, 5, 6, 7), None)),
        (["lease.queues"], '{"queues": [9, 8]}', ("eth0", 1, (8, 9), None)),
        (["lease", "lease.queues"], '{"queues": "8-9", "count": 2}', ("eth0", 2, (8, 9), None)),
    ],
)
def test_a_lease_is_merged_key_by_key(
    allowed: list[str], text: str, expected: tuple[object, ...]
) -> None:
    """What the pod does not name remains as configured."""
    lease = validate(pod(allowed, {"cni-netkit/lease": text}, lease=CONFIGURED)).lease
    assert lease is not None
    assert (lease.device, lease.count, lease.queues, lease.workload) == expected


def test_a_pod_may_say_which_flows() -> None:
    """It brings what is sent to the pod's own addresses, nobody else's."""
    text = '{"flows": [{"proto": "tcp", "dstPort": 80}]}'
    for allowed in (["lease"], ["lease.flows"]):
        lease = validate(pod(allowed, {"cni-netkit/lease": text}, lease=CONFIGURED)).lease
        assert lease is not None
        assert lease.wanted_flows == ("tcp 80",)


@pytest.mark.parametrize("annotations", [None, {}, {"other/mode": "l2", "cni-netkit": "l2"}])
def test_annotations_of_others_are_ignored(annotations: object) -> None:
    """Only what begins with our prefix is ours, also where nothing is allowed."""
    assert validate(pod(["mode"], annotations)).mode == "l3"
    assert validate(conf(runtimeConfig={CAPABILITY: annotations})).mode == "l3"


LEASES = ["lease"]
NOT_ALLOWED: list[tuple[list[str], str, str, str]] = [
    ([], "mode", "l2", "mode is not in allowAnnotations"),
    (["mtu"], "mode", "l2", "mode is not in allowAnnotations"),
    (["mode"], "Mode", "l2", "Mode is no key that a pod may choose"),
    (["mode"], "speed", "9", "speed is no key that a pod may choose"),
    (["mode"], "", "9", " is no key that a pod may choose"),
    *[
        ([], key, "x", f"{key} is no key that a pod may choose")
        for key in ("ipam", "log", "name", "ifName", "ipMasq", "pairing", "bpf", "allowAnnotations")
    ],
    ([], "lease", '{"count": 2}', "lease.count is not in allowAnnotations"),
    (["lease.workload"], "lease", '{"count": 2}', "lease.count is not in allowAnnotations"),
    (LEASES, "lease", '{"device": "eth1"}', "lease.device is not in allowAnnotations"),
    (LEASES, "lease", '{"device": null}', "lease.device is not in allowAnnotations"),
    (LEASES, "lease", '{"queues": "1"}', "lease.queues is not in allowAnnotations"),
    (["lease.device"], "lease", '{"queues": "1"}', "lease.queues is not in allowAnnotations"),
    (LEASES, "lease", '{"flow": "none"}', "flow is no key that a pod may choose"),
    (LEASES, "lease", '{"Device": "eth1"}', "Device is no key that a pod may choose"),
    (["lease.count"], "lease.count", "2", 'is written as cni-netkit/lease: {"count": ...}'),
]
UNREADABLE: list[tuple[list[str], str, object, str]] = [
    (["mtu"], "mtu", "big", "is not JSON: "),
    (["mtu"], "mtu", "", "is not JSON: "),
    (["mtu"], "mtu", '"1400"', "must be a whole number"),
    (["mtu"], "mtu", "1400.0", "must be a whole number"),
    (["mtu"], "mtu", "true", "must be a whole number"),
    (["mtu"], "mtu", "null", "must be a whole number"),
    (["mtu"], "mtu", 1400, "must be a string (found the number 1400)"),
    (["mode"], "mode", None, "must be a string (found null)"),
    (LEASES, "lease", "2", 'must be an object such as {"count": 2}'),
    (LEASES, "lease", "{}", "is empty"),
    (LEASES, "lease", '{"count": null}', "count is null"),
    (LEASES, "lease", "[" * 100_000, "is not JSON: no program could read it: "),
]


@pytest.mark.parametrize(("allowed", "key", "value", "words"), [*NOT_ALLOWED, *UNREADABLE])
def test_what_is_refused(allowed: list[str], key: str, value: object, words: str) -> None:
    """Error 7 names the annotation, its value, the reason, and what the administrator can do."""
    choices = ", ".join(allowed) or "nothing so far"
    remedy = f"administrator lists in allowAnnotations of the network configuration: {choices}"
    text = f"annotation cni-netkit/{key}: {words}"
    found = f"(found {value[:60]!r}"[:-1] if isinstance(value, str) else "(found"
    with refused(7, text, found, remedy):
        validate(pod(allowed, {f"cni-netkit/{key}": value}, lease=CONFIGURED))


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("mode", "l4", 'annotation cni-netkit/mode: must be "l3" or "l2" (found "l4")'),
        ("mode", '"l2"', "annotation cni-netkit/mode: must be"),
        ("mtu", "67", "annotation cni-netkit/mtu: must be 0 (automatic) or from 68 to 65535"),
        (
            "headroom",
            "-1",
            "annotation cni-netkit/headroom: must be a whole number from 0 to 65535",
        ),
        (
            "lease",
            '{"count": 0}',
            "annotation cni-netkit/lease: count: must be a whole number from 1 to 1023 (found 0)",
        ),
        (
            "lease",
            '{"count": "2"}',
            "annotation cni-netkit/lease: count: must be a whole number from 1 to 1023 "
            '(found the string "2")',
        ),
        ("lease", '{"count": 5}', "annotation cni-netkit/lease: count is 5, but queues names"),
        (
            "lease",
            '{"workload": "x"}',
            'annotation cni-netkit/lease: workload: must be "io_uring" or "af_xdp"',
        ),
        ("lease", '{"queues": "x"}', 'annotation cni-netkit/lease: queues: "x" is neither'),
        ("lease", '{"device": "a/b"}', "annotation cni-netkit/lease: device: has a '/'"),
        (
            "lease",
            '{"workload": "af_xdp"}',
            "the network configuration with the pod's annotations (cni-netkit/lease) is not valid: "
            'lease.workload "af_xdp" needs pairing "single"',
        ),
    ],
)
def test_values_are_validated_as_configured_ones(key: str, text: str, words: str) -> None:
    """With the same words, in which the annotation stands in the place of the key."""
    with refused(7, words):
        validate(pod(list(CHOICES), {f"cni-netkit/{key}": text}, lease=CONFIGURED))


def test_what_is_not_the_pods_is_not_said_to_be() -> None:
    """A fault of the configured part of a lease names no annotation."""
    annotations = {"cni-netkit/lease": '{"count": 2}'}
    with refused(7, "lease.device: has a '/'") as error:
        validate(pod(["lease"], annotations, lease={"device": "a/b"}))
    assert "annotation cni-netkit" not in error.message


def test_a_choice_can_make_the_rest_possible() -> None:
    """The combination is what is judged: a MAC address needs the mode that the pod chose."""
    request = pod(["mode"], {"cni-netkit/mode": "l2"})
    request["runtimeConfig"]["mac"] = "02:00:00:00:00:01"
    assert validate(request).mac == "02:00:00:00:00:01"
    request["runtimeConfig"][CAPABILITY] = {}
    with refused(7, 'a MAC address needs mode "l2"'):
        validate(request)


def test_all_faults_are_told_at_once() -> None:
    """Each with its annotation."""
    with refused(7, "annotation cni-netkit/mode: ", "annotation cni-netkit/mtu: "):
        validate(pod(["mtu"], {"cni-netkit/mode": "l2", "cni-netkit/mtu": "x"}))


@pytest.mark.parametrize(
    ("annotations", "found"),
    [
        ("mode=l2", 'the string "mode=l2"'),
        (["mode"], 'the list ["mode"]'),
        (5, "the number 5"),
        (True, "true"),
    ],
)
def test_annotations_that_are_none(annotations: object, found: str) -> None:
    """The runtime sends a map."""
    with refused(7, f"runtimeConfig.{CAPABILITY} is no object of annotations (found {found})"):
        validate(pod(["mode"], annotations))


@pytest.mark.parametrize(
    "key",
    [
        *("ipam", "log", "name", "type", "ifName", "pairing", "ipMasq", "nonMasqueradeCIDRs"),
        *("fallback", "lease.flow"),
    ],
)
def test_keys_that_are_never_a_pods_choice(key: str) -> None:
    """The configuration itself is refused, which STATUS tells before there is a pod."""
    words = "allowAnnotations.0: is no key that a pod may choose; those are mode, policy"
    with refused(7, words, f'(found "{key}")'):
        validate(conf(allowAnnotations=[key], capabilities={CAPABILITY: True}))


@pytest.mark.parametrize("listed", ["mode", {"mode": True}, [5], True])
def test_a_list_that_is_none(listed: object) -> None:
    """Of keys, each a string."""
    with refused(7, "allowAnnotations"):
        validate(conf(allowAnnotations=listed, capabilities={CAPABILITY: True}))


@pytest.mark.parametrize(
    "capabilities",
    [None, {}, {CAPABILITY: False}, {CAPABILITY: "true"}, {"mac": True}, []],
)
def test_without_the_capability_no_pod_would_be_heard(capabilities: object) -> None:
    """Error 7 with the line to add; nothing is wrong where nothing is allowed."""
    with refused(7, CAPABILITY, f'add "capabilities": {{"{CAPABILITY}": true}}'):
        validate(conf(allowAnnotations=["mode"], capabilities=capabilities))
    assert validate(conf(allowAnnotations=[], capabilities=capabilities)).mode == "l3"
