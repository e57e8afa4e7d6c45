"""What rules say: loads into a register, comparisons, what becomes of the packet.

As nft(8) compiles it; `nft --debug=netlink list ruleset` shows the same words. Follows NFTA_EXPR_*
and what is below it in include/uapi/linux/netfilter/nf_tables.h.
"""

from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Any

from cni_netkit.spec.addresses import ip_network

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
META_NFPROTO = 15
NETWORK_HEADER = 1
NOT_EQUAL, EQUAL = 1, 0
REGISTER = 1
VERDICT_REGISTER = 0

NFPROTO = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
SOURCE = {4: (12, 4), 6: (8, 16)}
DESTINATION = {4: (16, 4), 6: (24, 16)}
"""Offset and length, in bytes, of the addresses in the IP headers (RFC 791, RFC 8200)."""

MULTICAST = {4: ip_network("224.0.0.0/4"), 6: ip_network("ff00::/8")}

Expression = dict[str, Any]


def jump_by_source(version: int, map_: str) -> list[Expression]:
    """Send packets of an IP version to the chain that a map has for their source address."""
    return [
        *_is_family(version),
        _load(SOURCE[version]),
        _expression(
            "lookup",
            ("NFTA_LOOKUP_SET", map_),
            ("NFTA_LOOKUP_SREG", REGISTER),
            ("NFTA_LOOKUP_DREG", VERDICT_REGISTER),
        ),
    ]


def masquerade(address: IPv4Interface | IPv6Interface, except_: str) -> list[Expression]:
    """Masquerade what goes from an address to outside its network.

    Except multicast, and what goes to ranges in the set `except_`.
    """
    multicast = MULTICAST[address.version]
    return [
        *_is_family(address.version),
        _load(SOURCE[address.version]),
        _compare(EQUAL, address.ip.packed),
        *_destination_outside(address.network),
        *_destination_outside(multicast),
        _load(DESTINATION[address.version]),
        _expression(
            "lookup",
            ("NFTA_LOOKUP_SET", except_),
            ("NFTA_LOOKUP_SREG", REGISTER),
            ("NFTA_LOOKUP_FLAGS", ("NFT_LOOKUP_F_INV",)),
        ),
        _expression("masq"),
    ]


def _is_family(version: int) -> list[Expression]:
    return [
        _expression("meta", ("NFTA_META_DREG", REGISTER), ("NFTA_META_KEY", META_NFPROTO)),
        _compare(EQUAL, bytes([NFPROTO[version]])),
    ]


def _destination_outside(network: IPv4Network | IPv6Network) -> list[Expression]:
    _, length = DESTINATION[network.version]
    return [
        _load(DESTINATION[network.version]),
        _expression(
            "bitwise",
            ("NFTA_BITWISE_SREG", REGISTER),
            ("NFTA_BITWISE_DREG", REGISTER),
            ("NFTA_BITWISE_LEN", length),
            ("NFTA_BITWISE_MASK", data(network.netmask.packed)),
            ("NFTA_BITWISE_XOR", data(bytes(length))),
        ),
        _compare(NOT_EQUAL, network.network_address.packed),
    ]


def _load(place: tuple[int, int]) -> Expression:
    offset, length = place
    return _expression(
        "payload",
        ("NFTA_PAYLOAD_DREG", REGISTER),
        ("NFTA_PAYLOAD_BASE", NETWORK_HEADER),
        ("NFTA_PAYLOAD_OFFSET", offset),
        ("NFTA_PAYLOAD_LEN", length),
    )


def _compare(operation: int, value: bytes) -> Expression:
    return _expression(
        "cmp",
        ("NFTA_CMP_SREG", REGISTER),
        ("NFTA_CMP_OP", operation),
        ("NFTA_CMP_DATA", data(value)),
    )


def data(value: bytes) -> Expression:
    """A value as rules and map elements have it."""
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expression(name: str, *attrs: tuple[str, Any]) -> Expression:
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": list(attrs)})]}
