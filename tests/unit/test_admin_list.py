"""cni-netkit list, and how reports are shown."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import lease, output
from cni_netkit.admin import list as attachments
from cni_netkit.attachment import Attachment
from cni_netkit.record import FORMAT
from cni_netkit.state import Store
from tests.unit.given import record, terminal
from tests.unit.test_admin import call

DOCUMENT = Path(__file__).parents[2] / "docs" / "admin.md"

STEPS: list[dict[str, Any]] = [
    {
        "step": "device",
        "spec": {"kind": "netkit", "pairing": "pair", "name": "nk0123456789a"},
    },
    {"step": "leases", "nic": "eth7", "device": "eth0", "count": 2, "pool": [5, 4]},
]
OUTCOME = {
    "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd00::2/64"}],
    "leases": [[5, 1], [4, 2]],
    "container_index": 2,
}
ARGUMENTS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till-0;K8S_POD_UID=x"
LEASING = {
    "network": "net",
    "containerID": "c1",
    "ifname": "eth0",
    "podNamespace": "shop",
    "podName": "till-0",
    "addedTo": None,
    "netns": "/run/netns/c1",
    "deviceIndex": 2,
    "hostDevice": "nk0123456789a",
    "kind": "netkit",
    "pairing": "pair",
    "addresses": ["10.1.0.2/24", "fd00::2/64"],
    "leases": [
        {"nic": "eth7", "queue": 5, "deviceQueue": 1},
        {"nic": "eth7", "queue": 4, "deviceQueue": 2},
    ],
    "state": "complete",
}


def fields(report: Any, path: str = "") -> set[str]:
    """The paths of everything in a report that is neither an object nor a list of objects."""
    if isinstance(report, dict):
        return {each for key, value in report.items() for each in fields(value, f"{path}.{key}")}
    if isinstance(report, list) and report and isinstance(report[0], dict):
        return {each for entry in report for each in fields(entry, f"{path}[]")}
    return {path.removeprefix(".")}


def documented(command: str) -> set[str]:
    """The fields that docs/admin.md has for a command."""
    _, section = re.split(rf"^## cni-netkit {command}$", DOCUMENT.read_text(), flags=re.MULTILINE)
    table = section.partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Records of the command and the test alike."""
    monkeypatch.setattr(attachments, "ROOT", tmp_path)
    return Store(tmp_path)


def listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    assert call(monkeypatch, "list", "--json") == 0
    return json.loads(capsys.readouterr().out)["attachments"]


def test_an_attachment_with_all_it_can_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    store.create(record(steps=STEPS, outcome=OUTCOME, arguments=ARGUMENTS, complete=True))
    assert listed(monkeypatch, capsys) == [LEASING]


@pytest.mark.parametrize(("added_to", "words"), [("eth0", "eth0"), ("", "a namespace")])
def test_what_was_added(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: Store,
    added_to: str,
    words: str,
) -> None:
    """It says to what."""
    store.create(record(steps=STEPS, complete=True, added_to=added_to))
    assert listed(monkeypatch, capsys)[0]["addedTo"] == added_to
    assert call(monkeypatch, "list", "--wide") == 0
    assert f"netkit pair (added to {words})" in capsys.readouterr().out


