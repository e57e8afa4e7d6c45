"""The network configuration (cni_netkit.spec.config)."""

from typing import Any

import pytest

from cni_netkit.spec.config import NetConf, validate
from cni_netkit.spec.lease import Lease
from tests.unit.given import conf, refused

LEASE = {"device": "eth0"}
MAC = "02:00:00:00:00:01"


def attribute(believed: object, path: str) -> Any:
    """Follow a path of camelCase keys to the value that was believed."""
    for key in path.split("."):
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in key)
        believed = getattr(believed, snake.replace("device_i_d", "device_id"))
    return believed


def nested(path: str, value: object) -> dict[str, Any]:
    """A configuration with `value` at `path`, and around it what makes it possible."""
    key, _, rest = path.partition(".")
    around: dict[str, dict[str, Any]] = {
        "lease": {"pairing": "single"},
        "ipMasq": {"ipam": {"type": "static"}},
        "nonMasqueradeCIDRs": {"ipMasq": True, "ipam": {"type": "static"}},
        "runtimeConfig": {"mode": "l2"},
    }
    needed = LEASE if key == "lease" else {}
    return conf(**{key: {**needed, rest: value} if rest else value}, **around.get(key, {}))


DEFAULTS = {
    "pairing": "pair",
    "mode": "l3",
    "policy": "forward",
    "peerPolicy": "forward",
    "scrub": "default",
    "peerScrub": "default",
    "headroom": 0,
    "tailroom": 0,
    "mtu": 0,
    "ifName": None,
    "ipam": None,
    "ipMasq": False,
    "ipMasqBackend": "nftables",
    "lease": None,
    "fallback": "none",
    "dns": None,
    "prevResult": None,
    "log.level": "info",
    "log.file": None,
}

GOOD: list[tuple[str, list[Any]]] = [
    ("pairing", ["pair", "single"]),
    ("mode", ["l3", "l2"]),
    ("policy", ["forward", "blackhole"]),
    ("peerPolicy", ["forward", "blackhole"]),
    ("scrub", ["default", "none"]),
    ("peerScrub", ["default", "none"]),
    ("headroom", [0, 1, 65535]),
    ("tailroom", [0, 1, 65535]),
    ("mtu", [0, 68, 1500, 65535]),
    ("ifName", ["eth1", "x" * 15]),
    ("ipam", [{"type": "host-local", "subnet": "10.1.0.0/24"}, {"type": "x", "anything": 1}]),
    ("ipMasq", [True, False]),
    ("ipMasqBackend", ["nftables"]),
    ("lease.device", ["eth0", "x" * 15]),
    ("lease.count", [1]),
    ("lease.workload", ["io_uring", "af_xdp"]),
    ("lease.flows", ["address", "none"]),
    ("fallback", ["none", "veth"]),
    ("log.level", ["debug", "info", "warning", "error"]),
    ("log.file", ["/var/log/netkit.log"]),
    ("runtimeConfig.mac", [MAC]),
    ("runtimeConfig.deviceID", ["0000:01:00.0"]),
]

