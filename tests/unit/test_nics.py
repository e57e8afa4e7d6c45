"""How NICs are to be prepared: the file, the command's words, and what differs from a role."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin.failure import Misuse
from cni_netkit.admin.options import checked
from cni_netkit.agent.nics import read
from cni_netkit.kernel.model import Channels, Feature, Rings
from cni_netkit.nics.settings import DEFAULT, differences, words
from cni_netkit.nics.state import NicState
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.lease import ranges
from cni_netkit.spec.nics import Preparation, validate_nics
from tests.unit.test_admin_leases import ETH7

IO_URING = {"device": "eth0", "role": "io_uring", "queues": "8-15"}
AF_XDP = {"device": "eth0", "role": "af_xdp", "queues": [6, 7]}


def preparation(**keys: Any) -> Preparation:
    """One that is valid."""
    return Preparation.model_validate({**IO_URING, **keys})


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"role": "dpdk"}, 'role: must be "io_uring" or "af_xdp" (found "dpdk")'),
        ({"queues": "8-"}, 'queues: "8-" is neither a queue nor a range'),
        ({"queues": []}, "queues: is empty"),
        ({"device": "a/b"}, "device: has"),
        ({"channels": 0}, "channels: must be a whole number from 1 to 65535 (found 0)"),
        ({"channels": 15}, "queues names queue 15, but channels is 15"),
        (
            {"ring": "512"},
            'ring: must be a whole number from 1 to 4294967295 (found the string "512")',
        ),
        ({"copy": True}, 'copy is for role "af_xdp"'),
        ({"copies": True}, "copies is not supported (did you mean copy?)"),
        ({"queues": None}, "queues is missing; it must be a list of queues [14, 15] or ranges"),
    ],
)
def test_faults_are_named_with_their_path(given: dict[str, Any], fault: str) -> None:
    """On the command line, and in the file, where it is error 7."""
    with pytest.raises(Misuse) as misuse:
        checked(Preparation, {**IO_URING, **given}, positional="device")
    assert fault in "; ".join(misuse.value.args)
    with pytest.raises(CNIError, match="is not valid") as caught:
        validate_nics({"nics": [{**IO_URING, **given}]}, "nics.json")
    assert caught.value.code == 7
    assert f"nics.0.{fault}" in caught.value.message or f"nics.0: {fault}" in caught.value.message


def test_a_nic_has_one_role() -> None:
    """Twice in the file is a fault, whichever roles."""
    with pytest.raises(CNIError, match="eth0 is there twice"):
        validate_nics({"nics": [IO_URING, AF_XDP]}, "nics.json")


def test_the_file_is_read_and_what_is_wrong_with_it_is_said(tmp_path: Path) -> None:
    """No file is no fault."""
    path = tmp_path / "nics.json"
    assert read(path) == ()
    path.write_text(json.dumps({"nics": [IO_URING, {**AF_XDP, "device": "eth1"}]}))
    assert [each.device for each in read(path)] == ["eth0", "eth1"]
    path.write_text("{")
    with pytest.raises(CNIError, match=r"nics\.json is no JSON"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CNIError, match="Is a directory"):
        read(path)


def test_the_command_is_the_one_that_does_it() -> None:
    """It stands in errors, to be typed."""
    made = preparation(role="af_xdp", queues=[9, 4, 5, 6], channels=10, ring=64, copy=True)
    assert made.command == (
        "cni-netkit nic prepare eth0 --role af_xdp --queues 4-6,9 --channels 10 --ring 64 --copy"
    )


def test_ranges() -> None:
    """As people write them."""
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([7, 1, 2, 3, 5, 2]) == "1-3,5,7"


RINGS = Rings(rx=512, rx_max=4096, data_split="off", hds_thresh=256, hds_thresh_max=1024)
NIC = NicState(
    link=replace(ETH7.link, rx_queues=16),
    channels=Channels(rx=0, tx=0, combined=16, rx_max=0, tx_max=0, combined_max=32),
    rings=RINGS,
    table=tuple(place % 16 for place in range(128)),
    ntuple=Feature(on=False, changeable=True),
    xdp="none",
    xdp_features=frozenset(),
)

Lacking = Callable[..., dict[str, tuple[Any, Any]]]


def lacking(of: Preparation, nic: NicState = NIC, explicit: tuple[str, ...] = ()) -> Any:
    """Found and wanted by key."""
    return {
        setting.key: (found, wanted) for setting, found, wanted in differences(of, nic, explicit)
    }


def test_what_io_uring_wants() -> None:
    """Header-data split on, threshold 0, ntuple on, the pool out of the RSS table."""
    spared = [place % 8 for place in range(128)]
    assert lacking(preparation()) == {
        "rss": (DEFAULT, spared),
        "ntuple": ("off", "on"),
        "tcpDataSplit": ("off", "on"),
        "hdsThresh": (256, 0),
    }


def test_what_is_right_is_not_touched() -> None:
    """A table that spares the pool stays, however it is made."""
    ready = replace(
        NIC,
        rings=replace(RINGS, data_split="on", hds_thresh=0),
        table=(3, 3, 1, 0),
        ntuple=Feature(on=True, changeable=False),
    )
    assert lacking(preparation(), ready, ("tcpDataSplit",)) == {}


def test_a_drivers_default_does_not_count_as_split() -> None:
    """Linux wants it set (hds_config); that it is on does not tell that."""
    on = replace(NIC, rings=replace(RINGS, data_split="on"))
    assert lacking(preparation(), on)["tcpDataSplit"] == ("on", "on")
    assert "tcpDataSplit" not in lacking(preparation(), on, ("tcpDataSplit",))


def test_what_the_driver_has_not_is_not_wanted() -> None:
    """No RSS, no ntuple filters, no threshold: then there is nothing to set."""
    plain = replace(
        NIC, table=None, ntuple=None, rings=replace(RINGS, hds_thresh=None, data_split="on")
    )
    assert lacking(preparation(), plain, ("tcpDataSplit",)) == {}
    fixed = replace(plain, ntuple=Feature(on=False, changeable=False))
    assert lacking(preparation(), fixed, ("tcpDataSplit",)) == {}


def test_what_af_xdp_wants() -> None:
    """Our program; header-data split is left until it is in the way."""
    assert lacking(preparation(role="af_xdp", queues="15")) == {
        "rss": (DEFAULT, [place % 15 for place in range(128)]),
        "ntuple": ("off", "on"),
        "xdp": ("none", "ours"),
    }


def test_sizes_only_where_asked_for() -> None:
    """Channels and rings."""
    assert lacking(preparation(channels=32, ring=1024))["channels"] == (16, 32)
    assert lacking(preparation(channels=32, ring=1024))["ring"] == (512, 1024)
    receive = Channels(rx=4, tx=4, combined=0, rx_max=16, tx_max=16, combined_max=0)
    assert lacking(preparation(channels=16), replace(NIC, channels=receive))["channels"] == (4, 16)


def test_a_table_for_people() -> None:
    """Which queues it has."""
    ((setting, found, wanted), *_) = differences(preparation(), NIC)
    assert words(setting, found) == "default"
    assert words(setting, wanted) == "queues 0-7"