def test_states(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    """Under way while its process lives, abandoned after, as a record without its end; and others'."""
    store.create(record(Attachment("a", "c1", "eth0")))
    store.create(record(Attachment("b", "c1", "eth0"), process=[os.getpid(), 1]))
    store.create(record(Attachment("c", "c1", "eth0"), complete=True))
    store.create(cut := record(Attachment("d", "c1", "eth0")))
    (path,) = (store._root / "d").iterdir()
    path.write_bytes(cut.dump()[:-9])
    store.create(record(Attachment("e", "c1", "eth0")))
    (path,) = (store._root / "e").iterdir()
    path.write_text(json.dumps({"format": FORMAT.number + 1}))
    store.create(record(Attachment("f", "c1", "eth0")))
    (path,) = (store._root / "f").iterdir()
    path.write_text("[]")
    found = listed(monkeypatch, capsys)
    states = {each["network"]: each["state"] for each in found}
    assert states == {
        "a": "under way",
        "b": "abandoned",
        "c": "complete",
        "d": "abandoned",
        "e": "of a newer release",
        "f": "damaged",
    }
    assert {each["kind"] for each in found} == {None}


def test_every_field_is_documented(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    """And there is none in the document that is not in the output."""
    store.create(record(steps=STEPS, outcome=OUTCOME, complete=True))
    assert fields({"attachments": listed(monkeypatch, capsys)}) == documented("list")


def test_piped_nothing_is_cut_or_coloured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store
) -> None:
    """One line an attachment, however long its names are."""
    container = "[red]" + "f" * 200
    given = {"steps": STEPS, "outcome": OUTCOME, "arguments": ARGUMENTS, "complete": True}
    store.create(record(Attachment("net", container, "eth0"), **given))
    assert call(monkeypatch, "list") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["container", "pod", "device"]
    assert line.split() == [
        *(container, "shop/till-0", "eth0", "10.1.0.2,", "fd00::2", "eth7:4-5", "complete"),
    ]
    assert call(monkeypatch, "list", "--wide") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["network", "container", "pod"]
    assert line.split() == [
        *("net", container, "shop/till-0", "eth0", "nk0123456789a", "netkit", "pair"),
        *("10.1.0.2/24,", "fd00::2/64", "eth7:4-5", "complete"),
    ]


TILL = "4f5e6d7c8b9a0b1c2d3e4f50617283944f5e6d7c8b9a0b1c2d3e4f5061728394"
DNS = "4f5e6d7c8b9a0c1c2d3e4f50617283944f5e6d7c8b9a0b1c2d3e4f5061728394"


def three_attachments(store: Store) -> None:
    """As of a node: long names, two addresses, ids that begin alike."""
    for container, pod, nic in (
        (TILL, "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till-0", "enp65s0f0np0"),
        (DNS, "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=coredns-5d78c9869d-7xkq2", "eth7"),
        ("netns-4026532999", "", "eth7"),
    ):
        steps = [STEPS[0], {**STEPS[1], "nic": nic}]
        given: dict[str, Any] = {"steps": steps, "outcome": OUTCOME, "arguments": pod}
        store.create(record(Attachment("net", container, "eth0"), **given, complete=True))


def test_on_80_columns(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Whole words in few columns; ids are as long as it takes to type them."""
    three_attachments(store)
    screen = terminal(monkeypatch)
    assert call(monkeypatch, "list") == 0
    assert screen.lines() == [
        "container         pod           device  addresses  leased queues     state",
        "4f5e6d7c8b9a0b    shop/till-0   eth0    10.1.0.2,  enp65s0f0np0:4-5  complete",
        "                                        fd00::2",
        "4f5e6d7c8b9a0c    kube-system/  eth0    10.1.0.2,  eth7:4-5          complete",
        "                  coredns-              fd00::2",
        "                  5d78c9869d-",
        "                  7xkq2",
        "netns-4026532999  -             eth0    10.1.0.2,  eth7:4-5          complete",
        "                                        fd00::2",
    ]


@pytest.mark.parametrize("columns", [80, 140, 200])
def test_wide(monkeypatch: pytest.MonkeyPatch, store: Store, columns: int) -> None:
    """Everything is whole and fits: in blocks, or in columns where there is room."""
    three_attachments(store)
    screen = terminal(monkeypatch, columns)
    assert call(monkeypatch, "list", "--wide") == 0
    lines = screen.lines()
    assert max(map(len, lines)) <= columns
    for container in (TILL, DNS, "netns-4026532999"):
        (line,) = (line for line in lines if container in line)
        assert (line == f"container      {container}") == (columns < 200)


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        ([TILL], [TILL[:12]]),
        ([TILL, DNS], [TILL[:14], DNS[:14]]),
        ([TILL, TILL[:12]], [TILL[:12], TILL[:13]]),
        ([TILL, TILL[:30]], [TILL[:30], TILL[:31]]),
        ([TILL, f"{TILL}0"], [TILL, f"{TILL}0"]),
        (["container-of-twenty-four", "c1"], ["c1", "container-of-twenty-four"]),
    ],
    ids=["alone", "alike", "a short one", "a beginning", "one more", "chosen by hand"],
)
def test_what_is_shown_of_an_id_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, store: Store, ids: list[str], shown: list[str]
) -> None:
    """It stands for this container and for no other."""
    for each in ids:
        store.create(record(Attachment("net", each, "eth0"), complete=True))
    terminal(monkeypatch)
    found = attachments.shown_ids(attachments.records())
    assert [found[each] for each in sorted(ids)] == shown
    for whole, short in found.items():
        if len(short) >= lease.ID_CHARACTERS:
            assert lease._target(short).attachment.container_id == whole


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, *, no_colour: str, coloured: bool
) -> None:
    """Unless the user wants none."""
    screen = terminal(monkeypatch, no_colour=no_colour)
    output.print_table(["state"], [["complete"]])
    assert ("\x1b[32mcomplete" in screen.getvalue()) == coloured


def test_without_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A node on which nothing was attached yet."""
    monkeypatch.setattr(attachments, "ROOT", tmp_path / "none")
    assert listed(monkeypatch, capsys) == []
    for option in ([], ["--wide"]):
        assert call(monkeypatch, "list", *option) == 0
        assert capsys.readouterr().out == "there is no attachment on this node\n"


def test_records_that_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Are not the same as none. (Root may read everything, but no folder where there is a file.)"""
    (tmp_path / "file").touch()
    monkeypatch.setattr(attachments, "ROOT", tmp_path / "file")
    assert call(monkeypatch, "list") == 1
    assert f"cni-netkit list: read {tmp_path}/file: Not a directory" in capsys.readouterr().err
