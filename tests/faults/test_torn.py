"""After a power cut: files that end at any byte, or go on with zeroes, are recognised and cleaned up.

Nothing is written to the disk at once (D-1), so of each file there may be all, a part, a part with
zeroes where the rest was to be, or nothing. What the kernel had is gone.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.ipam import choose
from cni_netkit.ipam.host_local import HostLocal
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics.prepare import restore
from cni_netkit.nics.record import NicStore
from cni_netkit.record import Record
from cni_netkit.spec.errors import CNIError
from cni_netkit.state import Store
from tests.faults.kills import command
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node
from tests.unit.given import context

pytestmark = pytest.mark.any_kernel

RECORDS = Path(__file__).parents[1] / "records"
CONTAINER, OTHER = "container-c1", "container-c2"
OWNER = f"{CONTAINER}\r\neth0".encode()
NETWORK = {"ranges": [[{"subnet": "10.1.0.0/24"}]]}


def torn(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every way to end too early, the empty file included."""
    for length in range(len(data)):
        yield f"{length} bytes of {len(data)}", data[:length]
        yield f"{length} bytes of {len(data)}, then zeroes", data[:length].ljust(len(data), b"\0")


@dataclass
class Addresses:
    """host-local's folder, with one file."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "net" / "10.1.0.2"

    def of(self, container: str) -> HostLocal:
        """host-local for a container."""
        conf = {"type": "host-local", "dataDir": str(self.folder), **NETWORK}
        chosen = choose(context(conf, container))
        assert isinstance(chosen, HostLocal)
        return chosen

    def write(self, data: bytes) -> None:
        """Put the file there."""
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_bytes(data)


@pytest.fixture
def addresses(tmp_path: Path) -> Addresses:
    return Addresses(tmp_path)


def test_addresses_are_released(
    addresses: Addresses, capfd: pytest.CaptureFixture[str], figures: list[str]
) -> None:
    """DEL by the record, DEL without one, GC; a warning names the file."""
    count = 0
    for how, data in torn(OWNER):
        for release in ("known", "unknown", "GC"):
            addresses.write(data)
            with pytest.raises(CNIError, match="expected an address reserved"):
                addresses.of(CONTAINER).check(["10.1.0.2/24"])
            capfd.readouterr()
            if release == "GC":
                addresses.of(OTHER).collect({(OTHER, "eth0")})
            else:
                addresses.of(CONTAINER).delete(["10.1.0.2/24"] if release == "known" else ())
            said = capfd.readouterr().err
            partly = not data.endswith(b"\0") and 0 < len(data) < len(CONTAINER)
            if release == "unknown" and partly:
                # It may be all of another's id: GC knows.
                assert addresses.file.exists(), (how, release)
                continue
            assert not addresses.file.exists(), (how, release)
            # Where all but the end of the device's name is there, or what old releases of the
            # reference plugin wrote, there is nothing to be seen.
            whole = release == "GC" and b"\r\n" in data.strip() and b"\0" not in data
            old = data.strip() == CONTAINER.encode() and release == "unknown"
            assert whole or old or str(addresses.file) in said, (how, release)
            count += 1
    figures.append(f"address files torn: {count} released")


def test_addresses_of_others_stay(addresses: Addresses) -> None:
    """The beginning of another's is not ours, by the record or without."""
    for how, data in torn(OWNER):
        addresses.write(data)
        addresses.of("another").delete(["10.1.0.2/24"])
        assert addresses.file.exists() == bool(data.rstrip(b"\0")), how
    for known in ([], ["10.1.0.2/24"]):
        addresses.write(f"{OTHER}\r\neth0".encode())
        addresses.of(CONTAINER).delete(known)
        addresses.of("container-c").delete(known)
        assert addresses.file.exists()


def test_addresses_are_given_away_beside(addresses: Addresses, figures: list[str]) -> None:
    """What is torn is passed by, also the file that says where to go on."""
    count = 0
    for name, data in (("10.1.0.2", OWNER), ("last_reserved_ip.0", b"10.1.0.12")):
        for how, text in torn(data):
            addresses.write(b"")
            addresses.file.unlink()
            addresses.file.with_name(name).write_bytes(text)
            one = addresses.of(OTHER)
            (given,) = one.add().ips
            assert given["address"] != "10.1.0.2/24" or name != "10.1.0.2", how
            one.delete()
            count += 1
    figures.append(f"address files and last_reserved_ip torn: {count} passed by")


def test_records_are_recognised(
    node: Node, conf: Conf, capfd: pytest.CaptureFixture[str], figures: list[str]
) -> None:
    """CHECK: error 105. DEL, GC: gone, with the address; a warning names the file."""
    c = node.container()
    configuration = conf(fallback="veth")
    result = node.add(configuration, c)
    (path,) = Path("/var/lib/cni/netkit/net").glob("*.json")
    data = path.read_bytes()
    address = Path("/var/lib/cni/networks/net/10.1.0.2")
    assert node.call("DEL", configuration, c).ok
    before, count = judge.world(c), 0
    for number, (how, text) in enumerate(torn(data)):
        path.write_bytes(text)
        address.write_bytes(f"container-{c}\r\neth0".encode())
        assert node.check(configuration, c, result).error["code"] == 105, how
        (found,) = Store().scan()
        assert found.attachment == Attachment("net", f"container-{c}", "eth0"), how
        if number % 100 < 2:
            assert command("list") == 0, how
            # On a kernel without netkit it is 1.
            assert command("doctor") in (0, 1), how
        capfd.readouterr()
        if number // 2 % 2:
            assert node.call("DEL", configuration, c).ok
        else:
            assert node.call("GC", {**configuration, "cni.dev/valid-attachments": []}).ok
        assert str(path) in capfd.readouterr().err, how
        assert not path.exists(), how
        assert not address.exists(), how
        count += 1
    assert judge.world(c) == before
    figures.append(f"records torn: {count}, cleaned up by DEL and GC in turn")


def is_refused(data: bytes) -> bool:
    """Whether this is no record."""
    try:
        Record.load(data)
    except ValueError:
        return True
    return False


def test_records_of_older_formats_are_recognised(figures: list[str]) -> None:
    """Whatever is missing, they are read as a whole or not at all."""
    count = 0
    for path in sorted(RECORDS.glob("attachments-*/*.json")):
        data = path.read_bytes()
        assert Record.load(data)
        for how, text in torn(data.rstrip()):
            assert is_refused(text), (path, how)
            count += 1
    assert count
    figures.append(f"records of older formats torn: {count} refused as a whole")


def test_records_of_nics_are_recognised(
    node: Node, capfd: pytest.CaptureFixture[str], figures: list[str]
) -> None:
    """`nic restore` removes them, with a warning that names the file; loading never raises."""
    folder, count = Path("/var/lib/cni/netkit/nics"), 0
    folder.mkdir(parents=True)
    path = folder / "lo.json"
    written: JSON = {
        "format": 1,
        "preparation": {"device": "lo", "role": "io_uring", "queues": [4, 5]},
        "instance": ["a boot", 1],
        "before": {"rss": "default"},
        "made": {"rss": [0, 1]},
        "complete": True,
    }
    with closing(Namespace.current()) as host:
        for how, text in torn(json.dumps(written).encode()):
            path.write_bytes(text)
            assert NicStore().load("lo") is None, how
            capfd.readouterr()
            assert not restore(host, "lo").changed
            assert str(path) in capfd.readouterr().err, how
            assert not path.exists(), how
            count += 1
    figures.append(f"records of NICs torn: {count}, removed by nic restore")
