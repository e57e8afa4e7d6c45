"""Errors in configurations are in our own words: every key of every model with every wrong type."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from cni_netkit.admin.failure import Misuse
from cni_netkit.admin.options import checked
from cni_netkit.ipam import choose
from cni_netkit.spec.annotations import CAPABILITY, CHOICES
from cni_netkit.spec.config import NetConf, validate
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.ip_ranges import IPRanges
from cni_netkit.spec.ipam import HostLocalConf
from cni_netkit.spec.nics import Nics, Preparation, validate_nics
from cni_netkit.spec.static import StaticConf
from tests.unit.given import conf, context, refused

VALUES: list[Any] = [
    *("word", "", "\ud800", 7, -1, 1.5, float("nan"), 10**30, True, False),
    *([], ["word", 7], [[]], [None], [{}], {}, {"key": 1}),
]
"""Some of each type of JSON."""

AN_ADDRESS = "an IP address, for example 10.1.0.1"
A_PORT = "a whole number from 1 to 65535"
BITS = "0 (no limit) or from 8 to 18446744073709551615 bits a second"
BURST = "0 (no limit) or from 8 to 34359738359 bits"
A_BUS_ADDRESS = "a bus address such as 0000:03:00.0, or a device's name"
A_DEVICE = "a device name: up to 15 bytes without space, '/' and ':'"
A_MAC = "a MAC address of the form 02:00:00:00:00:01"
A_SUBNET = "a subnet of the form 10.1.0.0/16"
BYTES = "a whole number from 0 to 65535"
FORWARDING = '"forward" or "blackhole"'
SCRUBBING = '"default" or "none"'
STRINGS = "a list of strings"
POOL = 'a list of queues [14, 15] or ranges "8-11,14"'
THE_CHOICES = "the keys that a pod may choose: " + ", ".join(CHOICES)
U32 = "a whole number from 0 to 4294967295"

Rows = list[tuple[str, str, str]]

ROUTE: Rows = [
    ("routes", "l", "a list of objects"),
    ("routes.0", "o", "an object"),
    ("routes.0.dst", "s", "a destination of the form 10.1.0.0/16"),
    ("routes.0.gw", "s", AN_ADDRESS),
    *((f"routes.0.{key}", "n", U32) for key in ("mtu", "advmss", "priority", "table")),
    ("routes.0.scope", "n", "a whole number from 0 to 255"),
]

NETKIT: Rows = [
    ("cniVersion", "s", "a string"),
    ("name", "s", "a string"),
    ("pairing", "s", '"pair" or "single"'),
    ("mode", "s", '"l3" or "l2"'),
    ("policy", "s", FORWARDING),
    ("peerPolicy", "s", FORWARDING),
    ("scrub", "s", SCRUBBING),
    ("peerScrub", "s", SCRUBBING),
    ("headroom", "n", BYTES),
    ("tailroom", "n", BYTES),
    ("mtu", "n", "0 (automatic) or from 68 to 65535"),
    ("ifName", "s", A_DEVICE),
    ("ipam", "o", "an object"),
    ("ipMasq", "b", "true or false"),
    ("ipMasqBackend", "s", '"nftables"'),
    ("nonMasqueradeCIDRs", "l", "a list of up to 1024 subnets of the form 10.244.0.0/16"),
    ("nonMasqueradeCIDRs.0", "s", A_SUBNET),
    ("claims", "b", "true or false"),
    ("lease", "o", "an object"),
    ("lease.device", "s", A_DEVICE),
    ("lease.count", "n", "a whole number from 1 to 1023"),
    ("lease.queues", "sl", POOL),
    ("lease.workload", "s", '"io_uring" or "af_xdp"'),
    (
        "lease.flows",
        "sl",
        '"address", "none" or a list of objects {"proto": "tcp", "dstPort": 9000}',
    ),
    ("lease.flows.0", "o", "an object"),
    ("lease.flows.0.proto", "s", '"tcp" or "udp"'),
    ("lease.flows.0.dstPort", "n", A_PORT),
    ("deviceID", "s", A_BUS_ADDRESS),
    ("pciBusID", "s", A_BUS_ADDRESS),
    ("fallback", "s", '"none" or "veth"'),
    ("dns", "o", "an object"),
    ("dns.nameservers", "l", STRINGS),
    ("dns.nameservers.0", "s", "a string"),
    ("dns.domain", "s", "a string"),
    ("dns.search", "l", STRINGS),
    ("dns.search.0", "s", "a string"),
    ("dns.options", "l", STRINGS),
    ("dns.options.0", "s", "a string"),
    ("log", "o", "an object"),
    ("log.level", "s", '"debug", "info", "warning" or "error"'),
    ("log.file", "s", "a string"),
    ("allowAnnotations", "l", f"a list of {THE_CHOICES}"),
    ("allowAnnotations.0", "s", f"one of {THE_CHOICES}"),
    ("runtimeConfig", "o", "an object"),
    ("runtimeConfig.mac", "s", A_MAC),
    ("runtimeConfig.ips", "l", STRINGS),
    ("runtimeConfig.ips.0", "s", "a string"),
    ("runtimeConfig.ipRanges", "l", "a list of lists of objects"),
    ("runtimeConfig.ipRanges.0", "l", "a list of objects"),
    ("runtimeConfig.ipRanges.0.0", "o", "an object"),
    ("runtimeConfig.dns", "o", "an object"),
    ("runtimeConfig.dns.servers", "l", STRINGS),
    ("runtimeConfig.dns.servers.0", "s", "a string"),
    ("runtimeConfig.dns.searches", "l", STRINGS),
    ("runtimeConfig.dns.searches.0", "s", "a string"),
    ("runtimeConfig.dns.options", "l", STRINGS),
    ("runtimeConfig.dns.options.0", "s", "a string"),
    ("runtimeConfig.deviceID", "s", A_BUS_ADDRESS),
    ("runtimeConfig.bandwidth", "o", "an object"),
    ("runtimeConfig.bandwidth.ingressRate", "n", BITS),
    ("runtimeConfig.bandwidth.ingressBurst", "n", BURST),
    ("runtimeConfig.bandwidth.egressRate", "n", BITS),
    ("runtimeConfig.bandwidth.egressBurst", "n", BURST),
    ("prevResult", "o", "an object"),
]
"""Every key: which types of JSON it can be (string, number, boolean, list, object), and in words."""

RANGE: Rows = [
    ("subnet", "s", A_SUBNET),
    *((key, "s", AN_ADDRESS) for key in ("rangeStart", "rangeEnd", "gateway")),
]
HOST_LOCAL: Rows = [
    ("name", "s", "a string"),
    ("ranges", "l", "a list of lists of objects"),
    ("ranges.0", "l", "a list of objects"),
    ("ranges.0.0", "o", "an object"),
    *((f"ranges.0.0.{key}", kinds, words) for key, kinds, words in RANGE),
    *RANGE,
    *ROUTE,
    ("dataDir", "s", "a string"),
    ("resolvConf", "s", "a string"),
]
STATIC: Rows = [
    ("name", "s", "a string"),
    ("addresses", "l", "a list of objects"),
    ("addresses.0", "o", "an object"),
    ("addresses.0.address", "s", "an address with its prefix length, of the form 10.1.0.2/24"),
    ("addresses.0.gateway", "s", AN_ADDRESS),
    ("addresses.0.version", "s", "a string"),
    *ROUTE,
    ("dns", "o", "an object"),
    *((f"dns.{key}", "l", STRINGS) for key in ("nameservers", "search", "options")),
    *((f"dns.{key}.0", "s", "a string") for key in ("nameservers", "search", "options")),
    ("dns.domain", "s", "a string"),
]
IP_RANGES: Rows = [
    ("ipRanges", "l", "a list of lists of objects"),
    ("ipRanges.0", "l", "a list of objects"),
    ("ipRanges.0.0", "o", "an object"),
    *((f"ipRanges.0.0.{key}", kinds, words) for key, kinds, words in RANGE),
]
NICS: Rows = [
    ("nics", "l", "a list of objects"),
    ("nics.0", "o", "an object"),
    ("nics.0.device", "s", A_DEVICE),
    ("nics.0.role", "s", '"io_uring" or "af_xdp"'),
    ("nics.0.queues", "sl", POOL),
    ("nics.0.channels", "n", A_PORT),
    ("nics.0.ring", "n", "a whole number from 1 to 4294967295"),
    ("nics.0.copy", "b", "true or false"),
]


def as_host_local(ipam: Any) -> None:
    validate(conf(ipam={**ipam, "type": "host-local"}))


def as_static(ipam: Any) -> None:
    validate(conf(ipam={**ipam, "type": "static"}))


def as_ip_ranges(runtime: Any) -> None:
    choose(context({"type": "host-local", "subnet": "10.99.0.0/24"}, runtimeConfig=runtime))


def as_nics(given: Any) -> None:
    validate_nics(given, "nics.json")


def subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Every model of ours."""
    for each in model.__subclasses__():
        if each.__module__.startswith("cni_netkit."):
            yield each
        yield from subclasses(each)


