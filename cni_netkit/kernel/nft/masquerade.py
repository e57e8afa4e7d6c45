"""Masquerading in nftables, spoken to over netlink (include/uapi/linux/netfilter/nf_tables.h).

What stands in the kernel, as `nft list table inet cni-netkit` shows it:

    map masquerade4 { type ipv4_addr : verdict; elements = { 10.1.0.2 : jump nk0123456789a } }
    map masquerade6 { type ipv6_addr : verdict }
    chain postrouting {
        type nat hook postrouting priority srcnat
        meta nfproto ipv4 ip saddr vmap @masquerade4
        meta nfproto ipv6 ip6 saddr vmap @masquerade6
    }
    chain nk0123456789a {        # one an attachment, named as its host device
        meta nfproto ipv4 ip saddr 10.1.0.2 ip daddr & 255.255.255.0 != 10.1.0.0
            ip daddr & 240.0.0.0 != 224.0.0.0 masquerade
    }

So a packet of one container among a thousand costs one look into a map, and every object of an
attachment is found by its name or its address, without a dump.
"""

import errno
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
    nft_chain_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_NONREC
from cni_netkit.spec.addresses import ip_interface, ip_network

TABLE = "cni-netkit"
BASE_CHAIN = "postrouting"
MAPS = {4: "masquerade4", 6: "masquerade6"}

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 1, 2, 10
HOOK_POSTROUTING, PRIORITY_SRCNAT = 4, 100
DATA_VERDICT = 0xFFFFFF00
TYPE_ADDRESS = {4: 7, 6: 8}  # the numbers that nft(8) shows as ipv4_addr, ipv6_addr
JUMP = -3
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

Interface = IPv4Interface | IPv6Interface
Expression = dict[str, Any]


def masquerade(socket: NetlinkSocket, chain: str, comment: str, addresses: Sequence[str]) -> None:
    """Masquerade what leaves the host from `addresses` ("10.1.0.2/24") for outside their networks.

    `chain` is made for it; it must not exist.
    """
    interfaces = [ip_interface(address) for address in addresses]

    def own() -> list[Ask]:
        return [
            _new_chain(chain, comment),
            *(_new_rule(chain, _masquerade_expressions(each)) for each in interfaces),
            *(_new_element(each, chain) for each in interfaces),
        ]

    try:
        return _transaction(socket, own())
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    try:
        return _transaction(socket, [*_skeleton(), *own()])
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
    # Another process made the table at this moment.
    return _transaction(socket, own())


def unmasquerade(socket: NetlinkSocket, chain: str, addresses: Iterable[str]) -> None:
    """Take back what `masquerade` made; what is gone already is passed over."""
    if not has_chain(socket, chain):
        return
    batch = [
        _delete_element(each)
        for each in map(ip_interface, addresses)
        if element_chain(socket, each) == chain
    ]
    batch += [_flush_chain(chain), _delete_chain(chain)]
    try:
        _transaction(socket, batch)
    except KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        # Addresses that the record does not know still point here: look for them all.
        stray = [
            _delete_element(ip_interface(key))
            for version in MAPS
            for key, target in elements(socket, version).items()
            if target == chain
        ]
        _transaction(socket, [*stray, _flush_chain(chain), _delete_chain(chain)])
    _remove_unused_skeleton(socket)


def has_chain(socket: NetlinkSocket, chain: str) -> bool:
    """Whether an attachment's chain exists."""
    return _get(socket, nft_chain_msg(), "CHAIN", chain, NFT_MSG_GETCHAIN) is not None


def chains(socket: NetlinkSocket) -> dict[str, str]:
    """Every attachment's chain, with its comment."""
    message = _message(nft_chain_msg(), [])
    return {
        answer.get_attr("NFTA_CHAIN_NAME"): _comment(answer)
        for answer in socket.dump("list the nftables chains", message, _type(NFT_MSG_GETCHAIN))
        if answer.get_attr("NFTA_CHAIN_TABLE") == TABLE
        and answer.get_attr("NFTA_CHAIN_NAME") != BASE_CHAIN
    }


def masqueraded(socket: NetlinkSocket, chain: str) -> int:
    """How many rules of an attachment's chain masquerade."""
    message = _message(nft_rule_msg(), [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain)])
    try:
        answers = socket.dump("list the nftables rules", message, _type(NFT_MSG_GETRULE))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return 0
        raise
    return sum(
        any(
            expression.get_attr("NFTA_EXPR_NAME") == "masq"
            for expression in answer.get_attr("NFTA_RULE_EXPRESSIONS") or ()
        )
        for answer in answers
        if answer.get_attr("NFTA_RULE_CHAIN") == chain
    )


def element_chain(socket: NetlinkSocket, address: Interface) -> str | None:
    """The chain that packets from `address` are sent to, if any."""
    message = _elements_message(address.version, [_key(address)])
    try:
        ((answer,),) = socket.ask(
            Ask("look up an nftables map entry", message, _type(NFT_MSG_GETSETELEM))
        )
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    (element,) = answer.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
    return _target(element)


