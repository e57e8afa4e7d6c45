"""Receive-side scaling: the indirection table, and further contexts with tables of their own.

Struct ethtool_rxfh of include/uapi/linux/ethtool.h; net/ethtool/ioctl.c, ethtool_set_rxfh(). By
ioctl since that is what ethtool(8) -X sends, with which a test compares it.
"""

import errno
import struct
from collections.abc import Sequence

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.ethtool.ioctl import EthtoolIoctl
from cni_netkit.kernel.uapi import (
    ETH_RSS_HASH_NO_CHANGE,
    ETH_RXFH_CONTEXT_ALLOC,
    ETHTOOL_GRSSH,
    ETHTOOL_SRSSH,
    RXH_XFRM_NO_CHANGE,
)

RXFH = struct.Struct("=IIIIBB2x4x")
"""Command, context, entries of the table, bytes of the key, hash function, input transformation."""

NO_CONTEXT = 0xFFFFFFFE
"""A context that no driver has: contexts are numbered from 1."""


def indirection(
    ioctl: EthtoolIoctl, asked: str, device: str, context: int = 0
) -> tuple[int, ...] | None:
    """The table of a context: a queue for each entry. None where the driver has no table."""
    try:
        size = _size(ioctl, asked, device, context)
        if not size:
            return None
        answer = ioctl.ask(asked, device, _get(context, size) + bytes(4 * size))
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    return struct.unpack_from(f"={size}I", answer, RXFH.size)


def set_indirection(
    ioctl: EthtoolIoctl, asked: str, device: str, table: Sequence[int] | None
) -> None:
    """Set the table of context 0, or None: let the driver have its default."""
    ioctl.ask(asked, device, _set(0, table or ()))


def has_contexts(ioctl: EthtoolIoctl, asked: str, device: str) -> bool:
    """Whether the driver knows contexts: one that does misses (ENOENT) the one asked for."""
    try:
        _size(ioctl, asked, device, NO_CONTEXT)
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


def create_context(ioctl: EthtoolIoctl, asked: str, device: str, table: Sequence[int]) -> int:
    """Make a context with a table; its number."""
    answer = ioctl.ask(asked, device, _set(ETH_RXFH_CONTEXT_ALLOC, table))
    return int(RXFH.unpack_from(answer)[1])


def remove_context(ioctl: EthtoolIoctl, asked: str, device: str, context: int) -> None:
    """Remove a context that no rule uses."""
    ioctl.ask(asked, device, _set(context, ()))


def _size(ioctl: EthtoolIoctl, asked: str, device: str, context: int) -> int:
    return int(RXFH.unpack_from(ioctl.ask(asked, device, _get(context, 0)))[2])


def _get(context: int, size: int) -> bytes:
    return RXFH.pack(ETHTOOL_GRSSH, context, size, 0, 0, 0)


def _set(context: int, table: Sequence[int]) -> bytes:
    """No entry at all means the default (context 0), or the context's removal."""
    return RXFH.pack(
        ETHTOOL_SRSSH, context, len(table), 0, ETH_RSS_HASH_NO_CHANGE, RXH_XFRM_NO_CHANGE
    ) + struct.pack(f"={len(table)}I", *table)