BAD: list[tuple[str, list[Any]]] = [
    ("pairing", ["", "Pair", "double", 1, True, []]),
    ("mode", ["", "L3", "l4", 3, {}]),
    ("policy", ["", "drop", "Forward", 0, False]),
    ("peerPolicy", ["pass", 1, []]),
    ("scrub", ["", "yes", False, 0]),
    ("peerScrub", ["off", True]),
    ("headroom", [-1, 65536, "16", 1.5, True, []]),
    ("tailroom", [-1, 65536, "16", 1.0, False]),
    ("mtu", [-1, 1, 67, 65536, "1500", 1500.0, True]),
    ("ifName", ["", ".", "..", "a/b", "a:b", "a b", "x" * 16, 5]),
    ("ipam", ["host-local", [], 5, True]),
    ("ipMasq", ["true", 1, 0, "yes"]),
    ("ipMasqBackend", ["iptables", "", 1]),
    ("nonMasqueradeCIDRs", ["10.0.0.0/8", True, {}, [5], [""], ["x"], [["10.0.0.0/8"]], [{}]]),
    ("nonMasqueradeCIDRs", [["10.0.0.0"], ["10.0.0.1/8"], ["10.0.0.0/33"], ["fd00::/129"]]),
    ("nonMasqueradeCIDRs", [["10.0.0.0/8", "fd00::1/48"], ["::ffff:10.0.0.0/104"]]),
    ("nonMasqueradeCIDRs", [["10.0.0.0/8"] * 1025]),
    ("lease", ["eth0", [], True, 2]),
    ("lease.device", ["", "a/b", "x" * 16, 5]),
    ("lease.count", [0, -1, 1024, "2", 1.5, True]),
    ("lease.queues", ["", [], "a", "8-", "-8", "11-8", "1,,2", [1.5], ["1"], [True], 8, {}]),
    ("lease.queues", [[-1], [65536], "65536", "0-99999"]),
    ("lease.workload", ["", "dpdk", 1]),
    ("lease.flows", ["", "all", 5, True, {}, [], ["tcp"], [{}], [{"proto": "tcp"}]]),
    ("lease.flows", [[{"proto": each, "dstPort": 1}] for each in ("icmp", "TCP", 6, None)]),
    ("lease.flows", [[{"proto": "tcp", "dstPort": each}] for each in (0, 65536, -1, "80", True)]),
    ("fallback", ["", "macvlan", True, False]),
    ("dns", ["1.1.1.1", [], 5]),
    ("dns.nameservers", ["1.1.1.1", [5]]),
    ("dns.domain", [5, []]),
    ("log", ["info", []]),
    ("log.level", ["", "trace", "INFO", 10]),
    ("log.file", [5, True]),
    ("runtimeConfig", ["mac", [], 5]),
    ("runtimeConfig.mac", ["x", "02:00:00:00:00", "02-00-00-00-00-01", "0200.0000.0001", 5]),
    ("runtimeConfig.mac", ["01:00:00:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"]),
    ("runtimeConfig.ips", ["10.1.0.2", 5]),
    ("prevResult", ["", [], 5]),
]


def rows(table: list[tuple[str, list[Any]]]) -> list[tuple[str, Any]]:
    """One row a value."""
    return [(path, value) for path, values in table for value in values]


@pytest.mark.parametrize(("path", "expected"), DEFAULTS.items())
def test_default(path: str, expected: object) -> None:
    """A key that is absent has the value that the contract names first."""
    assert attribute(validate(conf()), path) == expected


@pytest.mark.parametrize(("path", "value"), rows(GOOD))
def test_good_value(path: str, value: object) -> None:
    """Every value that the contract promises is believed as it is."""
    assert attribute(validate(nested(path, value)), path) == value


@pytest.mark.parametrize(("path", "value"), rows(BAD))
def test_bad_value(path: str, value: object) -> None:
    """Any other value, and any other type, is error 7 with the path; nothing is converted."""
    with refused(7, path):
        validate(nested(path, value))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("mtu", 67, "(found 67)"),
        ("policy", "drop", '(found "drop")'),
        ("lease.queues", "11-8", "runs backwards"),
        ("ifName", "a:b", '(found "a:b")'),
        ("nonMasqueradeCIDRs", ["10.0.0.1/8"], "has host bits set, the subnet is 10.0.0.0/8"),
        ("nonMasqueradeCIDRs", ["10.0.0.0"], 'form 10.1.0.0/16 (found "10.0.0.0")'),
        ("nonMasqueradeCIDRs", ["::/0"] * 1025, "has 1025 entries, of at most 1024"),
    ],
)
def test_bad_value_is_shown(path: str, value: object, words: str) -> None:
    """The error shows what was found."""
    with refused(7, words):
        validate(nested(path, value))


@pytest.mark.parametrize("key", [key for key, _ in GOOD if "." not in key])
def test_null_is_absent(key: str) -> None:
    """A key whose value is null has its default, as for Go, that writes such keys."""
    assert validate(conf(**{key: None})) == validate(conf())


@pytest.mark.parametrize(
    "more",
    [
        {"lease": {**LEASE, "count": None, "queues": None, "workload": None, "flows": None}},
        {"log": {"level": None, "file": None}, "lease": LEASE},
        {"dns": None, "bpf": None, "args": None, "runtimeConfig": None, "lease": LEASE},
    ],
)
def test_null_inside_is_absent(more: dict[str, Any]) -> None:
    """So it is within an object."""
    assert validate(conf(**more)) == validate(conf(lease=LEASE))


