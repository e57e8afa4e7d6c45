"""cni-netkit nic: the report on a NIC, with and without a role."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cni_netkit.admin import nic
from cni_netkit.kernel.model import Feature
from cni_netkit.nics import record
from cni_netkit.nics.record import NicRecord
from tests.unit.test_admin_list import documented, fields
from tests.unit.test_nics import NIC, RINGS, preparation

SPARED = [place % 8 for place in range(128)]
READY = replace(
    NIC,
    table=tuple(SPARED),
    ntuple=Feature(on=True, changeable=True),
    rings=replace(RINGS, data_split="on", hds_thresh=0),
)
RECORD = NicRecord(
    preparation(device="eth7"),
    ["boot", NIC.link.index],
    before={"rss": "default", "ntuple": "off", "tcpDataSplit": "off", "hdsThresh": 256},
    made={"rss": SPARED, "ntuple": "on", "tcpDataSplit": "on", "hdsThresh": 0},
    complete=True,
)


@pytest.fixture(autouse=True)
def _this_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "instance_of", lambda link: ["boot", link.index])


def by_key(report: dict[str, Any]) -> dict[str, Any]:
    """The settings of a report."""
    return {each["key"]: each for each in report["settings"]}


def test_without_a_role() -> None:
    """What it is like; nothing is wanted."""
    report = nic.Seen(NIC, None).report()
    assert (report["role"], report["ready"], report["queues"]) == (None, None, None)
    found = by_key(report)
    assert found["tcpDataSplit"]["found"] == "off"
    assert found["rss"]["foundText"] == "default"
    assert {each["wanted"] for each in report["settings"]} == {None}
    assert {each["right"] for each in report["settings"]} == {None}


def test_as_it_was_prepared() -> None:
    """Each setting is right, and what would be put back is told."""
    report = nic.Seen(READY, RECORD).report()
    assert (report["role"], report["ready"], report["queues"]) == (
        "io_uring",
        True,
        [*range(8, 16)],
    )
    found = by_key(report)
    assert {key for key, each in found.items() if each["right"]} == {
        *("rss", "ntuple", "xdp", "tcpDataSplit", "hdsThresh")
    }
    assert found["hdsThresh"]["before"] == 256
    assert found["rss"]["wantedText"] == "queues 0-7"
    assert found["channels"]["right"] is None


def test_what_is_no_longer_right() -> None:
    """The setting is named, and the NIC is not ready."""
    report = nic.Seen(replace(READY, table=(0, 8)), RECORD).report()
    assert not report["ready"]
    assert [key for key, each in by_key(report).items() if each["right"] is False] == ["rss"]


def test_cut_off() -> None:
    """Not ready, even where every setting is right."""
    report = nic.Seen(READY, replace(RECORD, complete=False)).report()
    assert (report["complete"], report["ready"]) == (False, False)


def test_a_record_of_another_device_counts_for_nothing() -> None:
    """It had the same name."""
    report = nic.Seen(READY, replace(RECORD, instance=["boot", 99])).report()
    assert report["role"] is None


def test_every_field_is_documented() -> None:
    """And there is none in the document that is not in the output."""
    made = {"nics": [nic.Seen(READY, RECORD).report()]}
    assert fields(json.loads(json.dumps(made))) == documented("nic")
