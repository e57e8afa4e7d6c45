"""rtnetlink messages: a fixed header, then attributes (struct nlattr).

Every ADD sends a dozen of them; packed here they take a tenth of the time (docs/decisions/D-3.md).
Follows include/uapi/linux/netlink.h and rtnetlink.h.
"""

import struct
import sys
from collections.abc import Iterator

from cni_netkit.spec.addresses import ip_address

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


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of one attribute after the other."""
    offset = 0
    while offset + NLA.size <= len(data):
        length, kind = NLA.unpack_from(data, offset)
        if length < NLA.size:
            break
        yield kind & 0x3FFF, data[offset + NLA.size : offset + length]
        offset += (length + 3) & ~3


class Attributes:
    """The attributes of an answer, by number; a missing one is None, or 0 as a number."""

    def __init__(self, data: bytes) -> None:
        self._values = dict(attributes(data))

    def __contains__(self, kind: int) -> bool:
        return kind in self._values

    def raw(self, kind: int) -> bytes | None:
        """The bytes as they are."""
        return self._values.get(kind)

    def number(self, kind: int) -> int | None:
        """An integer of any size, in the machine's byte order."""
        value = self._values.get(kind)
        return None if value is None else int.from_bytes(value, sys.byteorder)

    def text(self, kind: int) -> str | None:
        """A string."""
        value = self._values.get(kind)
        return None if value is None else value.rstrip(b"\0").decode(errors="replace")

    def mac(self, kind: int) -> str | None:
        """A hardware address."""
        value = self._values.get(kind)
        return value.hex(":") if value else None

    def ip(self, kind: int) -> str | None:
        """An IP address."""
        value = self._values.get(kind)
        return str(ip_address(value)) if value else None

    def nest(self, kind: int) -> "Attributes":
        """The attributes inside one; none if it is missing."""
        return Attributes(self._values.get(kind, b""))