def test_dns_lists_may_be_null() -> None:
    """The lists of dns may be null: Go writes an empty list so."""
    believed = validate(conf(dns={"nameservers": None, "search": None, "domain": "a"})).dns
    assert believed is not None
    assert (believed.nameservers, believed.search, believed.domain) == ((), (), "a")


def test_all_faults_at_once() -> None:
    """One error 7 names every fault with its path."""
    with refused(7, "mtu", "mode", "lease.count", "lease.device", "log.level", "ifName"):
        validate(
            conf(
                mtu=1,
                mode="l4",
                ifName="a/b",
                lease={"device": "", "count": 0},
                log={"level": "loud"},
            )
        )


@pytest.mark.parametrize(
    ("more", "path", "value"),
    [
        ({"foo": "bar"}, "foo", '"bar"'),
        ({"lease": {**LEASE, "foo": 17}}, "lease.foo", "17"),
        ({"log": {"format": "json"}}, "log.format", '"json"'),
        ({"MTU": 1500}, "MTU", "1500"),
        ({"peer_policy": "blackhole"}, "peer_policy", '"blackhole"'),
        ({"cni_version": "1.0.0"}, "cni_version", '"1.0.0"'),
        ({"netkit/mode": "l2"}, "netkit/mode", '"l2"'),
    ],
)
def test_unknown_key(more: dict[str, Any], path: str, value: str) -> None:
    """A key that is not in the contract is error 2; details have the key and its value."""
    with refused(2, path) as error:
        validate(conf(**more))
    assert f"{path}: {value}" in error.details


def test_all_unknown_keys_at_once() -> None:
    """Every unknown key is named in one error 2."""
    with refused(2, "foo: 1", "lease.bar: 2", "log.baz: 3"):
        validate(conf(foo=1, lease={**LEASE, "bar": 2}, log={"baz": 3}))


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"bpf": {"primary": "/sys/fs/bpf/x"}}, "bpf"),
        ({"bpf": {}}, "bpf"),
    ],
)
def test_planned_key(more: dict[str, Any], path: str) -> None:
    """A key of the contract that is not built yet is error 2, and said to be planned."""
    with refused(2, f"{path} (planned", f"{path}: "):
        validate(conf(**more))


def test_unknown_and_invalid_together() -> None:
    """With an invalid value besides, the error is 7, and the unknown key is named as well."""
    with refused(7, "foo is not supported", "bpf is not supported", "mtu"):
        validate(conf(foo=1, bpf={}, mtu=1))


def test_keys_of_others() -> None:
    """What the specification, libcni and runtimes put into a configuration is passed over."""
    believed = validate(
        conf(
            args={"cni": {"labels": [{"key": "app", "value": "x"}]}, "org.example": 1},
            capabilities={"mac": True, "portMappings": True},
            cniVersions=["1.0.0", "1.1.0"],
            disableCheck="true",
            disableGC=True,
            loadOnlyInlinedPlugins=False,
            plugins=[],
            prevResult={"cniVersion": "1.1.0"},
            **{"cni.dev/valid-attachments": [], "cni.dev/attachments": [], "cni.dev/new": 1},
        )
    )
    assert believed.prev_result == {"cniVersion": "1.1.0"}
    assert believed.model_copy(update={"prev_result": None}) == validate(conf())


@pytest.mark.parametrize(
    "runtime",
    [
        {"portMappings": [{"hostPort": 80}]},
        {"infinibandGUID": "c2:11:22:33:44:55:66:77"},
        {"cgroupPath": "/x"},
        {"aliases": {"net": ["a"]}},
        {"io.kubernetes.cri.pod-annotations": {"a": "b"}},
        {"CNIDeviceInfoFile": "/x"},
        {"mac": ""},
        {"mac": None, "ips": None, "ipRanges": None, "dns": None, "bandwidth": None},
        {"ips": [], "ipRanges": [], "deviceID": ""},
    ],
)
def test_capabilities_that_say_nothing(runtime: dict[str, Any]) -> None:
    """Capabilities of other plugins, and empty ones, change nothing."""
    assert validate(conf(runtimeConfig=runtime)) == validate(conf())


