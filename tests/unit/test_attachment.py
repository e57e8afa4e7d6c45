"""Attachments and the names that follow from them (cni_netkit.attachment)."""

import dataclasses
import re

import pytest

from cni_netkit.attachment import ALIAS_BYTES, Attachment, bears, parse_alias

PLAIN = Attachment("net", "c1", "eth0")


@pytest.mark.parametrize(
    "attachment",
    [PLAIN, Attachment("n" * 200, "c" * 200, "x" * 15), Attachment("n", "c", "ü" * 7)],
)
def test_host_device(attachment: Attachment) -> None:
    """The host device's name is nk and 11 hexadecimal digits, which the kernel takes."""
    assert re.fullmatch(r"nk[0-9a-f]{11}", attachment.host_device)
    assert len(attachment.host_device) <= 15


def test_host_device_never_changes() -> None:
    """The name is a hash that a later version must find again; the ifb device has the same digits."""
    assert PLAIN.host_device == "nk26026bd18b7"
    assert PLAIN.ifb_device == "nb26026bd18b7"


@pytest.mark.parametrize(
    "other",
    [
        Attachment("net2", "c1", "eth0"),
        Attachment("net", "c2", "eth0"),
        Attachment("net", "c1", "eth1"),
        Attachment("netc", "1", "eth0"),
        Attachment("net", "c1e", "th0"),
    ],
)
def test_each_attachment_has_its_own_host_device(other: Attachment) -> None:
    """Network, container and interface name all count, and where one ends."""
    assert other.host_device != PLAIN.host_device


def test_alias() -> None:
    """The alias reads as the contract has it."""
    assert PLAIN.alias == "cni-netkit net c1 eth0"


@pytest.mark.parametrize(
    "attachment",
    [PLAIN, Attachment("a.b_c-d", "0" * 64, "eth0.100"), Attachment("n", "c", "ü" * 7)],
)
def test_alias_round_trip(attachment: Attachment) -> None:
    """An alias leads back to its attachment."""
    assert parse_alias(attachment.alias) == attachment


@pytest.mark.parametrize("length", [1, 100, 120, 225, 226, 240, 250, 400])
def test_alias_fits(length: int) -> None:
    """An alias is no longer than the kernel stores, and whole characters."""
    alias = Attachment("n" * length, "c" * length, "ü" * 7).alias
    assert len(alias.encode()) <= ALIAS_BYTES <= 250
    assert alias.startswith("cni-netkit n")


@pytest.mark.parametrize(
    "alias",
    [
        None,
        "",
        "eth0",
        "cni-netkit",
        "cni-netkit net c1",
        "cni-other net c1 eth0",
        " cni-netkit net c1",
        "CNI-NETKIT net c1 eth0",
    ],
)
def test_alias_of_others(alias: str | None) -> None:
    """What is no alias of ours leads to no attachment."""
    assert parse_alias(alias) is None


def test_alias_with_queues() -> None:
    """Which queues of which NIC, in the order of the device's own; it leads back all the same."""
    alias = PLAIN.alias_with("eth7", [7, 6, 12])
    assert alias == "cni-netkit net c1 eth0 eth7:7,6,12"
    assert parse_alias(alias) == PLAIN


@pytest.mark.parametrize("length", [1, 50, 100, 105, 106, 107, 108, 109, 110, 111, 112, 120, 300])
def test_alias_with_more_queues_than_fit(length: int) -> None:
    """No longer than the kernel stores; whole numbers, dots for the rest, or none at all."""
    attachment = Attachment("n" * length, "c" * length, "rxq0")
    queues = list(range(1023, 0, -1))
    alias = attachment.alias_with("ü0", queues)
    assert len(alias.encode()) <= 255
    assert bears(alias, attachment.alias)
    rest = alias.removeprefix(attachment.alias)
    if rest:
        *told, dots = rest.removeprefix(" ü0:").split(",")
        assert dots == "..."
        assert told == [str(number) for number in queues[: len(told)]]
        more = len(f",{queues[len(told)]}")
        assert len(alias.encode()) + more > 255, "one more would not fit"
    else:
        assert len(f"{attachment.alias} ü0:1023,...".encode()) > 255


@pytest.mark.parametrize(
    ("alias", "borne"),
    [
        (PLAIN.alias, True),
        (PLAIN.alias_with("eth0", [7]), True),
        (f"{PLAIN.alias}1", False),
        (f"{PLAIN.alias}1 eth0:7", False),
        (f"x{PLAIN.alias}", False),
        ("", False),
        (None, False),
    ],
)
def test_mark(alias: str | None, *, borne: bool) -> None:
    """It is an attachment's mark with its queues and without, and not that of a longer name."""
    assert bears(alias, PLAIN.alias) is borne


def test_in_words() -> None:
    """In an error text an attachment has all its names."""
    assert str(PLAIN) == "eth0 of container c1 on network net"


def test_frozen() -> None:
    """An attachment does not change."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.network = "other"  # type: ignore[misc]
