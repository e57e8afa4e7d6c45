"""nftables over netlink: one table's objects, made and deleted in transactions, looked up by name.

A transaction is carried out as a whole or not at all: the requests between two frames, in one send.
Follows include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nf_tables_api.c.
"""

import errno
import struct
from collections.abc import Sequence
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
    NFT_MSG_GETSET,
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
from cni_netkit.kernel.netlink.message import Attributes, attribute, nested, text
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.nft.expressions import Expression, data
from cni_netkit.kernel.uapi import (
    NFT_SET_ELEM_INTERVAL_END,
    NFT_SET_INTERVAL,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_SET_FLAGS,
    NFTA_SET_ID,
    NFTA_SET_KEY_LEN,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_SET_USERDATA,
    NFTNL_UDATA_SET_COMMENT,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_NONREC,
)

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFPROTO_INET = 1
NFGENMSG = struct.pack("=BBH", NFPROTO_INET, 0, 0)
BE32 = struct.Struct(">I")
HOOK_POSTROUTING, PRIORITY_SRCNAT = 4, 100
DATA_VERDICT = 0xFFFFFF00
TYPE_ADDRESS = {4: 7, 6: 8}  # the numbers that nft(8) shows as ipv4_addr, ipv6_addr
ADDRESS_BYTES = {4: 4, 6: 16}
VERDICT_BYTES = 16
JUMP = -3
INTERVALS_A_MESSAGE = 512
"""Their attribute has 16 bits for its length, and one of IPv6 takes 64 bytes."""

Interval = tuple[bytes, bytes | None]
"""First value, and the first behind it; None: there is none behind it."""