def elements(socket: NetlinkSocket, version: int) -> dict[str, str | None]:
    """Every address of one family that is masqueraded, with its chain."""
    message = _message(
        nft_set_elem_list_msg(),
        [
            ("NFTA_SET_ELEM_LIST_TABLE", TABLE),
            ("NFTA_SET_ELEM_LIST_SET", MAPS[version]),
        ],
    )
    found: dict[str, str | None] = {}
    for answer in socket.dump("list an nftables map", message, _type(NFT_MSG_GETSETELEM)):
        for element in answer.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or ():
            value = bytes(element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE"))
            found[str(ip_interface(value).ip)] = _target(element)
    return found


def _remove_unused_skeleton(socket: NetlinkSocket) -> None:
    """Take the table away with the last attachment.

    The kernel refuses (EBUSY) if a map has an element or the table a chain again by then
    (NLM_F_NONREC), and a transaction is carried out as a whole or not at all.
    """
    table = _get(socket, nft_table_msg(), "TABLE", None, NFT_MSG_GETTABLE)
    if table is None or table.get_attr("NFTA_TABLE_USE") > 1 + len(MAPS):
        return
    batch = [_flush_chain(BASE_CHAIN)]
    batch += [_delete_map(name) for name in MAPS.values()]
    batch += [_delete_chain(BASE_CHAIN), _delete_table()]
    try:
        _transaction(socket, batch)
    except KernelError as error:
        if error.errno not in (errno.EBUSY, errno.ENOENT):
            raise


def _skeleton() -> list[Ask]:
    return [
        _change(nft_table_msg(), [("NFTA_TABLE_NAME", TABLE)], NFT_MSG_NEWTABLE),
        _change(
            nft_chain_msg(),
            [
                ("NFTA_CHAIN_TABLE", TABLE),
                ("NFTA_CHAIN_NAME", BASE_CHAIN),
                (
                    "NFTA_CHAIN_HOOK",
                    {
                        "attrs": [
                            ("NFTA_HOOK_HOOKNUM", HOOK_POSTROUTING),
                            ("NFTA_HOOK_PRIORITY", PRIORITY_SRCNAT),
                        ]
                    },
                ),
                ("NFTA_CHAIN_TYPE", "nat"),
            ],
            NFT_MSG_NEWCHAIN,
        ),
        *(_new_map(number, version) for number, version in enumerate(MAPS, start=1)),
        *(_new_rule(BASE_CHAIN, _lookup_expressions(version)) for version in MAPS),
    ]


def _new_map(number: int, version: int) -> Ask:
    attrs = [
        ("NFTA_SET_TABLE", TABLE),
        ("NFTA_SET_NAME", MAPS[version]),
        ("NFTA_SET_FLAGS", ("NFT_SET_MAP",)),
        ("NFTA_SET_KEY_TYPE", TYPE_ADDRESS[version]),
        ("NFTA_SET_KEY_LEN", SOURCE[version][1]),
        ("NFTA_SET_DATA_TYPE", DATA_VERDICT),
        ("NFTA_SET_DATA_LEN", 16),
        ("NFTA_SET_ID", number),
    ]
    return _change(nft_set_msg(), attrs, NFT_MSG_NEWSET)


def _new_chain(chain: str, comment: str) -> Ask:
    attrs = [
        ("NFTA_CHAIN_TABLE", TABLE),
        ("NFTA_CHAIN_NAME", chain),
        ("NFTA_CHAIN_USERDATA", {"value": comment}),
    ]
    return _change(nft_chain_msg(), attrs, NFT_MSG_NEWCHAIN)


def _new_rule(chain: str, expressions: Sequence[Expression]) -> Ask:
    attrs = [
        ("NFTA_RULE_TABLE", TABLE),
        ("NFTA_RULE_CHAIN", chain),
        ("NFTA_RULE_EXPRESSIONS", list(expressions)),
    ]
    return _change(nft_rule_msg(), attrs, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)


def _new_element(address: Interface, chain: str) -> Ask:
    verdict = {"attrs": [("NFTA_VERDICT_CODE", JUMP), ("NFTA_VERDICT_CHAIN", chain)]}
    data = ("NFTA_SET_ELEM_DATA", {"attrs": [("NFTA_DATA_VERDICT", verdict)]})
    message = _elements_message(address.version, [_key(address), data])
    return Ask(
        f"masquerade {address.ip}",
        message,
        _type(NFT_MSG_NEWSETELEM),
        NLM_F_CREATE | NLM_F_EXCL,
    )


def _delete_element(address: Interface) -> Ask:
    return Ask(
        f"stop masquerading {address.ip}",
        _elements_message(address.version, [_key(address)]),
        _type(NFT_MSG_DELSETELEM),
    )


def _flush_chain(chain: str) -> Ask:
    attrs = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain)]
    return _change(nft_rule_msg(), attrs, NFT_MSG_DELRULE, 0)


