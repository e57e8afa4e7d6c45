"""cni-netkit gc: its command line, its list, its report. What it releases: tests/kernel/test_sweep.py."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import gc
from cni_netkit.admin import list as attachments
from cni_netkit.attachment import Attachment
from cni_netkit.state import Store
from tests.unit.given import record
from tests.unit.test_admin import call
from tests.unit.test_admin_list import OUTCOME, STEPS, documented, fields

ID = "3f2a9c51d0e4"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Records of the command and the test alike: one container on the network net."""
    made = Store(tmp_path / "records")
    monkeypatch.setattr(attachments, "ROOT", tmp_path / "records")
    monkeypatch.setattr(gc, "Store", lambda: made)
    made.create(record(Attachment("net", ID, "eth0"), complete=True))
    return made


def listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Any:
    """The one attachment, as a dry run has it."""
    assert call(monkeypatch, "gc", "--dry-run", "--json", *arguments) == 0
    (entry,) = json.loads(capsys.readouterr().out)["attachments"]
    return entry


def ended_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit status, also of a command line that cannot be meant."""
    try:
        return call(monkeypatch, *arguments)
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize(
    ("line", "due"),
    [
        (ID, False),
        (ID[:8], False),
        (f"  {ID}  POD ready", False),
        (ID[:7], None),
        ("another", None),
    ],
)
def test_who_is_on_the_list(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    store: Store,
    line: str,
    due: bool | None,
) -> None:
    """The first word of a line, the whole id or at least 8 characters; a list of none is refused."""
    path = tmp_path / "ids"
    path.write_text(f"CONTAINER\n\n{line}\n")
    options = ("--network", "net", "--valid", str(path))
    if due is None:
        assert ended_with(monkeypatch, "gc", *options) == 2
        said = capsys.readouterr().err
        assert f"--valid {path}: none of the 2 containers on the list is on network net" in said
        assert store.load(Attachment("net", ID, "eth0"))
    else:
        entry = listed(monkeypatch, capsys, *options)
        assert (entry["due"], entry["reason"]) == (due, "its container is on the list")


@pytest.mark.parametrize(("age", "due"), [(3600, True), (0, False)])
def test_list_on_standard_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: Store,
    age: int,
    due: bool,
) -> None:
    """It is as old as the command: what was attached a moment before may be missing in it."""
    other = record(Attachment("net", "another-one", "eth0"), complete=True)
    store.create(other)
    (path,) = (store._root / "net").glob("another-one:*")
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{ID}\n"))
    command = ("gc", "--dry-run", "--json", "--network", "net", "--valid", "-")
    assert call(monkeypatch, *command) == 0
    entries = json.loads(capsys.readouterr().out)["attachments"]
    assert {each["containerID"]: each["due"] for each in entries} == {ID: False, "another-one": due}


@pytest.mark.parametrize(
    ("content", "options", "status", "words"),
    [
        (ID, (), 2, "--valid wants --network: a list is of one network's containers"),
        ("", ("--network", "net"), 2, "none of the 0 containers on the list"),
        ('{"items": []}', ("--network", "net"), 2, "'{\"items\":' is no container's id"),
        (ID, ("--network", "*"), 2, "--network: '*' is no network's name"),
        (None, ("--network", "net"), 1, "read PATH: No such file or directory"),
    ],
)
def test_list_that_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    store: Store,
    content: str | None,
    options: tuple[str, ...],
    status: int,
    words: str,
) -> None:
    """Everything would be released then: nothing is."""
    path = tmp_path / "ids"
    if content is not None:
        path.write_text(content)
    assert ended_with(monkeypatch, "gc", "--valid", str(path), *options) == status
    output, said = capsys.readouterr()
    assert output == ""
    assert said.startswith("cni-netkit gc: ")
    assert words.replace("PATH", str(path)) in said
    assert store.load(Attachment("net", ID, "eth0"))


def test_every_field_is_documented(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    """And there is none in the document that is not in the output, but for those of list."""
    store.create(
        record(Attachment("net", "c2", "eth0"), steps=STEPS, outcome=OUTCOME, complete=True)
    )
    assert call(monkeypatch, "gc", "--dry-run", "--json") == 0
    told = fields(json.loads(capsys.readouterr().out))
    assert told - documented("list") - {"attachments[].leases"} == documented("gc")


def test_nothing_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    assert call(monkeypatch, "gc", "--network", "other") == 0
    assert capsys.readouterr() == ("there is no attachment\n", "")


def test_a_damaged_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    """It stays, and its file is named: whether its container is gone nobody can tell by it."""
    (path,) = (store._root / "net").glob(f"{ID}:*")
    path.write_text("null")
    assert call(monkeypatch, "gc") == 0
    assert f"kept 1: its record is damaged: {path}" in capsys.readouterr().out
    assert path.exists()


def test_what_a_newer_release_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    """It is told, and stays, with what was added to it; this release knows nothing but its name."""
    (path,) = (store._root / "net").glob(f"{ID}:*")
    path.write_text('{"format": 99}')
    store.create(record(Attachment("net", ID, "rxq0"), complete=True, added_to="eth0"))
    assert call(monkeypatch, "gc", "--json") == 0
    entries = json.loads(capsys.readouterr().out)["attachments"]
    newer = "a newer release made it"
    assert {each["ifname"]: (each["due"], each["reason"]) for each in entries} == {
        "eth0": (False, newer),
        "rxq0": (False, "a newer release made what it was added to"),
    }
    assert path.exists()
    assert call(monkeypatch, "gc") == 0
    assert f"kept 1: {newer}" in capsys.readouterr().out