MODELS: list[tuple[type[BaseModel], Rows, str, Callable[[Any], object], Any]] = [
    (NetConf, NETKIT, "", validate, conf()),
    (HostLocalConf, HOST_LOCAL, "ipam.", as_host_local, {}),
    (StaticConf, STATIC, "ipam.", as_static, {}),
    (IPRanges, IP_RANGES, "runtimeConfig.", as_ip_ranges, {}),
    (Nics, NICS, "", as_nics, {}),
]
FOREIGN = re.compile(
    r"tuple|\bdict|instance|Input|pydantic|None|True|False|\bstr\b|\bint\b|\bbool\b|Error"
    r"|[Vv]alid (string|integer|list)|permitted|[Ff]ield required|does not appear|codec|"
    + "|".join(rf"\b{each.__name__}\b" for each in subclasses(BaseModel))
)
"""What pydantic or Python would say, names of classes included."""

NOT_OURS = {"bpf", "type"}
"""Planned: refused whatever it is; and whose configuration it is at all."""


def paths(annotation: Any, at: str = "") -> Iterator[str]:
    """Every path in a model; 0 stands for the places of a list."""
    parts = [each for each in get_args(annotation) if each is not type(None)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            path = f"{at}.{field.alias or name}".removeprefix(".")
            yield path
            yield from paths(field.annotation, path)
    elif get_origin(annotation) is Annotated:
        # A pool is read as a whole, be it a list or a string.
        if not any(getattr(each, "reads", False) for each in parts[1:]):
            yield from paths(parts[0], at)
    elif get_origin(annotation) is tuple:
        yield f"{at}.0"
        yield from paths(parts[0], f"{at}.0")
    elif get_origin(annotation) in (Union, type(int | str)):
        for each in parts:
            yield from paths(each, at)


@pytest.mark.parametrize(("model", "rows"), [each[:2] for each in MODELS], ids=str)
def test_no_key_is_left_out(model: type[BaseModel], rows: Rows) -> None:
    """The tables have every path there is, and none twice."""
    told = [path for path, _, _ in rows]
    assert len(told) == len(set(told))
    known = {path for path in paths(model) if "queues." not in path}
    assert known - NOT_OURS == set(told) - NOT_OURS


def put(given: Any, path: str, value: Any) -> Any:
    """A configuration with a value at a path; a list on the way has one entry."""
    key, _, rest = path.partition(".")
    if key == "0":
        return [put({}, rest, value) if rest else value]
    inner = given.get(key, {}) if isinstance(given, dict) else {}
    return {**given, key: put(inner, rest, value) if rest else value}


def kind(value: Any) -> str:
    """Its type of JSON, by letter; a number with a fraction is of none that is wanted."""
    letters = {str: "s", int: "n", bool: "b", list: "l", dict: "o"}
    return letters.get(type(value), "?")


def in_json(value: Any) -> str:
    """As it may be shown, cut or not."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
    return text[:60]


CASES = [
    pytest.param(path, kinds, words, before, run, base, id=f"{model.__name__}-{path}")
    for model, rows, before, run, base in MODELS
    for path, kinds, words in rows
]


@pytest.mark.parametrize(("path", "kinds", "words", "before", "run", "base"), CASES)
def test_every_wrong_type(
    path: str, kinds: str, words: str, before: str, run: Callable[[Any], object], base: Any
) -> None:
    """The text has the path, what must be there, what was found, and no word of a library."""
    for value in VALUES:
        said = refusal(run, put(copy.deepcopy(base), path, value))
        assert not FOREIGN.search(said), said
        if kind(value) not in kinds and not says_nothing(path, value):
            place = re.escape(f"{before}{path}: must be {words} (found ")
            assert re.search(f"{place}[^;]*{re.escape(in_json(value))}", said), (value, said)


def refusal(run: Callable[[Any], object], given: Any) -> str:
    """The text of the error, empty if there is none."""
    try:
        run(given)
    except CNIError as error:
        return f"{error.message} | {error.details}"
    return ""


def says_nothing(path: str, value: Any) -> bool:
    """Runtimes pass empty capabilities on, which mean as much as none (see test_config)."""
    return path.startswith("runtimeConfig.") and value in ("", [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key, kinds, _ in NETKIT
        if key in CHOICES and "." not in key
        for value in VALUES
        if kinds == "s" or kind(value) not in kinds
    ],
)
def test_annotations(key: str, value: Any) -> None:
    """The same of what a pod chooses; the annotation stands in the place of the path."""
    text = json.dumps(value)
    given = conf(
        allowAnnotations=[key],
        capabilities={CAPABILITY: True},
        runtimeConfig={CAPABILITY: {f"cni-netkit/{key}": text}},
    )
    with refused(7, f"annotation cni-netkit/{key}: must be ") as error:
        validate(given)
    assert not FOREIGN.search(f"{error.message}; {error.details}"), error.message
    shown = {repr(text)[:50], in_json(text), in_json(value)}
    assert any(f"(found {each}" in error.message for each in shown), error.message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"mtuu": 1}, "mtuu (did you mean mtu?)"),
        ({"MTU": 1}, "MTU (did you mean mtu?)"),
        ({"peer_policy": "forward"}, "peer_policy (did you mean peerPolicy?)"),
        ({"ipMask": True}, "ipMask (did you mean ipMasq?)"),
        ({"lease": {"qeues": "1"}}, "lease.qeues (did you mean queues?)"),
        ({"log": {"levle": "info"}}, "log.levle (did you mean level?)"),
        (
            {"lease": {"flows": [{"proto": "tcp", "dstPort": 1, "dest_port": 1}]}},
            "lease.flows.0.dest_port (did you mean dstPort?)",
        ),
        (
            {"ipam": {"type": "host-local", "subnets": "10.1.0.0/24"}},
            "ipam.subnets (did you mean subnet?)",
        ),
        (
            {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24", "start": ""}]]}},
            "ipam.ranges.0.0.start (did you mean rangeStart?)",
        ),
        (
            {"ipam": {"type": "static", "routes": [{"dst": "::/0", "gateway": "::1"}]}},
            "ipam.routes.0.gateway",
        ),
        ({"ipam": {"type": "static", "dns": {"nameserver": []}}}, "ipam.dns.nameserver (did you"),
        ({"zebra": 1}, "zebra"),
    ],
    ids=str,
)
def test_a_key_that_is_unknown(more: dict[str, Any], said: str) -> None:
    """Error 2 names it, and the key that is meant, where one is like it."""
    with refused(2, f"keys that are not supported: {said}") as error:
        validate(conf(**more))
    assert ("did you mean" in error.message) == ("did you" in said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"pairing": "sinlge"},
            'must be "pair" or "single" (found "sinlge", did you mean "single"?)',
        ),
        ({"mode": "L3"}, 'must be "l3" or "l2" (found "L3", did you mean "l3"?)'),
        ({"mode": "l4"}, 'must be "l3" or "l2" (found "l4")'),
        ({"policy": "drop"}, '(found "drop")'),
        ({"lease": {"workload": "io-uring"}}, '(found "io-uring", did you mean "io_uring"?)'),
        ({"lease": {"flows": "adress"}}, '(found "adress", did you mean "address"?)'),
        ({"allowAnnotations": ["Mode"]}, "did you mean mode? (found"),
    ],
    ids=str,
)
def test_a_value_that_is_misspelt(more: dict[str, Any], said: str) -> None:
    """The one that is meant, only where it is like the one that was found."""
    with refused(7, said):
        validate(conf(**more))


def test_a_type_of_ipam_that_is_misspelt() -> None:
    """Any type could be a plugin; none is found, and one that is built in is like it."""
    with refused(7, 'no plugin "host_local" in CNI_PATH (empty), did you mean "host-local"?'):
        choose(context({"type": "host_local"})).add()
    with refused(7, 'no plugin "whereabouts" in CNI_PATH (empty)') as error:
        choose(context({"type": "whereabouts"})).add()
    assert "did you mean" not in error.message


ROUTES = [{"dest": "0.0.0.0/0"}]


@pytest.mark.parametrize(
    "ipam",
    [
        {"type": "host-local", "subnet": "10.1.0.0/24", "routes": ROUTES},
        {"type": "static", "addresses": [{"address": "10.1.0.2/24"}], "routes": ROUTES},
    ],
    ids=str,
)
def test_a_route_without_a_destination(ipam: dict[str, Any]) -> None:
    """What is missing, and the key that was meant to be it."""
    with refused(
        7,
        "ipam.routes.0.dst is missing; it must be a destination of the form 10.1.0.0/16; "
        "ipam.routes.0.dest is not supported (did you mean dst?)",
    ):
        validate(conf(ipam=ipam))


def test_faults_of_ipam_are_told_with_all_others() -> None:
    """At once, and before anything is asked of the kernel."""
    with refused(7, "mtu: must be", "ipam.subnet: must be", "ipam.foo is not supported", "mtuu"):
        validate(conf(mtu=1, mtuu=1, ipam={"type": "host-local", "subnet": 5, "foo": 1}))


AS_THE_REFERENCE_READS = [
    {"type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": ""},
    {"type": "host-local", "subnet": "10.1.0.0/24", "gateway": "10.1.0.254", "name": "net"},
    {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [[{"subnet": "::/64"}]]},
    {"type": "host-local", "resolvConf": "/etc/resolv.conf", "ranges": None, "routes": None},
    {"Type": "host-local", "type": "host-local", "SUBNET": "10.1.0.0/24", "DataDir": ""},
    {"type": "host-local"},
    {"type": "static", "addresses": [{"Address": "10.1.0.2/24", "version": "4", "gateway": ""}]},
    {"type": "static", "dns": {"Nameservers": ["1.1.1.1"]}, "name": "net"},
    {"type": "static", "routes": [{"Dst": "::/0", "GW": "::1", "mtu": 1400, "priority": 0}]},
]
"""Configurations that the reference plugins take (their config.go and main.go)."""


@pytest.mark.parametrize("ipam", AS_THE_REFERENCE_READS, ids=str)
def test_what_the_reference_plugins_read_is_read(ipam: dict[str, Any]) -> None:
    """Also in another case, and what has no meaning; without ranges they may come at run time."""
    assert validate(conf(ipam=ipam)).ipam == ipam


@pytest.mark.parametrize("kind", ["whereabouts", "dhcp", "host-locals"])
def test_ipam_of_others_is_not_looked_at(kind: str) -> None:
    """It is handed over as it is."""
    ipam = {"type": kind, "subnet": 5, "anything": [None], "routes": ROUTES}
    assert validate(conf(ipam=ipam)).ipam == ipam


def test_a_range_of_the_runtime_may_say_more() -> None:
    """What we do not know of it is not our business, as in all of runtimeConfig."""
    ranges = [[{"subnet": "10.5.0.0/24", "vendor": 1}]]
    choose(context({"type": "host-local"}, runtimeConfig={"ipRanges": ranges}))


@pytest.mark.parametrize("value", [[5], [None], [["10.1.0.2"]], "10.1.0.2", {}])
def test_requested_addresses_of_another_type(value: Any) -> None:
    """Of args and of the capability alike."""
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    for path, more in (
        ("args.cni.ips", {"args": {"cni": {"ips": value}}}),
        ("runtimeConfig.ips", {"runtimeConfig": {"ips": value}}),
    ):
        with refused(7, path, ": must be a ") as error:
            choose(context(ipam, **more)).add()
        assert not FOREIGN.search(error.message)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"role": "io-uring"},
            '--role: must be "io_uring" or "af_xdp" (found "io-uring", did you mean',
        ),
        ({"queues": "8-"}, '--queues: "8-" is neither a queue nor a range'),
        (
            {"channels": "x"},
            '--channels: must be a whole number from 1 to 65535 (found the string "x")',
        ),
        ({"device": "a/b"}, "device: has a '/'"),
        ({"channels": 1}, "queues names queue 15, but channels is 1"),
    ],
    ids=str,
)
def test_options_of_a_command(more: dict[str, Any], said: str) -> None:
    """The same words, with the option in the place of the path."""
    given = {"device": "eth0", "role": "io_uring", "queues": "8-15", **more}
    with pytest.raises(Misuse) as caught:
        checked(Preparation, given, positional="device")
    (fault,) = caught.value.args
    assert fault.startswith(said)
    assert not FOREIGN.search(fault)