def _delete_chain(chain: str) -> Ask:
    attrs = [("NFTA_CHAIN_TABLE", TABLE), ("NFTA_CHAIN_NAME", chain)]
    return _change(nft_chain_msg(), attrs, NFT_MSG_DELCHAIN, 0)


def _delete_map(name: str) -> Ask:
    attrs = [("NFTA_SET_TABLE", TABLE), ("NFTA_SET_NAME", name)]
    return _change(nft_set_msg(), attrs, NFT_MSG_DELSET, NLM_F_NONREC)


def _delete_table() -> Ask:
    attrs = [("NFTA_TABLE_NAME", TABLE)]
    return _change(nft_table_msg(), attrs, NFT_MSG_DELTABLE, NLM_F_NONREC)


def _lookup_expressions(version: int) -> list[Expression]:
    return [
        *_is_family(version),
        _load(SOURCE[version]),
        _expression(
            "lookup",
            ("NFTA_LOOKUP_SET", MAPS[version]),
            ("NFTA_LOOKUP_SREG", REGISTER),
            ("NFTA_LOOKUP_DREG", VERDICT_REGISTER),
        ),
    ]


def _masquerade_expressions(address: Interface) -> list[Expression]:
    multicast = MULTICAST[address.version]
    return [
        *_is_family(address.version),
        _load(SOURCE[address.version]),
        _compare(EQUAL, address.ip.packed),
        *_destination_outside(address.network),
        *_destination_outside(multicast),
        _expression("masq"),
    ]


def _is_family(version: int) -> list[Expression]:
    return [
        _expression("meta", ("NFTA_META_DREG", REGISTER), ("NFTA_META_KEY", META_NFPROTO)),
        _compare(EQUAL, bytes([NFPROTO[version]])),
    ]


def _destination_outside(network: Any) -> list[Expression]:
    _, length = DESTINATION[network.version]
    return [
        _load(DESTINATION[network.version]),
        _expression(
            "bitwise",
            ("NFTA_BITWISE_SREG", REGISTER),
            ("NFTA_BITWISE_DREG", REGISTER),
            ("NFTA_BITWISE_LEN", length),
            ("NFTA_BITWISE_MASK", _value(network.netmask.packed)),
            ("NFTA_BITWISE_XOR", _value(bytes(length))),
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
        ("NFTA_CMP_DATA", _value(value)),
    )


def _value(value: bytes) -> Expression:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expression(name: str, *attrs: tuple[str, Any]) -> Expression:
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": list(attrs)})]}


def _key(address: Interface) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_KEY", _value(address.ip.packed))


def _target(element: Any) -> str | None:
    data = element.get_attr("NFTA_SET_ELEM_DATA")
    verdict = data.get_attr("NFTA_DATA_VERDICT") if data else None
    return verdict.get_attr("NFTA_VERDICT_CHAIN") if verdict else None


def _comment(answer: Any) -> str:
    return str(answer.get_attr("NFTA_CHAIN_USERDATA") or "")


def _elements_message(version: int, element: list[tuple[str, Any]]) -> Any:
    return _message(
        nft_set_elem_list_msg(),
        [
            ("NFTA_SET_ELEM_LIST_TABLE", TABLE),
            ("NFTA_SET_ELEM_LIST_SET", MAPS[version]),
            ("NFTA_SET_ELEM_LIST_ELEMENTS", [{"attrs": element}]),
        ],
    )


def _get(socket: NetlinkSocket, message: Any, kind: str, name: str | None, command: int) -> Any:
    attrs = [(f"NFTA_{kind}_NAME", name or TABLE)]
    if name:
        attrs.append((f"NFTA_{kind}_TABLE", TABLE))
    try:
        ((answer,),) = socket.ask(
            Ask(
                f"look up the nftables {kind.lower()} {name or TABLE}",
                _message(message, attrs),
                _type(command),
            )
        )
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return answer


def _change(
    message: Any,
    attrs: list[tuple[str, Any]],
    command: int,
    flags: int = NLM_F_CREATE | NLM_F_EXCL,
) -> Ask:
    return Ask(
        f"change the nftables table {TABLE}", _message(message, attrs), _type(command), flags
    )


def _transaction(socket: NetlinkSocket, batch: Sequence[Ask]) -> None:
    begin = nfgen_msg()
    begin["res_id"] = SUBSYSTEM
    end = nfgen_msg()
    end["res_id"] = SUBSYSTEM
    asked = f"change the nftables table {TABLE}"
    socket.ask(
        Ask(asked, begin, BATCH_BEGIN, acknowledged=False),
        *batch,
        Ask(asked, end, BATCH_END, acknowledged=False),
    )


def _message(message: Any, attrs: list[tuple[str, Any]]) -> Any:
    message["nfgen_family"] = NFPROTO_INET
    message["attrs"] = attrs
    return message


def _type(command: int) -> int:
    return SUBSYSTEM << 8 | command