@pytest.mark.parametrize(
    ("dns", "expected"),
    [
        ({"Servers": ["1.1.1.1"], "Searches": None, "Options": None}, (("1.1.1.1",), (), ())),
        ({"servers": ["1.1.1.1"], "searches": ["a"]}, (("1.1.1.1",), ("a",), ())),
        ({"SERVERS": ["1.1.1.1"], "options": ["ndots:5"]}, (("1.1.1.1",), (), ("ndots:5",))),
        ({"Servers": ["2.2.2.2"], "servers": ["1.1.1.1"]}, (("1.1.1.1",), (), ())),
    ],
)
@pytest.mark.parametrize("key", ["dns", "DNS"])
def test_dns_capability_in_any_case(
    dns: dict[str, Any], expected: tuple[tuple[str, ...], ...], key: str
) -> None:
    """containerd writes Servers with Searches null, podman servers: both are understood."""
    believed = validate(conf(runtimeConfig={key: dns})).runtime_config.dns
    assert believed is not None
    assert (believed.servers, believed.searches, believed.options) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MAC", MAC),
        ("Ips", ("10.1.0.2",)),
        ("IPRanges", (({"subnet": "10.1.0.0/24"},),)),
        ("deviceid", "0000:01:00.0"),
    ],
)
def test_capability_keys_in_any_case(key: str, value: object) -> None:
    """Keys of runtimeConfig are matched without regard to case."""
    runtime = validate(conf(mode="l2", runtimeConfig={key: value})).runtime_config
    assert value in (runtime.mac, runtime.ips, runtime.ip_ranges, runtime.device_id)


@pytest.mark.parametrize(
    ("capability", "args", "argument", "expected"),
    [
        ("02:00:00:00:00:0A", "02:00:00:00:00:0b", "02:00:00:00:00:0c", "02:00:00:00:00:0a"),
        (None, "02:00:00:00:00:0B", "02:00:00:00:00:0c", "02:00:00:00:00:0b"),
        ("", "", "02:00:00:00:00:0C", "02:00:00:00:00:0c"),
        (None, None, None, None),
    ],
)
def test_mac_precedence(
    capability: str | None, args: str | None, argument: str | None, expected: str | None
) -> None:
    """The mac capability goes before args.cni.mac, that before MAC of CNI_ARGS."""
    raw = conf(mode="l2", runtimeConfig={"mac": capability}, args={"cni": {"mac": args}})
    assert validate(raw, argument).mac == expected


@pytest.mark.parametrize("argument", ["x", "01:00:00:00:00:01"])
def test_bad_mac_of_arguments(argument: str) -> None:
    """A MAC of CNI_ARGS is examined like any other."""
    with refused(7, "mac", argument):
        validate(conf(mode="l2"), argument)


@pytest.mark.parametrize("args", [5, [], {"cni": 5}, {"cni": {"mac": 5}}, {}])
def test_args_of_any_form(args: object) -> None:
    """args is free-form: what is not args.cni.mac is not ours."""
    assert validate(conf(args=args)).mac is None


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        ([14, 15], (14, 15)),
        ([15, 14, 15], (14, 15)),
        ("8-11,14", (8, 9, 10, 11, 14)),
        ("14", (14,)),
        (" 3 - 4 , 0", (0, 3, 4)),
        ("1-3,2-4", (1, 2, 3, 4)),
        ("7-7", (7,)),
    ],
)
def test_pool(queues: object, expected: tuple[int, ...]) -> None:
    """A pool is a list or ranges; order and duplicates do not matter."""
    assert attribute(validate(conf(lease={**LEASE, "queues": queues})), "lease.queues") == expected


def test_lease_defaults() -> None:
    """A lease needs a device only: one queue, of any that is free."""
    lease = validate(conf(lease=LEASE)).lease
    assert lease is not None
    assert (lease.count, lease.queues, lease.workload) == (1, None, None)


def test_lease_without_a_device() -> None:
    """The runtime may name the NIC, later than STATUS and GC."""
    assert validate(conf(lease={"count": 1})).lease == Lease()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ""),
        ({"runtimeConfig": {"deviceID": "0000:03:00.0"}}, "0000:03:00.0"),
        ({"deviceID": "0000:03:00.0", "pciBusID": "0000:03:00.0"}, "0000:03:00.0"),
        ({"pciBusID": "0000:03:00.0"}, "0000:03:00.0"),
        ({"deviceID": "", "pciBusID": ""}, ""),
        ({"deviceID": "a", "pciBusID": "b", "runtimeConfig": {"deviceID": "c"}}, "a"),
        ({"pciBusID": "b", "runtimeConfig": {"deviceID": "c"}}, "b"),
        ({"runtimeConfig": {"CNIDeviceInfoFile": "/var/run/a"}}, ""),
    ],
    ids=str,
)
def test_the_runtime_names_a_nic(more: dict[str, Any], expected: str) -> None:
    """As Multus writes it into the configuration, else as a capability, which a pod may ask for."""
    assert validate(conf(**more)).nic_id == expected