class Table:
    """A table of family inet, and what is asked of it over one socket."""

    def __init__(self, socket: NetlinkSocket, name: str) -> None:
        self._socket = socket
        self.name = name
        self._asked = f"change the nftables table {name}"

    def commit(self, *batch: Ask) -> None:
        """Carry out the requests, all of them or none. Raises `KernelError` for the first."""
        frames = []
        for kind in (BATCH_BEGIN, BATCH_END):
            frame = nfgen_msg()
            frame["res_id"] = SUBSYSTEM
            frames.append(Ask(self._asked, frame, kind, acknowledged=False))
        begin, end = frames
        self._socket.ask(begin, *batch, end)

    # Requests for a transaction

    def new(self) -> Ask:
        """The table itself."""
        return self._change(nft_table_msg(), [("NFTA_TABLE_NAME", self.name)], NFT_MSG_NEWTABLE)

    def new_nat_chain(self, name: str) -> Ask:
        """A chain that sees what leaves the host (hook postrouting), where sources are changed."""
        hook = [
            ("NFTA_HOOK_HOOKNUM", HOOK_POSTROUTING),
            ("NFTA_HOOK_PRIORITY", PRIORITY_SRCNAT),
        ]
        attrs = [
            ("NFTA_CHAIN_TABLE", self.name),
            ("NFTA_CHAIN_NAME", name),
            ("NFTA_CHAIN_HOOK", {"attrs": hook}),
            ("NFTA_CHAIN_TYPE", "nat"),
        ]
        return self._change(nft_chain_msg(), attrs, NFT_MSG_NEWCHAIN)

    def new_chain(self, name: str, comment: str) -> Ask:
        """A chain that is jumped to."""
        attrs = [
            ("NFTA_CHAIN_TABLE", self.name),
            ("NFTA_CHAIN_NAME", name),
            ("NFTA_CHAIN_USERDATA", {"value": comment}),
        ]
        return self._change(nft_chain_msg(), attrs, NFT_MSG_NEWCHAIN)

    def new_verdict_map(self, number: int, name: str, version: int) -> Ask:
        """A map from addresses of an IP version to verdicts; `number` is its own in the batch."""
        attrs = [
            ("NFTA_SET_TABLE", self.name),
            ("NFTA_SET_NAME", name),
            ("NFTA_SET_FLAGS", ("NFT_SET_MAP",)),
            ("NFTA_SET_KEY_TYPE", TYPE_ADDRESS[version]),
            ("NFTA_SET_KEY_LEN", ADDRESS_BYTES[version]),
            ("NFTA_SET_DATA_TYPE", DATA_VERDICT),
            ("NFTA_SET_DATA_LEN", VERDICT_BYTES),
            ("NFTA_SET_ID", number),
        ]
        return self._change(nft_set_msg(), attrs, NFT_MSG_NEWSET)

    def new_interval_set(self, number: int, name: str, version: int, comment: str) -> Ask:
        """A set of ranges of addresses of an IP version, if there is none of that name yet."""
        message = b"".join(
            (
                NFGENMSG,
                text(NFTA_SET_TABLE, self.name),
                text(NFTA_SET_NAME, name),
                _be32(NFTA_SET_FLAGS, NFT_SET_INTERVAL),
                _be32(NFTA_SET_KEY_TYPE, TYPE_ADDRESS[version]),
                _be32(NFTA_SET_KEY_LEN, ADDRESS_BYTES[version]),
                _be32(NFTA_SET_ID, number),
                attribute(NFTA_SET_USERDATA, _user_comment(comment)),
            )
        )
        return Ask(self._asked, message, _type(NFT_MSG_NEWSET), NLM_F_CREATE)

    def replace_intervals(self, name: str, intervals: Sequence[Interval]) -> list[Ask]:
        """Have these in a set, and nothing else."""
        of = (
            NFGENMSG
            + text(NFTA_SET_ELEM_LIST_TABLE, self.name)
            + text(NFTA_SET_ELEM_LIST_SET, name)
        )
        requests = [Ask(self._asked, of, _type(NFT_MSG_DELSETELEM))]
        for start in range(0, len(intervals), INTERVALS_A_MESSAGE):
            elements = map(_interval, intervals[start : start + INTERVALS_A_MESSAGE])
            message = of + nested(NFTA_SET_ELEM_LIST_ELEMENTS, *elements)
            requests.append(Ask(self._asked, message, _type(NFT_MSG_NEWSETELEM), NLM_F_CREATE))
        return requests

    def new_rule(self, chain: str, expressions: Sequence[Expression]) -> Ask:
        """A rule at the end of a chain."""
        attrs = [
            ("NFTA_RULE_TABLE", self.name),
            ("NFTA_RULE_CHAIN", chain),
            ("NFTA_RULE_EXPRESSIONS", list(expressions)),
        ]
        flags = NLM_F_CREATE | NLM_F_APPEND
        return self._change(nft_rule_msg(), attrs, NFT_MSG_NEWRULE, flags)

    def new_jump(self, asked: str, map_: str, key: bytes, chain: str) -> Ask:
        """An entry of a map that jumps to a chain."""
        verdict = {"attrs": [("NFTA_VERDICT_CODE", JUMP), ("NFTA_VERDICT_CHAIN", chain)]}
        target = ("NFTA_SET_ELEM_DATA", {"attrs": [("NFTA_DATA_VERDICT", verdict)]})
        message = self._element(map_, key, target)
        return Ask(asked, message, _type(NFT_MSG_NEWSETELEM), NLM_F_CREATE | NLM_F_EXCL)

    def delete_jump(self, asked: str, map_: str, key: bytes) -> Ask:
        """Take an entry out of a map."""
        return Ask(asked, self._element(map_, key), _type(NFT_MSG_DELSETELEM))

    def flush_chain(self, name: str) -> Ask:
        """Delete every rule of a chain."""
        attrs = [("NFTA_RULE_TABLE", self.name), ("NFTA_RULE_CHAIN", name)]
        return self._change(nft_rule_msg(), attrs, NFT_MSG_DELRULE, 0)

    def delete_chain(self, name: str) -> Ask:
        """Delete a chain without rules that nothing jumps to, else EBUSY."""
        attrs = [("NFTA_CHAIN_TABLE", self.name), ("NFTA_CHAIN_NAME", name)]
        return self._change(nft_chain_msg(), attrs, NFT_MSG_DELCHAIN, 0)

    def delete_map(self, name: str) -> Ask:
        """Delete a map without entries, else EBUSY."""
        return self._delete_set(name, NLM_F_NONREC)

    def delete_set(self, name: str) -> Ask:
        """Delete a set and what is in it; EBUSY while a rule looks it up."""
        return self._delete_set(name, 0)

    def delete(self) -> Ask:
        """Delete the table with nothing in it, else EBUSY."""
        attrs = [("NFTA_TABLE_NAME", self.name)]
        return self._change(nft_table_msg(), attrs, NFT_MSG_DELTABLE, NLM_F_NONREC)

    # What there is

    def objects(self) -> int | None:
        """How many chains and maps the table has; None where there is no table."""
        attrs = [("NFTA_TABLE_NAME", self.name)]
        asked = f"look up the nftables table {self.name}"
        found = self._get(asked, nft_table_msg(), attrs, NFT_MSG_GETTABLE)
        return None if found is None else int(found.get_attr("NFTA_TABLE_USE"))

    def sets(self) -> set[str]:
        """The names of the sets and maps; none where there is no table."""
        request = NFGENMSG + text(NFTA_SET_TABLE, self.name)
        found = self._socket.dump(
            "list the nftables sets", request, _type(NFT_MSG_GETSET), tolerated={errno.ENOENT}
        )
        names = (Attributes(answer[len(NFGENMSG) :]).text(NFTA_SET_NAME) for answer in found)
        return set(filter(None, names))

    def has_chain(self, name: str) -> bool:
        """Whether a chain exists."""
        attrs = [("NFTA_CHAIN_NAME", name), ("NFTA_CHAIN_TABLE", self.name)]
        asked = f"look up the nftables chain {name}"
        return self._get(asked, nft_chain_msg(), attrs, NFT_MSG_GETCHAIN) is not None

    def chains(self) -> dict[str, str]:
        """Every chain, with its comment."""
        message = _message(nft_chain_msg(), [])
        answers = self._socket.dump("list the nftables chains", message, _type(NFT_MSG_GETCHAIN))
        return {
            answer.get_attr("NFTA_CHAIN_NAME"): str(answer.get_attr("NFTA_CHAIN_USERDATA") or "")
            for answer in answers
            if answer.get_attr("NFTA_CHAIN_TABLE") == self.name
        }

    def rules(self, chain: str) -> list[list[str]]:
        """The rules of a chain, each by the names of its expressions; `lookup` with its set's."""
        attrs = [("NFTA_RULE_TABLE", self.name), ("NFTA_RULE_CHAIN", chain)]
        message = _message(nft_rule_msg(), attrs)
        try:
            answers = self._socket.dump("list the nftables rules", message, _type(NFT_MSG_GETRULE))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return []
            raise
        return [
            [_word(each) for each in answer.get_attr("NFTA_RULE_EXPRESSIONS") or ()]
            for answer in answers
            if answer.get_attr("NFTA_RULE_CHAIN") == chain
        ]

    def jump(self, map_: str, key: bytes) -> str | None:
        """The chain that a map jumps to for a key, if any."""
        asked = "look up an nftables map entry"
        try:
            ((answer,),) = self._socket.ask(
                Ask(asked, self._element(map_, key), _type(NFT_MSG_GETSETELEM))
            )
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        (element,) = answer.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
        return _target(element)

    def jumps(self, map_: str) -> dict[bytes, str | None]:
        """Every entry of a map."""
        message = _message(nft_set_elem_list_msg(), self._of(map_))
        answers = self._socket.dump("list an nftables map", message, _type(NFT_MSG_GETSETELEM))
        return {
            bytes(element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")): _target(
                element
            )
            for answer in answers
            for element in answer.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or ()
        }

    def _of(self, map_: str) -> list[tuple[str, Any]]:
        return [("NFTA_SET_ELEM_LIST_TABLE", self.name), ("NFTA_SET_ELEM_LIST_SET", map_)]

    def _element(self, map_: str, key: bytes, *more: tuple[str, Any]) -> Any:
        element = {"attrs": [("NFTA_SET_ELEM_KEY", data(key)), *more]}
        attrs = [*self._of(map_), ("NFTA_SET_ELEM_LIST_ELEMENTS", [element])]
        return _message(nft_set_elem_list_msg(), attrs)

    def _delete_set(self, name: str, flags: int) -> Ask:
        attrs = [("NFTA_SET_TABLE", self.name), ("NFTA_SET_NAME", name)]
        return self._change(nft_set_msg(), attrs, NFT_MSG_DELSET, flags)

    def _change(
        self,
        message: Any,
        attrs: list[tuple[str, Any]],
        command: int,
        flags: int = NLM_F_CREATE | NLM_F_EXCL,
    ) -> Ask:
        return Ask(self._asked, _message(message, attrs), _type(command), flags)

    def _get(self, asked: str, message: Any, attrs: list[tuple[str, Any]], command: int) -> Any:
        try:
            ((answer,),) = self._socket.ask(Ask(asked, _message(message, attrs), _type(command)))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return answer


