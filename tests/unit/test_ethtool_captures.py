"""What is sent to a NIC is what the real ethtool sends, byte for byte.

The captures are of Debian's ethtool, `python -m tests.ethtool` renews them. Left out of the comparison
is only what the kernel does not read: where ethtool sends whatever lay in its memory.
"""

import errno
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.kernel import uapi
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.ethtool import family as ethtool
from cni_netkit.kernel.ethtool import rxfh, rxnfc
from cni_netkit.kernel.ethtool.family import Ethtool
from cni_netkit.kernel.model import FlowRule, Link
from cni_netkit.kernel.netlink import message
from tests.ethtool.fake import FakeNic

FILES = sorted((Path(__file__).parents[1] / "ethtool" / "captures").glob("*.json"))
CAPTURES = {path.stem: json.loads(path.read_text()) for path in FILES}
VERSIONS = pytest.mark.parametrize("version", CAPTURES)

NIC = Link(2, "eth0", None, True, 1500, None, None, None, 8)
TABLE = tuple(number % 6 for number in range(16))
PAIR_TABLE = tuple(6 + number % 2 for number in range(16))
NTUPLE, GRO = "rx-ntuple-filter", "rx-gro"

OURS: dict[str, Callable[[Ethtool], Any]] = {
    "-N eth0 flow-type tcp4 dst-ip 10.1.0.2 action 3": lambda tool: tool.insert_rule(
        NIC, FlowRule("tcp", "10.1.0.2", queue=3)
    ),
    "-N eth0 flow-type udp4 dst-ip 10.1.0.2 dst-port 9000 action 4": lambda tool: tool.insert_rule(
        NIC, FlowRule("udp", "10.1.0.2", 9000, queue=4)
    ),
    "-N eth0 flow-type tcp6 dst-ip fd00:1::2 action 5": lambda tool: tool.insert_rule(
        NIC, FlowRule("tcp", "fd00:1::2", queue=5)
    ),
    "-N eth0 flow-type udp6 dst-ip fd00:1::2 dst-port 53 action 6": lambda tool: tool.insert_rule(
        NIC, FlowRule("udp", "fd00:1::2", 53, queue=6)
    ),
    "-X eth0 equal 6": lambda tool: tool.set_indirection(NIC, TABLE),
    "-X eth0 context new start 6 equal 2": lambda tool: tool.create_context(NIC, PAIR_TABLE),
    "-N eth0 flow-type tcp4 dst-ip 10.1.0.3 dst-port 443 context 1": lambda tool: tool.insert_rule(
        NIC, FlowRule("tcp", "10.1.0.3", 443, context=1)
    ),
    "-N eth0 flow-type tcp6 dst-ip fd00:1::3 context 1": lambda tool: tool.insert_rule(
        NIC, FlowRule("tcp", "fd00:1::3", context=1)
    ),
    "-N eth0 flow-type tcp4 dst-ip 10.1.0.4 action 2 loc 9": lambda tool: tool.insert_rule(
        NIC, FlowRule("tcp", "10.1.0.4", queue=2, location=9)
    ),
    "-n eth0": lambda tool: tool.rules(NIC),
    "-N eth0 delete 9": lambda tool: tool.remove_rule(NIC, 9),
    "-N eth0 delete 11": lambda tool: tool.remove_rule(NIC, 11),
    "-N eth0 delete 10": lambda tool: tool.remove_rule(NIC, 10),
    "-X eth0 context 1 delete": lambda tool: tool.remove_context(NIC, 1),
    "-X eth0 default": lambda tool: tool.set_indirection(NIC, None),
    "-g eth0": lambda tool: tool.rings(NIC),
    "-G eth0 rx 1024": lambda tool: tool.set_rings(NIC, rx=1024),
    "-G eth0 tcp-data-split on": lambda tool: tool.set_rings(NIC, data_split="on"),
    "-G eth0 hds-thresh 0": lambda tool: tool.set_rings(NIC, hds_thresh=0),
    "-G eth0 rx 2048 tcp-data-split off hds-thresh 1": lambda tool: tool.set_rings(
        NIC, rx=2048, data_split="off", hds_thresh=1
    ),
    "-l eth0": lambda tool: tool.channels(NIC),
    "-L eth0 combined 5": lambda tool: tool.set_channels(NIC, combined=5),
    "-L eth0 rx 3": lambda tool: tool.set_channels(NIC, rx=3),
    "-K eth0 ntuple on": lambda tool: tool.set_feature(NIC, NTUPLE, True),
    "-K eth0 rx-gro off": lambda tool: tool.set_feature(NIC, GRO, False),
}


class FeatureLeft(Exception):
    """After a feature was set nobody tells that it is."""