@pytest.mark.parametrize("key", ["deviceID", "pciBusID"])
@pytest.mark.parametrize("value", ["../../x", "a/b", ".", "a b", "-a"])
def test_a_device_id_is_no_path(key: str, value: str) -> None:
    """It is looked up under /sys/bus, and must not lead elsewhere."""
    with refused(7, key, value):
        validate(conf(**{key: value}))
    with refused(7, "runtimeConfig.deviceID", value):
        validate(conf(runtimeConfig={"deviceID": value}))


def test_keys_of_a_bridge() -> None:
    """Who writes "netkit" where "bridge" stood is told what to do with the rest."""
    with refused(2, "isDefaultGateway, hairpinMode", "isDefaultGateway: true", "ipam.routes"):
        validate(conf(isDefaultGateway=True, hairpinMode=True))
    with refused(2, "surprise") as error:
        validate(conf(surprise=1))
    assert "bridge" not in error.details


@pytest.mark.parametrize("count", [1, 1023])
def test_lease_count(count: int) -> None:
    """From 1 to 1023 queues can be leased."""
    lease = validate(conf(lease={**LEASE, "count": count})).lease
    assert lease is not None
    assert lease.count == count


IPAM = {"type": "host-local"}
IMPOSSIBLE = [
    ({"pairing": "single", "policy": "blackhole"}, "policy"),
    ({"pairing": "single", "peerPolicy": "blackhole"}, "peerPolicy"),
    ({"pairing": "single", "scrub": "none"}, "scrub"),
    ({"pairing": "single", "peerScrub": "none"}, "peerScrub"),
    ({"pairing": "single", "fallback": "veth"}, "fallback"),
    ({"pairing": "single", "ipMasq": True, "ipam": IPAM}, "ipMasq"),
    ({"fallback": "veth", "lease": LEASE}, "lease"),
    ({"lease": {**LEASE, "workload": "af_xdp"}}, "lease.workload"),
    ({"lease": {**LEASE, "count": 3, "queues": "1-2"}}, "lease"),
    (
        {"lease": {**LEASE, "workload": "io_uring", "flows": [{"proto": "udp", "dstPort": 1}]}},
        'workload "io_uring" receives TCP',
    ),
    ({"runtimeConfig": {"mac": MAC}}, "MAC"),
    ({"args": {"cni": {"mac": MAC}}}, "MAC"),
    ({"ipMasq": True}, "ipMasq"),
    ({"nonMasqueradeCIDRs": ["10.0.0.0/8"]}, "nonMasqueradeCIDRs needs ipMasq"),
    (
        {"ipMasq": False, "ipam": IPAM, "nonMasqueradeCIDRs": ["10.0.0.0/8"]},
        "nonMasqueradeCIDRs needs ipMasq",
    ),
    ({"ipam": {}}, "ipam.type"),
    ({"ipam": {"type": 5}}, "ipam.type"),
]


@pytest.mark.parametrize(("more", "word"), IMPOSSIBLE, ids=str)
def test_impossible_combination(more: dict[str, Any], word: str) -> None:
    """What the kernel would refuse is refused first, with error 7 and the reason."""
    with refused(7, word):
        validate(conf(**more))


def test_every_impossible_combination_is_named() -> None:
    """Several impossible combinations are told at once."""
    with refused(7, "policy", "peerScrub", "fallback", "MAC", "ipMasq"):
        validate(
            conf(
                pairing="single",
                policy="blackhole",
                peerScrub="none",
                fallback="veth",
                ipMasq=True,
                runtimeConfig={"mac": MAC},
            )
        )


