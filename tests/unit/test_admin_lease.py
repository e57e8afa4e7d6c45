"""cni-netkit lease: what is meant by a container, and how the command line is read."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import verbs
from cni_netkit.admin import lease
from cni_netkit.admin import list as attachments
from cni_netkit.attachment import Attachment
from cni_netkit.record import Record
from cni_netkit.spec.request import Request
from cni_netkit.state import Store
from tests.unit.given import record, refused, terminal
from tests.unit.test_admin import call
from tests.unit.test_admin_list import OUTCOME, STEPS

LONG = "4f5e6d7c8b9a0b1c2d3e4f5061728394"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Records of the command and the test alike."""
    monkeypatch.setattr(attachments, "ROOT", tmp_path)
    return Store(tmp_path)


def test_of_several_attachments_the_first_counts(store: Store) -> None:
    """Those that have the name that the runtime gave before others, then by name and network."""
    ordered = [
        (Attachment("z", "c1", "eth0"), "eth0"),
        (Attachment("a", "c1", "net1"), "net1"),
        (Attachment("b", "c1", "net1"), "net1"),
        (Attachment("z", "c1", "aa0"), "eth0"),
        (Attachment("a", "c1", "zc0"), "net1"),
    ]
    for attachment, cni_ifname in reversed(ordered):
        store.create(record(attachment, cni_ifname=cni_ifname))
    store.create(record(Attachment("z", "c1", "aaa"), added_to="eth0", cni_ifname="aaa"))
    store.create(record(Attachment("a", "c2", "eth0")))
    for attachment, _ in ordered:
        assert lease._target("c1").attachment == attachment
        store.remove(attachment)


@pytest.mark.parametrize("given", [LONG, LONG[:8], LONG[:31]])
def test_beginning_of_an_id(store: Store, given: str) -> None:
    """Eight characters are enough."""
    store.create(record(Attachment("net", LONG, "eth0")))
    store.create(record(Attachment("net", "5" + LONG, "eth0")))
    assert lease._target(given).attachment.container_id == LONG


@pytest.mark.parametrize("given", [LONG[:7], LONG[1:], f"{LONG}0", ""])
def test_what_is_no_beginning_of_an_id(store: Store, given: str) -> None:
    """Nor too short a one."""
    store.create(record(Attachment("net", LONG, "eth0")))
    with refused(3, f"no attachment of a container {given} is known"):
        lease._target(given)


def test_an_id_goes_before_the_beginning_of_others(store: Store) -> None:
    """Else a container whose id is the beginning of another's could not be named."""
    store.create(record(Attachment("net", f"{LONG}0", "eth0")))
    store.create(record(Attachment("net", LONG, "eth0")))
    assert lease._target(LONG).attachment.container_id == LONG


def test_ambiguous_beginning(store: Store) -> None:
    """Both are named."""
    for more in "12":
        store.create(record(Attachment("net", LONG + more, "eth0")))
    with refused(3, f"{LONG}1, {LONG}2"):
        lease._target(LONG)


OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--count", "2", "--queues", "8-15"): {"count": 2, "queues": "8-15"},
    ("--workload", "io_uring", "--flows", "none"): {"workload": "io_uring", "flows": "none"},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_keys_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """What is not given is not there, so that the configuration's defaults hold."""
    made = []

    def add(arguments: argparse.Namespace) -> Any:
        target = record(outcome={"addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]})
        made.append(lease._configuration(target, arguments))
        return target

    monkeypatch.setattr(lease, "add", add)
    assert call(monkeypatch, "lease", "add", "c1", "--device", "eth7", *options, "--json") == 0
    assert made == [
        {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "netkit",
            "pairing": "single",
            "ifName": "rxq0",
            "lease": {"device": "eth7", **OPTIONS[options]},
            "prevResult": {
                "cniVersion": "1.1.0",
                "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1"}],
                "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
            },
        }
    ]


