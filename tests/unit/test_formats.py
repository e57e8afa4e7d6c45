"""Formats of what is on disk, records of every one of them, and those of a newer release."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import claims
from cni_netkit import record as records
from cni_netkit.attachment import Attachment
from cni_netkit.formats import JSON, Format, Newer
from cni_netkit.nics import record as nic_records
from cni_netkit.plan import from_record
from cni_netkit.record import FORMAT, Record
from cni_netkit.state import NewerRecord, Store
from cni_netkit.steps.device import Device
from tests.unit.given import record, refused

FIRST, SECOND = Attachment("net", "c1", "eth0"), Attachment("net", "c2", "eth0")
KEPT = Path(__file__).parents[1] / "records"
"""A folder for each format, with the records of every example in `conf` that a release wrote."""

OLDER = sorted(KEPT.glob("attachments-*/*.json"))
NICS = sorted(KEPT.glob("nics-*/*.json"))
CLAIMS = sorted(KEPT.glob("claims-*/*.json"))

TWO = Format((lambda fields: {"b": fields["a"]},))


def test_written_and_read() -> None:
    """The number is beside the fields, and not one of them."""
    written = TWO.write({"b": 1})
    assert json.loads(written) == {"format": 2, "b": 1}
    assert TWO.read(written) == {"b": 1}


@pytest.mark.parametrize("given", [{"a": 1}, {"format": 1, "a": 1}])
def test_an_older_one_is_migrated(given: JSON) -> None:
    """Also one without a number, which is of the first format."""
    assert TWO.read(json.dumps(given).encode()) == {"b": 1}


def test_migrations_follow_each_other() -> None:
    """Each from the format that it is of."""
    three = Format((*TWO.migrations, lambda fields: {"c": fields["b"] + 1}))
    assert three.number == 3
    assert three.read(b'{"a": 1}') == three.read(b'{"format": 2, "b": 1}') == {"c": 2}


def test_a_newer_one_is_not_touched() -> None:
    """Whatever else is in it."""
    with pytest.raises(Newer) as newer:
        TWO.read(b'{"format": 7, "a": {}}')
    assert (newer.value.found, newer.value.known) == (7, 2)


@pytest.mark.parametrize(
    "given",
    [
        *("", "nul", "null", "[]", "5", '"a"', '{"a": 1', '{"format": 1}', "[" * 100_000),
        *(
            f'{{"format": {number}, "a": 1}}'
            for number in ("0", "-1", "true", '"2"', "1.0", "null")
        ),
    ],
)
def test_what_is_none_of_them(given: str) -> None:
    """ValueError, whatever it is."""
    with pytest.raises(ValueError, match=r".") as damaged:
        TWO.read(given.encode())
    assert not isinstance(damaged.value, Newer)


def test_every_older_format_is_kept() -> None:
    """So that the way from each of them is tested."""
    kept = {path.parent.name for path in OLDER}
    assert kept == {f"attachments-{number}" for number in range(1, FORMAT.number)}
    today = {f"nics-{number}" for number in range(1, nic_records.FORMAT.number + 1)}
    assert {path.parent.name for path in NICS} == today
    today = {f"claims-{number}" for number in range(1, claims.FORMAT.number + 1)}
    assert {path.parent.name for path in CLAIMS} == today


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.parent.name)
def test_what_a_release_wrote_of_a_claim_is_read(path: Path) -> None:
    """Every field is what it was."""
    old = json.loads(path.read_bytes())
    (read,) = claims.Claims(path.parent).of_pod(old["pod"])
    assert {**asdict(read), "format": old["format"]} == {**old, "shares": (*old["shares"],)}


@pytest.mark.parametrize("path", OLDER, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_a_release_wrote_is_read(path: Path) -> None:
    """The record as a whole; and what the device is like is what it was."""
    old = json.loads(path.read_bytes())
    read = Record.load(path.read_bytes())
    plan, outcome = from_record(read)
    assert [step.name for step in plan] == [step["step"] for step in old["steps"]]
    assert outcome.as_dict() == old["outcome"]
    assert vars(read.attachment) == old["attachment"]
    for key in ("cni_ifname", "netns", "netns_identity", "config", "path", "complete", "process"):
        assert getattr(read, key) == old[key]
    assert Record.load(read.dump()) == read


@pytest.mark.parametrize(
    "path",
    [path for path in OLDER if path.parent.name == "attachments-1"],
    ids=lambda path: path.stem,
)
def test_the_device_of_format_1(path: Path) -> None:
    """Every field is where it was, under the name of the end it is about."""
    flat = next(step for step in json.loads(path.read_bytes())["steps"] if step["step"] == "device")
    device = next(
        step for step in from_record(Record.load(path.read_bytes()))[0] if isinstance(step, Device)
    )
    spec = vars(device.spec)
    assert (device.host_name, device.container_name) == (flat["host_name"], flat["container_name"])
    assert (spec["peer_mac"] or spec["mac"]) == flat["mac"]
    same = flat.keys() - {"step", "host_name", "container_name", "mac", "addressed"}
    assert {key: spec[key] for key in same} == {key: flat[key] for key in same}
    assert device.addressed == flat["addressed"]


@pytest.mark.parametrize("pairing", ["pair", "single"])
def test_a_mac_address_of_format_1(pairing: str) -> None:
    """It is that of the container's end."""
    (path,) = KEPT.glob(f"attachments-1/{'11-l2-pair' if pairing == 'pair' else '30-*'}.eth0.json")
    old = json.loads(path.read_bytes())
    for step in old["steps"]:
        if step["step"] == "device":
            step["mac"] = "02:00:00:00:00:01"
    plan, _ = from_record(Record.load(json.dumps(old).encode()))
    (spec,) = [step.spec for step in plan if isinstance(step, Device)]
    expected = (None, "02:00:00:00:00:01")
    assert (spec.mac, spec.peer_mac) == (expected if pairing == "pair" else expected[::-1])