@pytest.mark.parametrize(
    "more",
    [
        {"pairing": "single", "mode": "l2", "runtimeConfig": {"mac": MAC}},
        {"pairing": "single", "lease": {**LEASE, "workload": "af_xdp"}},
        {"pairing": "single", "ipam": IPAM, "mtu": 9000, "headroom": 256},
        {"fallback": "veth", "ipam": IPAM, "ipMasq": True, "scrub": "none"},
        {"ipam": IPAM, "ipMasq": True, "nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/48", "::/0"]},
        {"ipam": IPAM, "ipMasq": True, "nonMasqueradeCIDRs": ["10.0.0.0/8"] * 1024},
        {"nonMasqueradeCIDRs": []},
        {"policy": "blackhole", "peerPolicy": "blackhole", "lease": {**LEASE, "count": 2}},
        {"lease": {**LEASE, "count": 2, "queues": "1-2", "workload": "io_uring"}},
    ],
    ids=str,
)
def test_possible_combination(more: dict[str, Any]) -> None:
    """What the kernel takes is taken."""
    assert isinstance(validate(conf(**more)), NetConf)


FLOWS = [{"proto": "tcp", "dstPort": 9000}, {"proto": "tcp", "dstPort": 80}]


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        ({}, ()),
        ({"workload": "af_xdp"}, ()),
        ({"workload": "io_uring"}, ("tcp",)),
        ({"workload": "io_uring", "flows": "none"}, ()),
        ({"workload": "io_uring", "flows": "address"}, ("tcp",)),
        ({"flows": "address"}, ("tcp", "udp")),
        ({"workload": "af_xdp", "flows": "address"}, ("tcp", "udp")),
        ({"flows": [*FLOWS, FLOWS[0]]}, ("tcp 9000", "tcp 80")),
        ({"flows": [{"proto": "udp", "dstPort": 53}], "workload": "af_xdp"}, ("udp 53",)),
    ],
    ids=str,
)
def test_flows(lease: dict[str, Any], expected: tuple[str, ...]) -> None:
    """What comes to the leased queues, by default and as told."""
    found = validate(conf(pairing="single", lease={**LEASE, **lease})).lease
    assert found is not None
    assert found.wanted_flows == expected


@pytest.mark.parametrize(
    ("flows", "path"),
    [
        (
            [{"proto": "tcp", "dstPort": 0}],
            "lease.flows.0.dstPort: must be a whole number from 1 to 65535 (found 0)",
        ),
        (
            [FLOWS[0], {"proto": "icmp", "dstPort": 1}],
            'lease.flows.1.proto: must be "tcp" or "udp" (found "icmp")',
        ),
        (
            [{"proto": "tcp"}],
            "lease.flows.0.dstPort is missing; it must be a whole number from 1 to 65535",
        ),
        (
            "adress",
            'lease.flows: must be "address", "none" or a list of objects {"proto": "tcp", '
            '"dstPort": 9000} (found "adress", did you mean "address"?)',
        ),
        ([], "lease.flows: is empty"),
    ],
    ids=str,
)
def test_faults_of_flows_have_their_path(flows: object, path: str) -> None:
    """As all keys have."""
    with refused(7, path):
        validate(conf(lease={**LEASE, "flows": flows}))


def test_unknown_key_of_a_flow() -> None:
    """Error 2, as elsewhere."""
    with refused(2, "lease.flows.0.srcPort: 5"):
        validate(conf(lease={**LEASE, "flows": [{**FLOWS[0], "srcPort": 5}]}))


def test_a_configuration_is_frozen() -> None:
    """What was believed does not change afterwards."""
    believed = validate(conf())
    with pytest.raises(ValueError, match="frozen"):
        believed.mtu = 5


@pytest.mark.parametrize(
    ("path", "words"), [("/run/a\0b", "a zero byte"), ("/run/\ud800", "half a surrogate pair")]
)
@pytest.mark.parametrize("key", ["dataDir", "resolvConf", "file"])
def test_paths_that_no_file_can_have(key: str, path: str, words: str) -> None:
    """JSON can say them."""
    given: dict[str, Any] = (
        {"log": {key: path}} if key == "file" else {"ipam": {"type": "host-local", key: path}}
    )
    with refused(7, key, words):
        validate(conf(**given))


def test_not_every_fault_of_thousands() -> None:
    """An error that is too long for the agent to send would be told as another one."""
    keys = {f"key{number}": "a" * 100 for number in range(5000)} | {"k" * 100_000: 1}
    with refused(2, "key0", "and 4951 more") as error:
        validate(conf(**keys))
    assert len(error.message + error.details) < 20_000
