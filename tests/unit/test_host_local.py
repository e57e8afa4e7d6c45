"""The built-in host-local IPAM (cni_netkit.ipam.host_local, ranges)."""

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.ipam import choose
from cni_netkit.ipam.base import LeftBehind
from cni_netkit.ipam.host_local import HostLocal
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.result import Result
from tests.unit.given import content, context, descriptors_left, refused

FOUR = {"subnet": "10.1.0.0/24"}
SIX = {"subnet": "fd00::/64"}
TINY = {"subnet": "10.1.0.0/29"}


class Network:
    """A network with addresses in a folder of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / "net"

    def ipam(self, conf: dict[str, Any], container: str = "c1", **more: Any) -> HostLocal:
        """host-local for one attachment."""
        conf = {"type": "host-local", "dataDir": str(self.data_dir), **conf}
        chosen = choose(context(conf, container, **more))
        assert isinstance(chosen, HostLocal)
        return chosen

    def add(self, conf: dict[str, Any], container: str = "c1", **more: Any) -> Result:
        """ADD."""
        return self.ipam(conf, container, **more).add()

    def addresses(self, conf: dict[str, Any], container: str = "c1", **more: Any) -> list[str]:
        """The addresses that an ADD gives."""
        return [ip["address"] for ip in self.add(conf, container, **more).ips]

    def reserved(self) -> dict[str, str]:
        """Who has which address."""
        return {
            name: owner.decode().replace("\r\n", " ")
            for name, owner in content(self.folder).items()
            if not name.startswith("last_reserved_ip")
        }


@pytest.fixture
def net(tmp_path: Path) -> Network:
    """A network without reservations."""
    return Network(tmp_path / "networks")


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        (FOUR, [("10.1.0.2/24", "10.1.0.1")]),
        (SIX, [("fd00::2/64", "fd00::1")]),
        ({"ranges": [[FOUR]]}, [("10.1.0.2/24", "10.1.0.1")]),
        (
            {"ranges": [[FOUR], [SIX]]},
            [("10.1.0.2/24", "10.1.0.1"), ("fd00::2/64", "fd00::1")],
        ),
        ({**FOUR, "ranges": [[SIX]]}, [("10.1.0.2/24", "10.1.0.1"), ("fd00::2/64", "fd00::1")]),
        ({"ranges": [[FOUR, {"subnet": "10.2.0.0/24"}]]}, [("10.1.0.2/24", "10.1.0.1")]),
        ({**FOUR, "gateway": "10.1.0.254"}, [("10.1.0.1/24", "10.1.0.254")]),
        ({**FOUR, "gateway": "10.9.9.9"}, [("10.1.0.1/24", "10.9.9.9")]),
        ({**SIX, "gateway": "fe80::1"}, [("fd00::1/64", "fe80::1")]),
        ({**FOUR, "gateway": "::ffff:10.1.0.7"}, [("10.1.0.1/24", "10.1.0.7")]),
        ({**FOUR, "rangeStart": "10.1.0.20"}, [("10.1.0.20/24", "10.1.0.1")]),
        ({**FOUR, "rangeStart": "10.1.0.1"}, [("10.1.0.2/24", "10.1.0.1")]),
        ({"SUBNET": "10.1.0.0/24", "rangestart": "10.1.0.9"}, [("10.1.0.9/24", "10.1.0.1")]),
        ({"ranges": [[{"Subnet": "10.1.0.0/24"}]]}, [("10.1.0.2/24", "10.1.0.1")]),
        ({**FOUR, "ranges": None, "gateway": None, "rangeEnd": ""}, [("10.1.0.2/24", "10.1.0.1")]),
        ({**FOUR, "Name": "x", "TYPE": "host-local"}, [("10.1.0.2/24", "10.1.0.1")]),
        ({"subnet": "FD00::/64", "rangeStart": "FD00::00a0"}, [("fd00::a0/64", "fd00::1")]),
    ],
    ids=str,
)
def test_first_address(net: Network, conf: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """One address of every range set, with the prefix length and the gateway of its range."""
    result = net.add(conf)
    assert [(ip["address"], ip["gateway"]) for ip in result.ips] == expected


def test_files(net: Network) -> None:
    """A file an address holds owner and interface, another the last address of each range set."""
    net.add({"ranges": [[FOUR], [SIX]]})
    assert content(net.folder) == {
        "10.1.0.2": b"c1\r\neth0",
        "fd00::2": b"c1\r\neth0",
        "last_reserved_ip.0": b"10.1.0.2",
        "last_reserved_ip.1": b"fd00::2",
    }
    assert {path.stat().st_mode & 0o077 for path in net.folder.glob("[1f]*")} == {0}


def test_default_folder(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dataDir, and with an empty one, the folder is that of the reference plugin."""
    monkeypatch.setattr("cni_netkit.ipam.host_local.DATA_DIR", str(net.data_dir))
    net.add({**FOUR, "dataDir": ""})
    assert net.reserved() == {"10.1.0.2": "c1 eth0"}


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        (TINY, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]),
        ({**TINY, "gateway": "10.1.0.3"}, [f"10.1.0.{n}" for n in (1, 2, 4, 5, 6)]),
        ({**TINY, "rangeEnd": "10.1.0.7"}, [f"10.1.0.{n}" for n in range(2, 8)]),
        ({**FOUR, "rangeStart": "10.1.0.8", "rangeEnd": "10.1.0.9"}, ["10.1.0.8", "10.1.0.9"]),
        ({**FOUR, "rangeStart": "10.1.0.8", "rangeEnd": "10.1.0.8"}, ["10.1.0.8"]),
        ({"subnet": "10.1.0.0/30"}, ["10.1.0.2"]),
        ({"subnet": "fd00::/126"}, ["fd00::2", "fd00::3"]),
        (
            {"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]},
            ["10.1.0.2", "10.2.0.2"],
        ),
    ],
    ids=str,
)
def test_every_address_and_no_more(net: Network, conf: dict[str, Any], expected: list[str]) -> None:
    """Every address but gateway, network and IPv4 broadcast is given once, then error 106."""
    given = [net.addresses(conf, f"c{n}")[0].partition("/")[0] for n in range(len(expected))]
    assert given == expected
    before = content(net.folder)
    with refused(106, "no address is free"):
        net.add(conf, "one-more")
    assert content(net.folder) == before