@pytest.mark.parametrize("path", NICS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_a_release_wrote_of_a_nic(path: Path) -> None:
    """With what it was like before."""
    old = json.loads(path.read_bytes())
    read = nic_records.NicStore(path.parent).load(path.stem)
    assert read is not None
    assert read.preparation.as_dict() == old["preparation"]
    for key in ("instance", "before", "made", "complete"):
        assert getattr(read, key) == old[key]


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which a newer release has written the record of the first of two."""
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(records, "FORMAT", Format((*FORMAT.migrations, lambda fields: fields)))
        store.create(record(FIRST))
    store.create(record(SECOND))
    return store


def test_a_newer_record_is_named_and_left(newer: Store, tmp_path: Path) -> None:
    """By load with what to do; a list of all has the others, and scan has both."""
    path = tmp_path / "net" / "c1:eth0.json"
    before = path.read_bytes()
    words = (str(FIRST), str(path), f"has format {FORMAT.number + 1}", "install the newer release")
    with refused(11, *words):
        newer.load(FIRST)
    with refused(103):
        newer.create(record(FIRST))
    assert [each.attachment for each in newer.all()] == [SECOND]
    first, second = newer.scan()
    assert isinstance(first, NewerRecord)
    assert isinstance(second, Record)
    assert (first.attachment, first.refusal.code) == (FIRST, 11)
    assert path.read_bytes() == before


def test_a_newer_record_of_a_nic(tmp_path: Path) -> None:
    """Error 11, and how to go on."""
    given: dict[str, Any] = {"format": nic_records.FORMAT.number + 1}
    (tmp_path / "eth7.json").write_text(json.dumps(given))
    with refused(11, "eth7 was prepared by a newer release", "install the newer release"):
        nic_records.NicStore(tmp_path).load("eth7")
