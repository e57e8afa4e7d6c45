"""Results in all seven versions (cni_netkit.spec.result)."""

from typing import Any

import pytest

from cni_netkit.spec import version as versions
from cni_netkit.spec.result import Result, fold, read, read_route, render
from tests.unit.given import refused

OLD = ("0.1.0", "0.2.0")
SINCE_0_3 = [version for version in versions.SUPPORTED if version not in OLD]

INTERFACES: tuple[dict[str, Any], ...] = (
    {"name": "nk0", "mac": "02:00:00:00:00:01", "mtu": 1500},
    {"name": "eth0", "sandbox": "/run/netns/a", "mtu": 1500, "socketPath": "/s", "pciID": "0:1"},
)
FOUR = {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}
SIX = {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1}
ROUTES: tuple[dict[str, Any], ...] = (
    {"dst": "0.0.0.0/0"},
    {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1300, "priority": 5},
    {"dst": "::/0", "gw": "fd00::1", "table": 100, "scope": 253},
)
DNS = {"nameservers": ["1.1.1.1"], "search": ["a.example"]}
FULL = Result(INTERFACES, (FOUR, SIX), ROUTES, DNS)

BARE_INTERFACES = [
    {"name": "nk0", "mac": "02:00:00:00:00:01"},
    {"name": "eth0", "sandbox": "/run/netns/a"},
]
BEFORE_1_0: dict[str, Any] = {
    "interfaces": BARE_INTERFACES,
    "ips": [{"version": "4", **FOUR}, {"version": "6", **SIX}],
    "routes": list(ROUTES),
    "dns": DNS,
}
SINCE_1_0: dict[str, Any] = {
    "interfaces": list(INTERFACES),
    "ips": [FOUR, SIX],
    "routes": list(ROUTES),
    "dns": DNS,
}
BEFORE_0_3: dict[str, Any] = {
    "ip4": {
        "ip": "10.1.0.2/24",
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9"}],
    },
    "ip6": {
        "ip": "fd00::2/64",
        "gateway": "fd00::1",
        "routes": [{"dst": "::/0", "gw": "fd00::1"}],
    },
    "dns": DNS,
}
FORMS = {
    "0.1.0": BEFORE_0_3,
    "0.2.0": BEFORE_0_3,
    "0.3.0": BEFORE_1_0,
    "0.3.1": BEFORE_1_0,
    "0.4.0": BEFORE_1_0,
    "1.0.0": SINCE_1_0,
    "1.1.0": SINCE_1_0,
}


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_form_of_a_version(version: str) -> None:
    """In each version the result has the form that this version's consumers expect."""
    assert render(FULL, version) == {"cniVersion": version, **FORMS[version]}


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_round_trip(version: str) -> None:
    """What is rendered in a version and read in it is rendered the same again."""
    rendered = render(FULL, version)
    assert render(read(rendered, version), version) == rendered


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_a_result_is_left_as_it_was(version: str) -> None:
    """Rendering changes nothing in the result."""
    before = repr(FULL)
    render(FULL, version)
    assert repr(FULL) == before


@pytest.mark.parametrize("version", SINCE_0_3)
def test_empty_parts_are_left_out(version: str) -> None:
    """A result without anything is its version alone; an empty dns is not written."""
    assert render(Result(), version) == {"cniVersion": version}


@pytest.mark.parametrize("version", OLD)
def test_no_address_before_0_3(version: str) -> None:
    """Before 0.3.0 a result is an address: without one there is error 1, and what to do."""
    with refused(1, version, "ipam"):
        render(Result(INTERFACES), version)


@pytest.mark.parametrize("version", OLD)
def test_first_address_of_a_family_before_0_3(version: str) -> None:
    """Before 0.3.0 only the first address of a family is told, in whatever order they come."""
    second = {"address": "10.2.0.2/24"}
    rendered = render(Result(ips=(SIX, FOUR, second)), version)
    assert rendered["ip4"]["ip"] == "10.1.0.2/24"
    assert rendered["ip6"]["ip"] == "fd00::2/64"


