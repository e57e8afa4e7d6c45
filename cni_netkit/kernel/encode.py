"""Encoding of rtnetlink requests: a fixed header, then attributes (struct nlattr).

pyroute2 encodes the rest and decodes all answers; the requests of which every ADD sends a dozen are
packed here, in a tenth of the time (DESIGN.md, D-3). include/uapi/linux/netlink.h, rtnetlink.h.
"""

import struct
from ipaddress import ip_address

NLA = struct.Struct("=HH")
U8, U16, U32 = struct.Struct("=B"), struct.Struct("=H"), struct.Struct("=I")
IFINFOMSG = struct.Struct("=BxHiII")
IFADDRMSG = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return NLA.pack(NLA.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, U8.pack(value))


def u16(kind: int, value: int) -> bytes:
    """An attribute of two bytes."""
    return attribute(kind, U16.pack(value))


def u32(kind: int, value: int) -> bytes:
    """An attribute of four bytes."""
    return attribute(kind, U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """A string with its NUL."""
    return attribute(kind, value.encode() + b"\0")


def mac(kind: int, value: str) -> bytes:
    """A hardware address "02:00:00:00:00:01"."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def ip(kind: int, value: str) -> bytes:
    """An IP address."""
    return attribute(kind, ip_address(value).packed)


def link(*attributes: bytes, index: int = 0, flags: int = 0) -> bytes:
    """Struct ifinfomsg; the change mask is `flags`: they are set, others stay."""
    return IFINFOMSG.pack(0, 0, index, flags, flags) + b"".join(attributes)
