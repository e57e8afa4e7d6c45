"""host-local beside the reference plugin, on the same network.

CNI_NETKIT_REFERENCE_PLUGINS names the folder with containernetworking's plugins.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.ipam import choose
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.result import render
from tests.unit.given import conf, content, context

Take = Callable[..., Any]
REFUSED = "refused"


@pytest.fixture
def reference() -> Take:
    """The reference plugins, executed: an answer, None or REFUSED."""
    folder = os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS")
    if not folder:
        pytest.skip("CNI_NETKIT_REFERENCE_PLUGINS is not set: no reference plugins to compare with")
    if not Path(folder, "host-local").is_file():
        pytest.skip(f"CNI_NETKIT_REFERENCE_PLUGINS: there is no host-local in {folder}")

    def take(verb: str, ipam: dict[str, Any], container: str, arguments: str, **more: Any) -> Any:
        done = subprocess.run(
            [Path(folder, ipam["type"])],
            input=json.dumps(conf(cniVersion="1.0.0", ipam=ipam, **more)).encode(),
            stdout=subprocess.PIPE,
            env={
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": container,
                "CNI_IFNAME": "eth0",
                "CNI_NETNS": "/run/netns/none",
                "CNI_PATH": folder,
                "CNI_ARGS": arguments,
            },
        )
        if done.returncode:
            return REFUSED
        answer = json.loads(done.stdout) if done.stdout else None
        return {key: value for key, value in answer.items() if value} if answer else None

    return take


def ours(verb: str, ipam: dict[str, Any], container: str, arguments: str, **more: Any) -> Any:
    """The same from ours."""
    pairs = dict(pair.split("=") for pair in arguments.split(";") if pair)
    try:
        chosen = choose(context(ipam, container, version="1.0.0", arguments=pairs, **more))
        if verb == "ADD":
            return render(chosen.add(), "1.0.0")
        (chosen.delete if verb == "DEL" else chosen.check)()
    except CNIError:
        return REFUSED
    return None


def test_taking_turns(reference: Take, tmp_path: Path) -> None:
    """Two hundred allocations in turn give two hundred addresses, in a row, none twice."""
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": str(tmp_path)}
    given = [
        (reference if number % 2 else ours)("ADD", ipam, f"c{number}", "")["ips"][0]["address"]
        for number in range(200)
    ]
    assert given == [f"10.1.0.{number}/24" for number in range(2, 202)]


def test_round_robin_goes_on(reference: Take, tmp_path: Path) -> None:
    """Where one released, the other goes on behind the last address, through the end and round."""
    ipam = {"type": "host-local", "subnet": "10.1.0.0/29", "dataDir": str(tmp_path)}
    given = []
    for number in range(12):
        one, other = (reference, ours) if number % 2 else (ours, reference)
        given.append(one("ADD", ipam, f"c{number}", "")["ips"][0]["address"])
        assert other("DEL", ipam, f"c{number}", "") is None
    assert given == [f"10.1.0.{last}/29" for last in "234562345623"]


def test_each_releases_the_others(reference: Take, tmp_path: Path) -> None:
    """Each finds, refuses to double and releases what the other reserved."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "dataDir": str(tmp_path),
    }
    for one, other in ((reference, ours), (ours, reference)):
        assert len(one("ADD", ipam, "c1", "")["ips"]) == 2
        assert other("CHECK", ipam, "c1", "") is None
        assert other("ADD", ipam, "c1", "") == REFUSED
        assert other("DEL", ipam, "c1", "") is None
        assert one("CHECK", ipam, "c1", "") == REFUSED
        assert all(name.startswith("last_reserved_ip.") for name in content(tmp_path / "net"))


FOUR = {"subnet": "10.1.0.0/24"}
SIX = {"subnet": "fd00::/64"}
ROUTE = {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1400, "priority": 5, "table": 100}