@pytest.mark.parametrize("version", SINCE_0_3)
def test_index_0_survives(version: str) -> None:
    """An address on the first interface keeps its index, which is 0 and yet not nothing."""
    result = Result(({"name": "eth0"},), ({"address": "10.1.0.2/24", "interface": 0},))
    rendered = render(result, version)
    assert rendered["ips"][0]["interface"] == 0
    assert read(rendered, version).ips[0]["interface"] == 0


def test_chain() -> None:
    """In a chain ours is appended, with indexes moved; what was there before stays as it was."""
    first = Result(INTERFACES, (FOUR,), ROUTES[:1], DNS)
    ours = Result(
        ({"name": "eth1"},), ({"address": "10.3.0.2/24", "interface": 0}, SIX), ROUTES[1:]
    )
    chained = first.followed_by(ours)
    assert chained.interfaces == (*INTERFACES, {"name": "eth1"})
    assert chained.ips == (
        FOUR,
        {"address": "10.3.0.2/24", "interface": 2},
        {**SIX, "interface": 3},
    )
    assert chained.routes == ROUTES
    assert chained.dns == DNS


def test_addresses_of_the_container() -> None:
    """Those on its interfaces, and those of which nobody says where they are."""
    result = Result(
        interfaces=({"name": "host0"}, {"name": "eth0", "sandbox": "/run/netns/c1"}),
        ips=(
            {"address": "10.1.0.1/24", "interface": 0},
            {"address": "10.1.0.2/24", "interface": 1},
            {"address": "FD00::2/64"},
        ),
    )
    assert result.container_addresses == ("10.1.0.2", "fd00::2")


def test_chain_without_index() -> None:
    """An address that belongs to no interface does not get one in a chain."""
    chained = Result(INTERFACES).followed_by(Result(ips=({"address": "10.3.0.2/24"},)))
    assert chained.ips == ({"address": "10.3.0.2/24"},)


@pytest.mark.parametrize(("ours", "expected"), [({}, DNS), ({"domain": "b"}, {"domain": "b"})])
def test_chain_and_dns(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    """Our dns, if there is one, takes the place of the one before."""
    assert Result(dns=DNS).followed_by(Result(dns=ours)).dns == expected


def test_extensions() -> None:
    """A vendor's keys are passed on from a previous result, ours come beside them."""
    before = read({"cniVersion": "1.0.0", "example.org/x": 1, "unknown": 2}, "1.0.0")
    rendered = render(
        before.followed_by(Result(extensions={"cni-netkit/fallback": "veth"})), "1.0.0"
    )
    assert rendered == {
        "cniVersion": "1.0.0",
        "example.org/x": 1,
        "cni-netkit/fallback": "veth",
    }


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_previous_result_is_passed_on_unchanged(version: str) -> None:
    """Nothing of a previous result is changed, not even keys that we do not know."""
    raw = {
        "cniVersion": version,
        "interfaces": [{**INTERFACES[1], "future": {"a": []}}],
        "ips": [{**FOUR, "future": 1}],
        "routes": [{**ROUTES[1], "future": "x"}],
        "dns": DNS,
    }
    assert render(read(raw, version).followed_by(Result()), version) == raw


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_version_of_the_configuration(version: str) -> None:
    """A previous result without cniVersion is in the configuration's version."""
    raw = render(FULL, version)
    del raw["cniVersion"]
    assert render(read(raw, version), version) == render(FULL, version)


def test_version_of_the_result() -> None:
    """A result that names its version is read in that one, whatever the configuration's."""
    assert read(render(FULL, "0.2.0"), "1.1.0").ips == (
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"address": "fd00::2/64", "gateway": "fd00::1"},
    )


@pytest.mark.parametrize("version", SINCE_0_3)
def test_addresses_of_any_version(version: str) -> None:
    """Once read, addresses look the same whatever version they came in."""
    assert read(render(FULL, version), version).ips == (FOUR, SIX)


def test_nothing_is_an_empty_result() -> None:
    """No previous result is one without anything, in every version."""
    assert all(read({}, version) == Result() for version in versions.SUPPORTED)


