"""Attachments and the names that follow from them (cni_netkit.attachment)."""

import dataclasses
import re

import pytest

from cni_netkit.attachment import ALIAS_BYTES, Attachment, parse_alias

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
        "cni-netkit net c1 eth0 more",
        "cni-other net c1 eth0",
        " cni-netkit net c1",
        "CNI-NETKIT net c1 eth0",
    ],
)
def test_alias_of_others(alias: str | None) -> None:
    """What is no alias of ours leads to no attachment."""
    assert parse_alias(alias) is None


def test_in_words() -> None:
    """In an error text an attachment has all its names."""
    assert str(PLAIN) == "eth0 of container c1 on network net"


def test_frozen() -> None:
    """An attachment does not change."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.network = "other"  # type: ignore[misc]