class Edge:
    """Takes what is sent: ioctls for a fake NIC, and netlink messages, which nobody answers."""

    def __init__(self) -> None:
        self.nic = FakeNic("eth0")
        self.messages: list[bytes] = []

    def close(self) -> None:
        """Nothing is open."""

    def ask(self, *given: Any) -> Any:
        """Both edges are called so."""
        if len(given) == 1:
            self.messages.append(given[0].message)
            if given[0].type == uapi.GENL_ID_CTRL:
                return [[bytes(4) + message.u16(uapi.CTRL_ATTR_FAMILY_ID, 21)]]
            if given[0].message[0] == uapi.ETHTOOL_MSG_FEATURES_GET:
                raise FeatureLeft
            return [[bytes(4)]]
        asked, _, request = given
        try:
            return self.nic.ioctl(request)
        except OSError as error:
            raise KernelError(asked, error.errno or errno.EIO) from None


def sent() -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """For one command after the other, on one NIC, what we send for the same purpose."""
    edge = Edge()
    tool = Ethtool(edge, edge)  # type: ignore[arg-type]
    for command, operation in OURS.items():
        edge.nic.requests.clear()
        edge.messages.clear()
        with suppress(FeatureLeft):
            operation(tool)
        yield command, list(edge.nic.requests), list(edge.messages)


def meaningful(request: bytes, version: str) -> bytes:
    """A structure without what the kernel does not read; net/ethtool/ioctl.c, and the drivers."""
    command = request[0]
    keep: list[tuple[int, int]]
    if command in (uapi.ETHTOOL_GRSSH, uapi.ETHTOOL_SRSSH):
        # 6.1 is older than the input transformation; its 0 would turn off what the user has set.
        keep = [(0, 17), (18, len(request))] if version < "6.8" else [(0, len(request))]
    elif command == uapi.ETHTOOL_SRXCLSRLINS:
        keep = [(0, 4), (16, 188)]  # not: the flow type beside that of the rule, data, padding
    elif command == uapi.ETHTOOL_GRXCLSRLALL:
        keep = [(0, 4), (184, 188)]  # the room for rules
    elif command == uapi.ETHTOOL_GRXCLSRLCNT:
        keep = [(0, 4)]
    else:
        keep = [(0, 4), (176, 180)]  # the location
    return b"".join(request[start:end] for start, end in keep) + bytes([len(request) % 256])


def without_padding(data: bytes, header: int = 4) -> bytes:
    """A netlink message whose padding is zero: ethtool leaves there what was there."""
    whole = data[:header]
    rest = data[header:]
    while rest:
        length = int.from_bytes(rest[:2], "little")
        kind = int.from_bytes(rest[2:4], "little")
        value = rest[4:length]
        value = without_padding(value, 0) if kind & uapi.NLA_F_NESTED else value
        whole += rest[:4] + value + bytes(-length % 4)
        rest = rest[(length + 3) & ~3 :]
    return whole


def faults(version: str) -> list[str]:
    """The commands for which we do not send what ethtool of this version does."""
    known = {
        capture["command"].removeprefix("ethtool "): capture
        for capture in CAPTURES[version]["captures"]
    }
    found = []
    for command, structures, messages in sent():
        if command not in known:
            continue
        theirs = [meaningful(bytes.fromhex(each), version) for each in known[command]["ioctl"]]
        ours = [meaningful(each, version) for each in structures]
        said = [without_padding(bytes.fromhex(each)) for each in known[command]["netlink"]]
        # ethtool asks more than we: sizes and names that it wants to print.
        same = ours[-1:] == theirs[-1:] and is_part(ours, theirs)
        if not same or (said and said[-1] not in messages):
            found.append(command)
    return found


def is_part(ours: list[bytes], theirs: list[bytes]) -> bool:
    """Whether all we send is sent by ethtool, in this order."""
    remaining = iter(theirs)
    return all(each in remaining for each in ours)


@VERSIONS
def test_bytes_are_those_of_ethtool(version: str) -> None:
    """Every command that ethtool of this version knows."""
    assert faults(version) == []


def test_all_commands_are_captured() -> None:
    """The newest ethtool knows them all; what 6.1 knows not is the header-data split."""
    newest = CAPTURES[max(CAPTURES)]["captures"]
    assert [each["command"].removeprefix("ethtool ") for each in newest] == list(OURS)
    old = {each["command"].removeprefix("ethtool ") for each in CAPTURES["6.1"]["captures"]}
    missing = [command for command in OURS if command not in old]
    assert missing == [command for command in OURS if "hds" in command or "split" in command]