def test_null_is_nothing() -> None:
    """Go writes empty lists as null."""
    raw = {"interfaces": None, "ips": None, "routes": None, "dns": None, "cniVersion": None}
    assert read(raw, "1.0.0") == Result()
    assert read({"ip4": None, "ip6": None}, "0.2.0") == Result()


def test_keys_in_any_case() -> None:
    """Keys of the specification match without regard to case, as in Go; others stay."""
    raw = {
        "CNIVersion": "1.0.0",
        "IPs": [{"Address": "10.1.0.2/24", "GATEWAY": "10.1.0.1", "Future": 1}],
        "Routes": [{"Dst": "0.0.0.0/0", "GW": "10.1.0.1"}],
        "Interfaces": [{"Name": "eth0", "Sandbox": "/n"}],
    }
    result = read(raw, "0.2.0")
    assert result.ips == ({"address": "10.1.0.2/24", "gateway": "10.1.0.1", "Future": 1},)
    assert result.routes == ({"dst": "0.0.0.0/0", "gw": "10.1.0.1"},)
    assert result.interfaces == ({"name": "eth0", "sandbox": "/n"},)


def test_an_exact_key_wins() -> None:
    """Where a key is there in its own case and in another, its own counts."""
    assert fold({"dst": "a", "DST": "b"}, ["dst"])["dst"] == "a"
    assert fold({"DST": "b", "dst": "a"}, ["dst"])["dst"] == "a"


@pytest.mark.parametrize(
    "raw",
    [
        {"ips": [{"address": "10.1.0.300/24"}]},
        {"ips": [{}]},
        {"ips": ["10.1.0.2/24"]},
        {"ips": [{"address": "10.1.0.2/24", "interface": "0"}]},
        {"ips": [{"address": "10.1.0.2/24", "interface": True}]},
        {"ips": 5},
        {"interfaces": ["eth0"]},
        {"routes": [{"gw": "10.1.0.1"}]},
        {"routes": [{"dst": "default"}]},
        {"routes": ["10.1.0.0/24"]},
        {"dns": "1.1.1.1"},
        {"cniVersion": "0.2.0", "ip4": {"gateway": "10.1.0.1"}},
        {"cniVersion": "0.2.0", "ip4": "10.1.0.2/24"},
        {"cniVersion": "1"},
    ],
    ids=str,
)
def test_no_result(raw: dict[str, Any]) -> None:
    """What cannot be read as a result is error 6."""
    with refused(6):
        read(raw, "1.1.0")


def test_result_in_an_unknown_version() -> None:
    """A result in a version that we do not speak is error 1."""
    with refused(1, "2.0.0"):
        read({"cniVersion": "2.0.0"}, "1.1.0")


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_good_route(route: dict[str, Any]) -> None:
    """A route keeps all its fields."""
    assert read_route(route) == route


def test_empty_gateway_of_a_route() -> None:
    """A gateway that is null or empty is none."""
    assert read_route({"dst": "::/0", "gw": ""}) == {"dst": "::/0"}
    assert read_route({"dst": "::/0", "gw": None}) == {"dst": "::/0"}


@pytest.mark.parametrize(
    "route",
    [
        {},
        {"dst": ""},
        {"dst": 5},
        {"dst": "10.1.0.0"},
        {"dst": "10.1.0.0/33"},
        {"dst": "10.1.0.0/24", "gw": "x"},
        {"dst": "10.1.0.0/24", "mtu": "1400"},
        {"dst": "10.1.0.0/24", "table": True},
        "10.1.0.0/24",
        None,
    ],
    ids=str,
)
def test_bad_route(route: object) -> None:
    """A route without a destination in prefix notation, or with other nonsense, is refused."""
    with pytest.raises(ValueError, match=r"."):
        read_route(route)


@pytest.mark.parametrize("value", [None, "", [], {}, 0, False])
def test_extensions_of_others_are_passed_on_as_they_are(value: object) -> None:
    """Also those that are empty: what they mean is not ours to know."""
    found = read({"cniVersion": "1.1.0", "example.org/key": value}, "1.1.0")
    assert render(found, "1.1.0")["example.org/key"] == value