def test_round_robin(net: Network) -> None:
    """A released address is given again only after all the others had their turn."""
    given = []
    for number in range(7):
        given += net.addresses(TINY, f"c{number}")
        net.ipam(TINY, f"c{number}").delete()
    assert [address.partition("/")[0][-1] for address in given] == list("2345623")


def test_round_robin_through_a_set(net: Network) -> None:
    """The round leads through every range of a set."""
    conf = {"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]}
    given = []
    for number in range(4):
        given += net.addresses(conf, f"c{number}")
        net.ipam(conf, f"c{number}").delete()
    assert given == ["10.1.0.2/30", "10.2.0.2/30"] * 2


def test_the_last_free_address(net: Network) -> None:
    """The last address that was given is the next as well if no other is free."""
    for number in range(5):
        net.add(TINY, f"c{number}")
    net.ipam(TINY, "c4").delete()
    assert net.addresses(TINY, "again") == ["10.1.0.6/29"]


@pytest.mark.parametrize("last", ["", "garbage", "192.168.0.1", "fd00::1", "10.1.0.300", "\xff"])
def test_last_address_that_says_nothing(net: Network, last: str) -> None:
    """A last address that is damaged or of another range is passed over."""
    net.folder.mkdir(parents=True)
    (net.folder / "last_reserved_ip.0").write_bytes(last.encode("latin-1"))
    assert net.addresses(FOUR) == ["10.1.0.2/24"]


def test_large_subnet(net: Network) -> None:
    """A subnet with more addresses than could be counted is no obstacle."""
    assert net.addresses({"subnet": "fd00::/8"}) == ["fd00::2/8"]
    assert net.addresses({"subnet": "::/3", "rangeStart": "::"}, "c2") == ["::/3"]


def test_release(net: Network) -> None:
    """DEL releases what the attachment has, of every range set, and nothing else."""
    conf = {"ranges": [[FOUR], [SIX]]}
    net.add(conf, "c1")
    net.add(conf, "c1", ifname="eth1")
    net.add(conf, "c2")
    net.ipam(conf, "c1").delete()
    assert set(net.reserved().values()) == {"c1 eth1", "c2 eth0"}


def test_release_again(net: Network) -> None:
    """DEL of what has no address succeeds, on a network that never was as well."""
    net.ipam(FOUR).delete()
    net.add(FOUR)
    net.ipam(FOUR).delete()
    net.ipam(FOUR).delete()
    assert net.reserved() == {}


def test_release_that_cannot_read_for_now(net: Network) -> None:
    """An address is not given up for somebody else's since its file cannot be read at the moment."""
    known = net.addresses(FOUR)
    with descriptors_left(1), refused(5, "10.1.0.2", "Too many open files"):
        net.ipam(FOUR).delete(known)
    net.ipam(FOUR).delete(known)
    assert net.reserved() == {}


def test_release_after_the_ranges_changed(net: Network) -> None:
    """DEL releases an address that is in no range any more."""
    net.add(FOUR)
    net.ipam({"subnet": "10.2.0.0/24"}).delete()
    assert net.reserved() == {}


def test_one_attachment_one_address(net: Network) -> None:
    """A second ADD is error 103, and the address stays."""
    net.add(FOUR)
    with refused(103, "c1"):
        net.add(FOUR)
    assert net.reserved() == {"10.1.0.2": "c1 eth0"}
    assert net.addresses(FOUR, ifname="eth1") == ["10.1.0.3/24"]


def old_format(net: Network, address: str, owner: str) -> None:
    """A reservation as the first versions of the reference plugin wrote it."""
    net.folder.mkdir(parents=True, exist_ok=True)
    (net.folder / address).write_text(owner)


def test_old_file_is_a_reservation(net: Network) -> None:
    """A file with the container id alone is a reservation: checked, not given twice, released."""
    old_format(net, "10.1.0.2", "c1")
    net.ipam(FOUR).check()
    with refused(103):
        net.add(FOUR)
    assert net.addresses(FOUR, "c2") == ["10.1.0.3/24"]
    net.ipam(FOUR).delete()
    assert net.reserved() == {"10.1.0.3": "c2 eth0"}


def test_old_file_beside_a_new_one(net: Network) -> None:
    """Where there is a file with the interface name, that one is released first."""
    old_format(net, "10.1.0.9", "c1")
    old_format(net, "10.1.0.8", "c1\r\neth0")
    net.ipam(FOUR).delete()
    assert net.reserved() == {"10.1.0.9": "c1"}


def test_check(net: Network) -> None:
    """CHECK is content with a reservation, without one it is error 105."""
    net.add(FOUR)
    net.ipam(FOUR).check()
    with refused(105, "c2", str(net.folder)):
        net.ipam(FOUR, "c2").check()
    with refused(105):
        net.ipam(FOUR, ifname="eth1").check()


@pytest.mark.parametrize(
    "given",
    [
        {"arguments": {"IP": "10.1.0.77"}},
        {"arguments": {"IP": "::ffff:10.1.0.77"}},
        {"args": {"cni": {"ips": ["10.1.0.77"]}}},
        {"args": {"cni": {"ips": ["10.1.0.77/24"]}}},
        {"runtimeConfig": {"ips": ["10.1.0.77"]}},
        {"runtimeConfig": {"ips": ["10.1.0.77/16"]}},
        {"runtimeConfig": {"IPs": ["10.1.0.77"]}},
        {"runtimeConfig": {"ips": ["10.1.0.77", "10.1.0.77"]}},
        {"arguments": {"IP": "10.1.0.77"}, "runtimeConfig": {"ips": ["10.1.0.77/24"]}},
    ],
    ids=str,
)
def test_requested_address(net: Network, given: dict[str, Any]) -> None:
    """An address can be asked for by CNI_ARGS, args and capability; the prefix is the subnet's."""
    assert net.addresses(FOUR, **given) == ["10.1.0.77/24"]
    assert content(net.folder)["last_reserved_ip.0"] == b"10.1.0.77"


def test_requested_addresses_of_both_families(net: Network) -> None:
    """Each requested address is served by its range set, in whatever order; the others are free."""
    conf = {"ranges": [[FOUR], [SIX]]}
    runtime = {"ips": ["fd00::50", "10.1.0.50"]}
    assert net.addresses(conf, runtimeConfig=runtime) == ["10.1.0.50/24", "fd00::50/64"]
    assert net.addresses(conf, "c2", runtimeConfig={"ips": ["fd00::51"]}) == [
        "10.1.0.51/24",
        "fd00::51/64",
    ]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("10.1.0.2", "taken by container c0 eth0"),
        ("10.1.0.1", "gateway"),
        ("10.9.0.1", "10.9.0.1"),
        ("10.1.0.0", "10.1.0.0"),
        ("10.1.0.255", "10.1.0.255"),
        ("fd00::5", "fd00::5"),
    ],
)
def test_requested_address_that_cannot_be_had(net: Network, asked: str, words: str) -> None:
    """A requested address that is taken, the gateway or in no range is error 106 with the reason."""
    net.add(FOUR, "c0")
    before = content(net.folder)
    with refused(106, asked, words):
        net.add(FOUR, arguments={"IP": asked})
    assert {name: before[name] for name in net.reserved()} == {"10.1.0.2": b"c0\r\neth0"}