CONSTANTS = [
    *((rxnfc, name) for name in ("ETHTOOL_GRXCLSRLALL", "ETHTOOL_GRXCLSRLCNT")),
    *((rxnfc, name) for name in ("ETHTOOL_GRXCLSRULE", "ETHTOOL_SRXCLSRLDEL")),
    *((rxnfc, name) for name in ("ETHTOOL_SRXCLSRLINS", "FLOW_RSS")),
    *((rxfh, name) for name in ("ETHTOOL_SRSSH", "ETH_RSS_HASH_NO_CHANGE")),
    *((rxfh, name) for name in ("ETH_RXFH_CONTEXT_ALLOC", "RXH_XFRM_NO_CHANGE")),
    *(
        (uapi, f"ETHTOOL_{name}")
        for name in (
            *("MSG_FEATURES_SET", "MSG_RINGS_GET", "MSG_RINGS_SET"),
            *("MSG_CHANNELS_GET", "MSG_CHANNELS_SET"),
            *("A_HEADER", "A_HEADER_DEV_NAME", "A_HEADER_FLAGS", "FLAG_COMPACT_BITSETS"),
            *("A_RINGS_RX", "A_RINGS_TCP_DATA_SPLIT", "A_RINGS_HDS_THRESH"),
            *("A_CHANNELS_RX_COUNT", "A_CHANNELS_COMBINED_COUNT"),
            *("A_FEATURES_WANTED", "A_BITSET_BITS", "A_BITSET_BITS_BIT"),
            *("A_BITSET_BIT_NAME", "A_BITSET_BIT_VALUE"),
        )
    ),
    *((ethtool, name) for name in ("ETHTOOL_GENL_VERSION", "NLA_F_NESTED")),
]


@pytest.mark.parametrize(
    ("module", "name"), CONSTANTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_another_constant_is_noticed(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Each number in the builders matters to the comparison."""
    value = getattr(module, name)
    monkeypatch.setattr(module, name, value >> 1 if value > 1 else value ^ 1)
    assert noticed()


ALIKE = {("RXNFC", 1), ("RXFH", 3)}
"""0 and 0: flow type and data beside the rule; no key, and no other hash function."""


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("RXNFC", "=IIQ168sI"),
        ("FLOW_SPEC", "=I52s20s52s20s4xQI4x"),
        ("TCPIP4", "!4s4sHHB"),
        ("TCPIP6", "!16s16sHHB"),
        ("RXFH", "=IIIIBB2x4x"),
    ],
)
def test_another_order_of_fields_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, layout: str
) -> None:
    """Any two neighbouring fields of a structure, exchanged, are noticed; alike ones by their values."""
    module = rxfh if name == "RXFH" else rxnfc
    assert getattr(module, name).format == layout

    class Exchanged:
        """The structure with the values of two fields exchanged."""

        def __init__(self, original: Any, first: int) -> None:
            self.original, self.first = original, first
            self.size = original.size

        def pack(self, *values: Any) -> bytes:
            """Exchanged, where the types allow it."""
            mixed = list(values)
            first = self.first
            mixed[first], mixed[first + 1] = mixed[first + 1], mixed[first]
            try:
                return bytes(self.original.pack(*mixed))
            except Exception:  # a number in place of bytes: nobody would miss that
                return bytes(self.size)

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.original, attribute)

    original = getattr(module, name)
    fields = len(original.unpack(bytes(original.size)))
    for first in range(fields - 1):
        if (name, first) in ALIKE:
            continue
        monkeypatch.setattr(module, name, Exchanged(original, first))
        assert noticed(), f"fields {first} and {first + 1} of {name}"


@VERSIONS
def test_every_byte_counts(version: str) -> None:
    """A bit turned over in any byte that the kernel reads makes the comparison fail."""
    left_out = set()
    for command, structures, _ in sent():
        for structure in structures[-1:]:
            for place in range(len(structure)):
                changed = bytearray(structure)
                changed[place] ^= 1
                if meaningful(bytes(changed), version) == meaningful(structure, version):
                    left_out.add((command.split()[0] + command.split()[-2], structure[0], place))
    inserted = {place for _, command, place in left_out if command == uapi.ETHTOOL_SRXCLSRLINS}
    assert inserted == {*range(4, 16), *range(188, 192)}
    tables = {place for _, command, place in left_out if command == uapi.ETHTOOL_SRSSH}
    assert tables == (set() if version != "6.1" else {17})


def noticed() -> bool:
    """Whether the comparison with the newest ethtool fails, or it does not even come to it."""
    try:
        return bool(faults(max(CAPTURES)))
    except (KernelError, OSError, AssertionError, ValueError, struct.error):
        return True