def _interval(interval: Interval) -> bytes:
    """As nft(8) sends it: an element at its first value, and one that says it ends."""
    first, behind = interval
    element = nested(NFTA_LIST_ELEM, _key(first))
    if behind is not None:
        end = _be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
        element += nested(NFTA_LIST_ELEM, _key(behind), end)
    return element


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, BE32.pack(value))


def _user_comment(comment: str) -> bytes:
    """As nft(8) keeps it (struct nftnl_udata of libnftnl): type, length, value."""
    value = comment.encode() + b"\0"
    return bytes((NFTNL_UDATA_SET_COMMENT, len(value))) + value


def _key(value: bytes) -> bytes:
    return nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, value))


def _target(element: Any) -> str | None:
    target = element.get_attr("NFTA_SET_ELEM_DATA")
    verdict = target.get_attr("NFTA_DATA_VERDICT") if target else None
    return verdict.get_attr("NFTA_VERDICT_CHAIN") if verdict else None


def _word(expression: Any) -> str:
    name = str(expression.get_attr("NFTA_EXPR_NAME"))
    if name != "lookup":
        return name
    return f"{name} {expression.get_attr('NFTA_EXPR_DATA').get_attr('NFTA_LOOKUP_SET')}"


def _message(message: Any, attrs: list[tuple[str, Any]]) -> Any:
    message["nfgen_family"] = NFPROTO_INET
    message["attrs"] = attrs
    return message


def _type(command: int) -> int:
    return SUBSYSTEM << 8 | command