def test_more_requested_addresses_than_sets(net: Network) -> None:
    """Two addresses of one range set cannot be had: error 106, and none is left reserved."""
    with refused(106, "10.1.0.51"):
        net.add(FOUR, runtimeConfig={"ips": ["10.1.0.50", "10.1.0.51"]})
    assert net.reserved() == {}


@pytest.mark.parametrize(
    "given",
    [
        {"arguments": {"IP": "x"}},
        {"runtimeConfig": {"ips": ["10.1.0"]}},
        {"runtimeConfig": {"ips": "10.1.0.5"}},
        {"args": {"cni": {"ips": "10.1.0.5"}}},
    ],
)
def test_requested_nonsense(net: Network, given: dict[str, Any]) -> None:
    """A requested address that is none is error 7."""
    with refused(7):
        net.add(FOUR, **given)


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({}, ["10.5.0.2/24", "fd05::2/64"]),
        (FOUR, ["10.5.0.2/24", "fd05::2/64", "10.1.0.2/24"]),
        ({**FOUR, "ranges": [[SIX]]}, ["10.5.0.2/24", "fd05::2/64", "10.1.0.2/24", "fd00::2/64"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["ipRanges", "IPRanges"])
def test_ranges_of_the_runtime(
    net: Network, conf: dict[str, Any], expected: list[str], key: str
) -> None:
    """The range sets of the ipRanges capability go before the configured ones."""
    runtime = {key: [[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd05::/64"}]]}
    assert net.addresses(conf, runtimeConfig=runtime) == expected


def test_atomic(net: Network) -> None:
    """Where one range set is exhausted the addresses of the others are given back."""
    conf = {"ranges": [[FOUR], [{"subnet": "10.2.0.0/30"}]]}
    net.add(conf)
    with refused(106, "range set 1"):
        net.add(conf, "c2")
    assert net.reserved() == {"10.1.0.2": "c1 eth0", "10.2.0.2": "c1 eth0"}


def test_a_failure_releases_only_its_own(net: Network) -> None:
    """What the attachment had before a failing ADD, in ranges that are gone, it still has."""
    net.add({"subnet": "10.3.0.0/24"})
    old_format(net, "10.4.0.2", "c1")
    with refused(106):
        net.add(FOUR, arguments={"IP": "10.9.0.1"})
    assert net.reserved() == {"10.3.0.2": "c1 eth0", "10.4.0.2": "c1"}


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({}, "no IP ranges"),
        ({"subnet": ""}, "no IP ranges"),
        ({"ranges": []}, "no IP ranges"),
        ({"ranges": [[]]}, "empty"),
        ({"ranges": [[{}]]}, "ipam.ranges.0.0.subnet"),
        ({"ranges": [FOUR]}, "ipam.ranges.0"),
        ({"ranges": "10.1.0.0/24"}, "ipam.ranges"),
        ({"ranges": [[FOUR, SIX]]}, "mixes"),
        ({"subnet": "10.1.0.0"}, "form"),
        ({"subnet": "10.1.0.0/33"}, "10.1.0.0/33"),
        ({"subnet": 5}, "form"),
        ({"subnet": "10.1.0.5/24"}, "the subnet is 10.1.0.0/24"),
        ({"ranges": [[{"subnet": "fd00::5/64"}]]}, "the subnet is fd00::/64"),
        ({"subnet": "::ffff:10.1.0.0/120"}, "IPv4"),
        ({"subnet": "10.1.0.0/31"}, "too small"),
        ({"subnet": "10.1.0.1/32"}, "too small"),
        ({"subnet": "fd00::/127"}, "too small"),
        ({**FOUR, "rangeStart": "10.2.0.5"}, "rangeStart 10.2.0.5"),
        ({**FOUR, "rangeEnd": "10.2.0.5"}, "rangeEnd 10.2.0.5"),
        ({**FOUR, "rangeStart": "fd00::5"}, "rangeStart fd00::5"),
        ({**FOUR, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}, "backwards"),
        ({**FOUR, "rangeStart": "10.1.0.010"}, "ipam.rangeStart"),
        ({**FOUR, "gateway": "x"}, "ipam.gateway"),
        ({**FOUR, "gateway": "fd00::1"}, "family"),
        ({"ranges": [[FOUR], [{"subnet": "10.1.0.128/25"}]]}, "overlaps"),
        ({"ranges": [[FOUR, {"subnet": "10.1.0.0/25"}]]}, "overlaps"),
        ({**FOUR, "ranges": [[FOUR]]}, "overlaps"),
        ({**FOUR, "routes": [{"dst": "x"}]}, "ipam.routes"),
        ({**FOUR, "routes": [{"gw": "10.1.0.1"}]}, "ipam.routes"),
        ({**FOUR, "routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}, "ipam.routes"),
        ({**FOUR, "dataDir": 5}, "ipam.dataDir"),
    ],
    ids=str,
)
def test_bad_configuration(net: Network, conf: dict[str, Any], words: str) -> None:
    """What the reference plugin refuses is error 7, with the path or the reason."""
    with refused(7, words):
        net.add(conf)


def test_overlap_with_ranges_of_the_runtime(net: Network) -> None:
    """Ranges of the runtime must not overlap with configured ones."""
    with refused(7, "overlaps"):
        net.add(FOUR, runtimeConfig={"ipRanges": [[FOUR]]})


def test_ranges_of_one_subnet(net: Network) -> None:
    """Two range sets can share a subnet if their ranges do not."""
    conf = {
        "ranges": [
            [{**FOUR, "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.19"}],
            [{**FOUR, "rangeStart": "10.1.0.20", "rangeEnd": "10.1.0.29"}],
        ]
    }
    assert net.addresses(conf) == ["10.1.0.10/24", "10.1.0.20/24"]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_two_of_a_family_in_old_versions(net: Network, version: str) -> None:
    """Before 0.3.0 two addresses of a family cannot be told: error 7; of two families they can."""
    with refused(7, version):
        net.add({"ranges": [[FOUR], [{"subnet": "10.2.0.0/24"}]]}, version=version)
    assert len(net.addresses({"ranges": [[FOUR], [SIX]]}, version=version)) == 2


def test_routes(net: Network) -> None:
    """Routes are passed on with all their fields."""
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1400}]
    assert list(net.add({**FOUR, "routes": routes}).routes) == routes


RESOLV_CONF = """
# a comment
; another one
domain example.org
nameserver 1.1.1.1 trailing
 nameserver fd00::53
search a.example b.example
search c.example
options ndots:5 rotate
nameserver
sortlist 10.0.0.0
"""


def test_resolver(net: Network, tmp_path: Path) -> None:
    """resolvConf names a resolv.conf(5), which becomes dns."""
    (tmp_path / "resolv.conf").write_text(RESOLV_CONF)
    assert net.add({**FOUR, "resolvConf": str(tmp_path / "resolv.conf")}).dns == {
        "nameservers": ["1.1.1.1", "fd00::53"],
        "domain": "example.org",
        "search": ["a.example", "b.example", "c.example"],
        "options": ["ndots:5", "rotate"],
    }


def test_resolver_that_is_missing(net: Network, tmp_path: Path) -> None:
    """A resolvConf that cannot be read fails ADD before anything is reserved, and not DEL."""
    conf = {**FOUR, "resolvConf": str(tmp_path / "missing")}
    with refused(7, str(tmp_path / "missing")):
        net.add(conf)
    assert not net.folder.exists()
    net.ipam(conf).delete()


def test_resolver_that_is_something_else(net: Network, tmp_path: Path) -> None:
    """Bytes that are no text, a file without end, a named pipe without writer: nobody waits."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"nameserver 1.1.1.1\n\xff\xfe\n")
    assert net.add({**FOUR, "resolvConf": str(path)}).dns == {"nameservers": ["1.1.1.1"]}
    assert net.add({**FOUR, "resolvConf": "/dev/zero"}, "c2").dns == {}
    os.mkfifo(tmp_path / "pipe")
    assert net.add({**FOUR, "resolvConf": str(tmp_path / "pipe")}, "c3").dns == {}


def test_named_pipes_in_the_folder(net: Network) -> None:
    """Nobody waits for one with the lock in their hands."""
    net.folder.mkdir(parents=True)
    os.mkfifo(net.folder / "10.1.0.2")
    assert net.addresses(FOUR) == ["10.1.0.3/24"]
    net.ipam(FOUR).delete()
    os.unlink(net.folder / "last_reserved_ip.0")
    os.mkfifo(net.folder / "last_reserved_ip.0")
    with refused(5, "last_reserved_ip.0"):
        net.add(FOUR)


def test_collect(net: Network) -> None:
    """GC releases what belongs to no valid attachment: by container id and interface name."""
    for container in ("c1", "c2", "c3"):
        net.add(FOUR, container)
    net.add(FOUR, "c1", ifname="eth1")
    net.ipam(FOUR, "").collect({("c1", "eth0"), ("c3", "eth0"), ("c9", "eth0")})
    assert net.reserved() == {"10.1.0.2": "c1 eth0", "10.1.0.4": "c3 eth0"}


def test_collect_old_files(net: Network) -> None:
    """An old file belongs to any valid attachment of its container."""
    old_format(net, "10.1.0.2", "c1")
    old_format(net, "10.1.0.3", "c2")
    net.ipam(FOUR, "").collect({("c1", "net5")})
    assert net.reserved() == {"10.1.0.2": "c1"}


def test_collect_everything(net: Network) -> None:
    """With nothing valid every address is released; other files and networks stay."""
    net.add(FOUR)
    old_format(net, "notes.txt", "c1\r\neth0")
    other = Network(net.data_dir)
    other.folder = net.data_dir / "net2"
    old_format(other, "10.1.0.2", "c1\r\neth0")
    net.ipam(FOUR, "").collect([])
    assert set(net.reserved()) == {"notes.txt"}
    assert other.reserved() == {"10.1.0.2": "c1 eth0"}


def test_collect_of_nothing(net: Network) -> None:
    """A network without a folder has nothing to collect, and gets no folder by it."""
    net.ipam(FOUR, "").collect([])
    assert not net.folder.exists()


def test_status(net: Network) -> None:
    """STATUS is content as soon as the folder can be made, exhausted or not."""
    conf = {**FOUR, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}
    net.ipam(conf, "").status()
    net.add(conf)
    net.ipam(conf, "").status()


def test_status_without_a_folder(net: Network) -> None:
    """Where the folder cannot be, STATUS is error 50, ADD error 5."""
    net.data_dir.write_text("in the way")
    with refused(50, str(net.folder)):
        net.ipam(FOUR, "").status()
    with refused(5, str(net.folder)):
        net.add(FOUR)


def test_an_address_whose_file_cannot_be_written(net: Network) -> None:
    """A reservation that fails half-way is error 5 and leaves no address reserved."""
    (net.folder / "last_reserved_ip.0").mkdir(parents=True)
    with refused(5, "last_reserved_ip.0"):
        net.add(FOUR)
    assert [path.name for path in net.folder.iterdir() if path.is_file()] == ["lock"]


def test_lock(net: Network) -> None:
    """While another process holds the folder's lock nothing is allocated, and then it is."""
    net.folder.mkdir(parents=True)
    done = threading.Event()
    given: list[str] = []

    def add() -> None:
        given.extend(net.addresses(FOUR))
        done.set()

    thread = threading.Thread(target=add)
    with (net.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        assert not done.wait(0.1)
        assert net.reserved() == {}
    assert done.wait(10)
    thread.join()
    assert given == ["10.1.0.2/24"]


def test_many_at_once(net: Network) -> None:
    """However many allocate at once, no address is given twice and none is left out."""

    def add(number: int) -> str:
        try:
            return net.addresses({"subnet": "10.1.0.0/26"}, f"c{number}")[0]
        except CNIError as error:
            return str(int(error.code))

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(add, range(80)))
    assert given.count("106") == 80 - 61
    assert len(set(given) - {"106"}) == 61


@pytest.mark.parametrize("name", ["10.1.0.5~", "lock", "subfolder", "10.1.0.300"])
def test_foreign_files(net: Network, name: str) -> None:
    """Files that are no addresses are left alone, whatever they contain."""
    net.folder.mkdir(parents=True)
    if name == "subfolder":
        (net.folder / name).mkdir()
    else:
        (net.folder / name).write_text("c1\r\neth0")
    net.ipam(FOUR).delete()
    assert (net.folder / name).exists()
    with refused(105):
        net.ipam(FOUR).check()


def test_unreadable_reservation(net: Network) -> None:
    """A file that is damaged belongs to nobody: the address is taken, the others are not."""
    old_format(net, "10.1.0.2", "")
    (net.folder / "10.1.0.3").write_bytes(b"\xff\xfe")
    os.mkfifo(net.folder / "fifo")
    assert net.addresses(FOUR) == ["10.1.0.4/24"]


@pytest.mark.parametrize("name", ["lock", "last_reserved_ip.0", "10.1.0.2"])
@pytest.mark.parametrize("there", [True, False])
def test_links_that_somebody_planted(net: Network, tmp_path: Path, name: str, there: bool) -> None:
    """They are not followed: nothing is made or changed elsewhere, and the error says what to do."""
    target = tmp_path / "elsewhere"
    if there:
        target.write_bytes(b"c1\r\neth0")
    net.folder.mkdir(parents=True)
    (net.folder / name).symlink_to(target)
    if name == "10.1.0.2":  # taken by nobody who could be named
        assert net.addresses(FOUR) == ["10.1.0.3/24"]
        net.ipam(FOUR).delete()
    else:
        with refused(5, str(net.folder / name), "symbolic link", "remove it"):
            net.add(FOUR)
    assert (net.folder / name).is_symlink()
    assert [target.read_bytes()] == [b"c1\r\neth0"] if there else not target.exists()
    assert set(os.listdir(net.folder)) - {"lock", "last_reserved_ip.0"} <= {name}


def test_what_is_remembered_is_older_than_a_release(net: Network) -> None:
    """The folder's time is the same after somebody else's release: the file itself decides."""
    first = net.addresses(FOUR)
    before = net.folder.stat()
    (net.folder / "10.1.0.2").unlink()
    os.utime(net.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first == ["10.1.0.2/24"]
    assert net.addresses(FOUR) == ["10.1.0.3/24"]


def test_what_is_collected_is_not_remembered(net: Network) -> None:
    """Likewise after a GC of our own."""
    net.add(FOUR)
    before = net.folder.stat()
    net.ipam(FOUR).collect([])
    os.utime(net.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    net.add(FOUR)


def test_remembering_is_no_condition(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder cannot be looked at any more the address is reserved all the same."""
    stat = os.stat

    def fail(path: Any, **more: Any) -> os.stat_result:
        if str(path) == str(net.folder):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path)
        return stat(path, **more)

    monkeypatch.setattr("cni_netkit.ipam.owners.os.stat", fail)
    assert net.addresses(FOUR) == ["10.1.0.2/24"]
    assert net.reserved() == {"10.1.0.2": "c1 eth0"}


def test_what_cannot_be_taken_back_is_said(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the attachment has something to release: DEL does it."""

    def fail(path: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    full = {"subnet": "10.2.0.0/29", "rangeStart": "10.2.0.2", "rangeEnd": "10.2.0.2"}
    net.add({"ranges": [[full]]}, "c2")
    with monkeypatch.context() as patch:
        patch.setattr("cni_netkit.ipam.host_local.os.unlink", fail)
        with pytest.raises(
            LeftBehind, match=r"remove .*10\.1\.0\.2 again, since .*no address is free"
        ):
            net.add({"ranges": [[FOUR], [full]]})
    assert net.reserved() == {"10.1.0.2": "c1 eth0", "10.2.0.2": "c2 eth0"}
    net.ipam(FOUR).delete()
    assert net.reserved() == {"10.2.0.2": "c2 eth0"}


@pytest.mark.parametrize("text", ["", "c1", "c1\r\net", "c\0\0\0\0", "c1\r\neth0"])
@pytest.mark.parametrize("known", [True, False])
def test_delete_releases_what_was_cut_off(net: Network, text: str, known: bool) -> None:
    """A power cut leaves the beginning of our own file, perhaps with zeroes behind."""
    net.folder.mkdir(parents=True)
    (net.folder / "10.1.0.2").write_text(text, newline="")
    net.ipam({"ranges": [[FOUR]]}).delete(["10.1.0.2/24"] if known else ())
    assert "10.1.0.2" not in net.reserved()


@pytest.mark.parametrize("text", ["c2\r\neth0", "c2", "c2\0\0", "c1\r\neth01"])
@pytest.mark.parametrize("known", [True, False])
def test_delete_leaves_what_was_cut_off_of_others(net: Network, text: str, known: bool) -> None:
    """It does not begin as ours."""
    net.folder.mkdir(parents=True)
    (net.folder / "10.1.0.2").write_text(text, newline="")
    net.ipam({"ranges": [[FOUR]]}).delete(["10.1.0.2/24"] if known else ())
    assert "10.1.0.2" in net.reserved()
