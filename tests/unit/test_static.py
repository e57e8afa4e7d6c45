"""The built-in static IPAM (cni_netkit.ipam.static)."""

from typing import Any

import pytest

from cni_netkit.ipam import choose
from cni_netkit.ipam.static import Static
from tests.unit.given import context, refused

PLAIN = {"address": "10.1.0.2/24", "gateway": "10.1.0.1"}


def ipam(conf: dict[str, Any], **more: Any) -> Static:
    """static for one attachment."""
    chosen = choose(context({"type": "static", **conf}, **more))
    assert isinstance(chosen, Static)
    return chosen


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([PLAIN], [PLAIN]),
        ([{"address": "10.1.0.2/24"}], [{"address": "10.1.0.2/24"}]),
        ([{"address": "10.1.0.2/24", "gateway": ""}], [{"address": "10.1.0.2/24"}]),
        ([{"address": "10.1.0.2/24", "gateway": None}], [{"address": "10.1.0.2/24"}]),
        (
            [{"address": "10.1.0.2/32", "gateway": "169.254.1.1"}],
            [{"address": "10.1.0.2/32", "gateway": "169.254.1.1"}],
        ),
        ([PLAIN, {"address": "fd00::2/64"}], [PLAIN, {"address": "fd00::2/64"}]),
        (
            [{"address": "FD00::0002/64", "gateway": "FD00::1"}],
            [{"address": "fd00::2/64", "gateway": "fd00::1"}],
        ),
        ([{"address": "::ffff:10.1.0.2/120", "gateway": "::ffff:10.1.0.1"}], [PLAIN]),
    ],
    ids=str,
)
def test_configured_addresses(given: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The configured addresses in the form that the kernel writes."""
    assert list(ipam({"addresses": given}).add().ips) == expected


def test_routes_and_dns() -> None:
    """Routes and dns are passed on."""
    dns = {"nameservers": ["1.1.1.1"], "domain": "x", "search": ["a"], "options": ["b"]}
    routes = [{"dst": "0.0.0.0/0"}, {"Dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1400}]
    result = ipam({"addresses": [PLAIN], "routes": routes, "dns": dns}).add()
    assert list(result.routes) == [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1400},
    ]
    assert result.dns == dns


def test_null_is_absent() -> None:
    """Keys whose value is null are absent, also within dns."""
    conf = {"addresses": [PLAIN], "routes": None, "dns": {"nameservers": None, "domain": "x"}}
    result = ipam(conf).add()
    assert (result.routes, result.dns) == ((), {"domain": "x"})


ARGUMENT = {"IP": "10.1.0.9/24"}
ARGS = {"cni": {"ips": ["10.1.0.7/24"]}}
CAPABILITY = {"ips": ["10.1.0.8/24", "fd00::8/64"]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"arguments": ARGUMENT}, ["10.1.0.2/24", "10.1.0.9/24"]),
        ({"args": ARGS}, ["10.1.0.7/24"]),
        ({"args": ARGS, "arguments": ARGUMENT}, ["10.1.0.7/24"]),
        ({"runtimeConfig": CAPABILITY}, ["10.1.0.8/24", "fd00::8/64"]),
        ({"runtimeConfig": CAPABILITY, "args": ARGS}, ["10.1.0.8/24", "fd00::8/64"]),
        ({"runtimeConfig": CAPABILITY, "arguments": ARGUMENT}, ["10.1.0.8/24", "fd00::8/64"]),
        ({"runtimeConfig": {"ips": []}, "args": {"cni": {"ips": None}}}, ["10.1.0.2/24"]),
    ],
    ids=str,
)
def test_requested_addresses(given: dict[str, Any], expected: list[str]) -> None:
    """CNI_ARGS adds to the configured addresses; args replace them; the capability replaces all."""
    result = ipam({"addresses": [PLAIN]}, **given).add()
    assert [ip["address"] for ip in result.ips] == expected


def test_gateways_of_arguments() -> None:
    """GATEWAY of CNI_ARGS belongs to the addresses of IP in its subnet, not to configured ones."""
    arguments = {"IP": "10.1.0.9/24, fd00::5/64", "GATEWAY": "10.1.0.254,fd00::1"}
    assert list(ipam({"addresses": [PLAIN]}, arguments=arguments).add().ips) == [
        PLAIN,
        {"address": "10.1.0.9/24", "gateway": "10.1.0.254"},
        {"address": "fd00::5/64", "gateway": "fd00::1"},
    ]


def test_gateway_of_another_subnet() -> None:
    """A GATEWAY in no address's subnet goes nowhere."""
    arguments = {"IP": "10.1.0.9/24", "GATEWAY": "10.2.0.1"}
    assert list(ipam({}, arguments=arguments).add().ips) == [{"address": "10.1.0.9/24"}]


@pytest.mark.parametrize(
    ("conf", "path"),
    [
        ({"addresses": [{}]}, "ipam.addresses.0.address"),
        ({"addresses": [{"address": "10.1.0.2"}]}, "ipam.addresses.0.address"),
        ({"addresses": [PLAIN, {"address": "x/24"}]}, "ipam.addresses.1.address"),
        ({"addresses": [{"address": "10.1.0.2/33"}]}, "ipam.addresses.0.address"),
        ({"addresses": [{"address": "::ffff:10.1.0.2/64"}]}, "ipam.addresses.0.address"),
        ({"addresses": [{**PLAIN, "gateway": "x"}]}, "ipam.addresses.0.gateway"),
        ({"addresses": PLAIN}, "ipam.addresses"),
        ({"addresses": [PLAIN], "routes": [{"dst": "10.3.0.0"}]}, "ipam.routes"),
        ({"addresses": [PLAIN], "dns": "1.1.1.1"}, "ipam.dns"),
    ],
    ids=str,
)
def test_bad_configuration(conf: dict[str, Any], path: str) -> None:
    """What cannot be read is error 7 with its path."""
    with refused(7, path):
        ipam(conf)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"arguments": {"IP": "10.1.0.9"}}, 7),
        ({"arguments": {"IP": "x/24"}}, 7),
        ({"args": {"cni": {"ips": ["10.1.0.9"]}}}, 7),
        ({"runtimeConfig": {"ips": ["10.1.0.9"]}}, 7),
        ({"runtimeConfig": {"ips": [5]}}, 7),
        ({"arguments": {"IP": "10.1.0.9/24", "GATEWAY": "x"}}, 4),
    ],
)
def test_bad_request(given: dict[str, Any], code: int) -> None:
    """A requested address without a prefix length is refused, and a gateway that is none."""
    with refused(code):
        ipam({}, **given).add()


def test_no_address() -> None:
    """Without any address ADD is error 106."""
    with refused(106, "net"):
        ipam({}).add()


def test_two_of_a_family_in_old_versions() -> None:
    """Before 0.3.0 two addresses of a family cannot be told: error 7; of two families they can."""
    with refused(7, "0.2.0"):
        ipam({"addresses": [PLAIN, {"address": "10.2.0.2/24"}]}, version="0.2.0").add()
    assert ipam({"addresses": [PLAIN, {"address": "fd00::2/64"}]}, version="0.2.0").add().ips


def test_nothing_is_kept() -> None:
    """There is nothing to release, to check or to collect."""
    chosen = ipam({"addresses": [PLAIN]})
    chosen.delete()
    chosen.check()
    chosen.status()
    chosen.collect([])
    assert chosen.add() == chosen.add()
