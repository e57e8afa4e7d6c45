"""cni-netkit leases: the kernel's queues and the records' names put together."""

import io
import json
import os
import sys
from typing import Any

import pytest

from cni_netkit.admin import leases
from cni_netkit.admin.list import shown_ids
from cni_netkit.attachment import Attachment
from cni_netkit.facts import Nic
from cni_netkit.kernel.model import Link, Queue
from cni_netkit.record import Record
from tests.unit.given import record, terminal
from tests.unit.test_admin import call
from tests.unit.test_admin_list import ARGUMENTS, STEPS, TILL, documented, fields


def link(name: str, index: int, *, up: bool = True) -> Link:
    """A NIC as the kernel describes it."""
    return Link(index, name, None, up, 1500, "02:00:00:00:00:07", None, None, 8)


ETH7 = Nic(
    link("eth7", index=3),
    (
        Queue(0),
        Queue(1, user="AF_XDP"),
        Queue(2, user="a dma-buf"),
        Queue(3, leased_index=8, leased_queue=4, netns_id=5, user="io_uring"),
        Queue(4, leased_index=2, leased_queue=2, netns_id=6),
        Queue(5, leased_index=2, leased_queue=1, netns_id=6),
    ),
)
DOWN = Nic(link("eth8", index=4, up=False), ())


def lessee(queues: list[list[int]], index: int = 2, container: str = "c1", **more: Any) -> Record:
    """A record of a complete attachment that leases queues of eth7."""
    outcome = {"leases": queues, "container_index": index}
    fields = {"steps": STEPS, "arguments": ARGUMENTS, "complete": True, "outcome": outcome}
    return record(Attachment("net", container, "eth0"), **fields | more)


def seats(*recorded: Record) -> dict[int, Any]:
    """The queues of eth7 in the report."""
    (nic,) = leases.report([ETH7], recorded)["nics"]
    return {queue["number"]: queue for queue in nic["queues"]}


def test_states_and_users() -> None:
    """A queue that is leased can be in use besides, through its lease."""
    found = {number: (each["state"], each["user"]) for number, each in seats().items()}
    assert found == {
        0: ("free", None),
        1: ("in use", "AF_XDP"),
        2: ("in use", "dma-buf"),
        3: ("leased", "io_uring"),
        4: ("leased", None),
        5: ("leased", None),
    }


def test_holders() -> None:
    """Where the record names the same device and queues; without record only what the kernel says."""
    found = seats(lessee([[5, 1], [4, 2]]))
    expected = {
        "network": "net",
        "containerID": "c1",
        "ifname": "eth0",
        "podNamespace": "shop",
        "podName": "till-0",
    }
    assert found[5]["lease"] == {
        "deviceIndex": 2,
        "deviceQueue": 1,
        "netnsID": 6,
        "attachment": expected,
    }
    assert found[4]["lease"]["attachment"] == expected
    assert found[3]["lease"] == {
        "deviceIndex": 8,
        "deviceQueue": 4,
        "netnsID": 5,
        "attachment": None,
    }
    assert found[1]["lease"] is None


@pytest.mark.parametrize(
    "stale",
    [
        lessee([[5, 1]], index=7),
        lessee([[5, 2]]),
        lessee([[3, 1]]),
        lessee([[5, 1]], steps=[{**STEPS[1], "nic": "eth9"}]),
    ],
    ids=["device", "device's queue", "NIC's queue", "NIC"],
)
def test_a_record_of_another_lease_holds_nothing(stale: Record) -> None:
    """A queue is not said to be somebody's because he once had it."""
    assert seats(stale)[5]["lease"]["attachment"] is None


def test_of_two_records_the_one_whose_container_lives() -> None:
    """Devices of two containers have the same index, and one of them is gone."""
    mine = os.stat("/proc/self/ns/net")
    alive: dict[str, Any] = {
        "netns": "/proc/self/ns/net",
        "netns_identity": [mine.st_dev, mine.st_ino],
    }
    gone = lessee([[5, 1]], container="gone")
    living = lessee([[5, 1]], container="living", **alive)
    for order in ((gone, living), (living, gone)):
        assert seats(*order)[5]["lease"]["attachment"]["containerID"] == "living"


def test_every_field_is_documented() -> None:
    """And there is none in the document that is not in the output."""
    made = leases.report([ETH7], [lessee([[5, 1]])])
    assert fields(json.loads(json.dumps(made))) == documented("leases")


def printed(monkeypatch: pytest.MonkeyPatch, *recorded: Record, columns: int = 0) -> list[str]:
    """The lines of the table, on a terminal or piped."""
    screen = terminal(monkeypatch, columns) if columns else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    leases._print(leases.report([ETH7, DOWN], recorded), shown_ids(recorded))
    return [" ".join(line.split()) for line in screen.getvalue().splitlines()]


def test_seat_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table."""
    assert printed(monkeypatch, lessee([[5, 1]])) == [
        "NIC queue state held by device:queue in use by",
        "eth7 0 free - - -",
        "eth7 1 in use - - AF_XDP",
        "eth7 2 in use - - dma-buf",
        "eth7 3 leased no record: a device in the namespace with id 5 index 8:4 io_uring",
        "eth7 4 leased no record: a device in the namespace with id 6 index 2:2 -",
        "eth7 5 leased shop/till-0 eth0:1 -",
        "eth8 - down - - -",
    ]


def test_seat_map_without_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a queue is told by the container's id, as `list` shows it."""
    held = lessee([[5, 1]], container=TILL, arguments="")
    assert f"eth7 5 leased container {TILL} eth0:1 -" in printed(monkeypatch, held)
    assert "eth7 5 leased container 4f5e6d7c8b9a eth0:1 -" in printed(monkeypatch, held, columns=80)


def test_without_a_nic(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and what counts as one."""
    monkeypatch.setattr(leases, "nics", lambda _host: [])
    monkeypatch.setattr(leases, "records", list)
    assert call(monkeypatch, "leases") == 0
    assert capsys.readouterr().out == (
        "there is no NIC here: no device of this network namespace has hardware behind it\n"
    )
    assert call(monkeypatch, "leases", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"nics": []}