def test_request_has_what_belongs_to_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its namespace, its CNI_IFNAME for GC, its CNI_ARGS for the pod's name."""
    asked: list[Request] = []
    monkeypatch.setattr(verbs, "add", asked.append)
    target = record(Attachment("net", "c1", "zc0"), arguments="K8S_POD_NAME=till-0")
    lease._attach(target, {"name": "net"})
    (request,) = asked
    assert (request.container_id, request.ifname) == ("c1", "eth0")
    assert (request.netns, request.added_to) == ("/run/netns/c1", "zc0")
    assert request.environment == {"CNI_ARGS": "K8S_POD_NAME=till-0"}
    assert request.arguments == {}


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback is what a report needs."""

    def fail(_arguments: argparse.Namespace) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(lease, "add", fail)
    with pytest.raises(ZeroDivisionError):
        call(monkeypatch, "lease", "add", "c1", "--device", "eth7")


def leased(*, flows: bool = False) -> Record:
    """What was added to a container."""
    steps = [STEPS[1], *([{"step": "flows"}] if flows else [])]
    added = Attachment("net", LONG, "rxq0")
    return record(added, steps=steps, outcome=OUTCOME, added_to="eth0")


Said = Callable[..., tuple[str, str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store) -> Said:
    """Have something added or removed, and read both outputs."""

    def carry_out(made: Record, action: str, *options: str) -> tuple[str, str]:
        monkeypatch.setattr(lease, action, lambda _arguments: made)
        assert call(monkeypatch, "lease", action, "c1", *options) == 0
        output, error = capsys.readouterr()
        return output, error

    return carry_out


TABLE = f"""rxq0 of container {LONG} on network net
device  index  queue  NIC   queue of the NIC
rxq0    2      1      eth7  5
rxq0    2      2      eth7  4
"""


@pytest.mark.parametrize(
    ("addresses", "rule"),
    [
        (["10.1.0.2/24", "fd00::2/64"], "flow-type tcp4 dst-ip 10.1.0.2 action 5"),
        (["fd00::2/64"], "flow-type tcp6 dst-ip fd00::2 action 5"),
        ([], "flow-type tcp4 dst-ip ADDRESS action 5"),
    ],
    ids=["both", "IPv6", "none"],
)
def test_queues_that_nothing_is_led_to(
    said: Said, store: Store, addresses: list[str], rule: str
) -> None:
    """What brings traffic there is told, with a command to type, apart from the table."""
    given = {"addresses": [{"address": each} for each in addresses]}
    store.create(record(Attachment("net", LONG, "eth0"), outcome=given, complete=True))
    store.create(record(Attachment("net", "another", "eth0"), outcome=OUTCOME, complete=True))
    output, error = said(leased(), "add", "--device", "eth7")
    assert output == TABLE
    _, command, _ = error.splitlines()
    assert command == f"    ethtool -N eth7 {rule}"
    for way in ("--flows address", "ethtool -X eth7"):
        assert way in error


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (leased(flows=True), []),
        (leased(), ["--flows", "none"]),
        (leased(), ["--json"]),
    ],
    ids=["rules", "not wanted", "a program"],
)
def test_who_needs_no_hint_gets_none(said: Said, made: Record, options: list[str]) -> None:
    """The NIC has rules; nobody wants any; a program reads it."""
    assert said(made, "add", "--device", "eth7", *options)[1] == ""


def test_removing_needs_no_hint(said: Said) -> None:
    """It shows what there was; of what was cut off that is nothing."""
    assert said(leased(), "remove") == (TABLE, "")
    half = record(Attachment("net", LONG, "rxq0"), added_to="eth0")
    output = f"rxq0 of container {LONG} on network net\nit had no queue yet\n"
    assert said(half, "remove") == (output, "")


def test_title_on_a_terminal(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """The container's id is as long as in `list`."""
    store.create(record(Attachment("net", LONG, "eth0"), complete=True))
    monkeypatch.setattr(lease, "remove", lambda _arguments: leased())
    screen = terminal(monkeypatch)
    assert call(monkeypatch, "lease", "remove", "c1") == 0
    assert screen.lines()[0] == f"rxq0 of container {LONG[:12]} on network net"