SAME = [
    (FOUR, "", {}),
    (SIX, "", {}),
    ({"ranges": [[FOUR], [SIX]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}, "", {}),
    ({**FOUR, "ranges": [[SIX]]}, "", {}),
    ({"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]}, "", {}),
    ({"subnet": "10.1.0.0/30"}, "", {}),
    ({"subnet": "10.1.0.0/31"}, "", {}),
    ({"subnet": "10.1.0.5/24"}, "", {}),
    ({"subnet": "10.1.0.0"}, "", {}),
    ({"subnet": "::ffff:10.1.0.0/120"}, "", {}),
    ({**FOUR, "gateway": "10.1.0.2"}, "", {}),
    ({**FOUR, "gateway": "10.9.9.9"}, "", {}),
    ({**FOUR, "gateway": "10.1.0.0"}, "", {}),
    ({**SIX, "gateway": "fe80::1"}, "", {}),
    ({**FOUR, "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.1"}, "", {}),
    ({**FOUR, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}, "", {}),
    ({**FOUR, "rangeStart": "10.1.0.010"}, "", {}),
    ({"ranges": [[{"Subnet": "10.1.0.0/24", "rangestart": "10.1.0.7"}]]}, "", {}),
    ({"ranges": [[FOUR, SIX]]}, "", {}),
    ({"ranges": [[FOUR], [FOUR]]}, "", {}),
    ({"ranges": [[]]}, "", {}),
    ({}, "", {}),
    ({**FOUR, "ranges": None, "routes": None}, "", {}),
    ({**FOUR, "routes": [{"Dst": "10.9.0.0/16", "GW": "10.1.0.9"}]}, "", {}),
    ({**FOUR, "routes": [{"dst": "10.9.0.0"}]}, "", {}),
    (FOUR, "IP=10.1.0.77", {}),
    (FOUR, "IP=10.1.0.1", {}),
    (FOUR, "IP=10.2.0.1", {}),
    (FOUR, "IP=x", {}),
    (FOUR, "", {"args": {"cni": {"ips": ["10.1.0.50"]}}}),
    (FOUR, "", {"args": {"cni": {"ips": ["10.1.0.50", "10.2.0.51"]}}}),
    (FOUR, "", {"runtimeConfig": {"ips": ["10.1.0.50/16"]}}),
    ({"ranges": [[FOUR], [SIX]]}, "", {"runtimeConfig": {"ips": ["fd00::5", "10.1.0.50"]}}),
    (FOUR, "", {"runtimeConfig": {"ipRanges": [[{"subnet": "10.5.0.0/24"}], [SIX]]}}),
]


@pytest.mark.parametrize(("ipam", "arguments", "more"), SAME, ids=str)
def test_same_answers_and_files(
    reference: Take,
    tmp_path: Path,
    ipam: dict[str, Any],
    arguments: str,
    more: dict[str, Any],
) -> None:
    """Both give the same answers to ADD, ADD of another, DEL, ADD, and leave the same files."""
    seen = []
    for who, take in (("reference", reference), ("ours", ours)):
        where = {"type": "host-local", "dataDir": str(tmp_path / who), **ipam}
        answers = [
            take("ADD", where, "c1", arguments, **more),
            take("ADD", where, "c2", "", **more),
            take("DEL", where, "c1", "", **more),
            take("ADD", where, "c3", arguments, **more),
        ]
        folder = tmp_path / who / "net"
        seen.append((answers, content(folder) if folder.exists() else {}))
    assert seen[0] == seen[1]


STATIC = {"addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]}


@pytest.mark.parametrize(
    ("ipam", "arguments", "more"),
    [
        (STATIC, "", {}),
        (STATIC, "IP=10.1.0.9/24;GATEWAY=10.1.0.254", {}),
        ({}, "IP=10.1.0.9/24,fd00::5/64;GATEWAY=10.1.0.254,fd00::1", {}),
        (STATIC, "IP=10.1.0.9", {}),
        (STATIC, "IP=10.1.0.9/24", {"args": {"cni": {"ips": ["10.1.0.7/24"]}}}),
        (
            STATIC,
            "",
            {
                "args": {"cni": {"ips": ["10.1.0.7/24"]}},
                "runtimeConfig": {"ips": ["10.1.0.8/24"]},
            },
        ),
        (STATIC, "GATEWAY=10.1.0.77", {"runtimeConfig": {"ips": ["10.1.0.8/24"]}}),
        ({"addresses": [{"address": "::ffff:10.1.0.2/120"}]}, "", {}),
        ({"addresses": [{"address": "FD00::0002/64", "gateway": "FD00::1"}]}, "", {}),
        ({"addresses": [{"address": "10.1.0.2"}]}, "", {}),
        ({**STATIC, "dns": {"nameservers": ["1.1.1.1"], "search": ["a"]}}, "", {}),
    ],
    ids=str,
)
def test_static_answers(
    reference: Take, ipam: dict[str, Any], arguments: str, more: dict[str, Any]
) -> None:
    """static gives the reference plugin's answers."""
    where = {"type": "static", **ipam}
    answers = [take("ADD", where, "c1", arguments, **more) for take in (reference, ours)]
    assert answers[0] == answers[1]


def test_routes_with_everything(reference: Take, tmp_path: Path) -> None:
    """Both pass on all fields of a route, also in a version that does not name them."""
    ipam = {"type": "static", **STATIC, "routes": [ROUTE]}
    if "1.1.0" not in reference("VERSION", ipam, "", "")["supportedVersions"]:
        pytest.skip("these reference plugins are older than CNI version 1.1.0")
    assert ours("ADD", ipam, "c1", "") == reference("ADD", ipam, "c1", "")
    assert ours("ADD", ipam, "c1", "")["routes"] == [ROUTE]
