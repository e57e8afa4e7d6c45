"""Rules that bring flows to queues (ethtool(8): ntuple), which only the ioctl knows.

Struct ethtool_rxnfc and ethtool_rx_flow_spec of include/uapi/linux/ethtool.h.
"""

import errno
import struct
from collections.abc import Collection
from dataclasses import replace

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.ethtool.ioctl import EthtoolIoctl
from cni_netkit.kernel.model import FlowRule
from cni_netkit.kernel.uapi import (
    ETHTOOL_GRXCLSRLALL,
    ETHTOOL_GRXCLSRLCNT,
    ETHTOOL_GRXCLSRULE,
    ETHTOOL_SRXCLSRLDEL,
    ETHTOOL_SRXCLSRLINS,
    FLOW_RSS,
    RX_CLS_LOC_ANY,
    RX_CLS_LOC_SPECIAL,
    TCP_V4_FLOW,
    TCP_V6_FLOW,
    UDP_V4_FLOW,
    UDP_V6_FLOW,
)
from cni_netkit.spec.addresses import ip_address

RXNFC = struct.Struct("=IIQ168sI")
"""Command, flow type, data, struct ethtool_rx_flow_spec, number of rules or RSS context.

The locations of rules follow; without any, four bytes of padding (on 64 bit machines).
"""

FLOW_SPEC = struct.Struct("=I52s20s52s20s4xQI4x")
"""Flow type, values, further values, masks, further masks, ring, location."""

TCPIP4, TCPIP6 = struct.Struct("!4s4sHHB"), struct.Struct("!16s16sHHB")
"""Struct ethtool_tcpip4_spec, ethtool_tcpip6_spec: source, destination, ports, type of service."""

FLOW_TYPES = {
    ("tcp", 4): TCP_V4_FLOW,
    ("udp", 4): UDP_V4_FLOW,
    ("tcp", 6): TCP_V6_FLOW,
    ("udp", 6): UDP_V6_FLOW,
}
PROTOCOLS = {number: (protocol, version) for (protocol, version), number in FLOW_TYPES.items()}
NOTHING_MORE = bytes(20)
LISTING_ATTEMPTS = 5


def count(ioctl: EthtoolIoctl, asked: str, device: str) -> int:
    """How many rules a NIC has."""
    return _count(ioctl, asked, device)[0]


def rules(ioctl: EthtoolIoctl, asked: str, device: str) -> tuple[FlowRule, ...]:
    """The rules of a NIC that have our form."""
    count, _ = _count(ioctl, asked, device)
    locations, _ = _locations(ioctl, asked, device, count)
    found = []
    for location in locations:
        try:
            answer = ioctl.ask(asked, device, request(ETHTOOL_GRXCLSRULE, location=location))
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                continue  # somebody removed it meanwhile; drivers do not agree on the errno
            raise
        if rule := read(answer):
            found.append(rule)
    return tuple(found)


def insert(ioctl: EthtoolIoctl, asked: str, device: str, rule: FlowRule) -> int:
    """Insert a rule; its location.

    A driver that does not choose the location itself replaces what is there: two who insert at the
    same moment must be kept apart.
    """
    if rule.location is None:
        rule = replace(rule, location=_free_location(ioctl, asked, device))
    answer = ioctl.ask(asked, device, insertion(rule))
    spec = RXNFC.unpack_from(answer)[3]
    return int(FLOW_SPEC.unpack(spec)[6])


def remove(ioctl: EthtoolIoctl, asked: str, device: str, location: int) -> None:
    """Remove the rule at a location."""
    ioctl.ask(asked, device, request(ETHTOOL_SRXCLSRLDEL, location=location))


def request(command: int, *, location: int = 0, count: int = 0) -> bytes:
    """A request for the rule at a location, or with room for the locations of `count` rules."""
    spec = FLOW_SPEC.pack(0, b"", b"", b"", b"", 0, location)
    return RXNFC.pack(command, 0, 0, spec, count) + bytes(4 + 4 * count)


def insertion(rule: FlowRule) -> bytes:
    """The request for a rule that has its location."""
    flow_type, values, masks = _match(rule)
    if rule.context is not None:
        flow_type |= FLOW_RSS
    spec = FLOW_SPEC.pack(flow_type, values, b"", masks, b"", rule.queue or 0, rule.location)
    return RXNFC.pack(ETHTOOL_SRXCLSRLINS, 0, 0, spec, rule.context or 0) + bytes(4)


def read(answer: bytes) -> FlowRule | None:
    """The rule in an answer; None if we do not make such."""
    _, _, _, spec, context = RXNFC.unpack_from(answer)
    flow_type, values, more, masks, more_masks, ring, location = FLOW_SPEC.unpack(spec)
    kind = PROTOCOLS.get(flow_type & ~FLOW_RSS)
    has_context = bool(flow_type & FLOW_RSS)
    if kind is None or (more, more_masks) != (NOTHING_MORE, NOTHING_MORE):
        return None
    protocol, version = kind
    layout = TCPIP4 if version == 4 else TCPIP6
    _, destination, _, port, _ = layout.unpack_from(values)
    rule = FlowRule(
        protocol,
        str(ip_address(destination)),
        port=port or None,
        queue=None if has_context else ring,
        context=context if has_context else None,
        location=location,
    )
    if ring >> 32 or (has_context and ring):
        return None  # to a virtual function, to be dropped, or to an offset in the table
    _, ours, our_masks = _match(rule)
    return rule if (values, masks) == (_padded(ours), _padded(our_masks)) else None


def _match(rule: FlowRule) -> tuple[int, bytes, bytes]:
    """Flow type, values and masks: the destination address, and the port if there is one."""
    address = ip_address(rule.address)
    layout = TCPIP4 if address.version == 4 else TCPIP6
    size = len(address.packed)
    anywhere, whole = bytes(size), b"\xff" * size
    values = layout.pack(anywhere, address.packed, 0, rule.port or 0, 0)
    masks = layout.pack(anywhere, whole, 0, 0xFFFF if rule.port else 0, 0)
    return FLOW_TYPES[rule.protocol, address.version], values, masks


def _padded(data: bytes) -> bytes:
    return data.ljust(52, b"\0")


def _free_location(ioctl: EthtoolIoctl, asked: str, device: str) -> int:
    count, driver_chooses = _count(ioctl, asked, device)
    if driver_chooses:
        return RX_CLS_LOC_ANY
    taken, size = _locations(ioctl, asked, device, count)
    return highest_free(asked, taken, size)


def highest_free(asked: str, taken: Collection[int], size: int) -> int:
    """The highest free location of a table of `size`, as ethtool(8) chooses."""
    for location in range(size - 1, -1, -1):
        if location not in taken:
            return location
    raise KernelError(asked, errno.ENOSPC, f"all {size} places of the NIC's rule table are taken")


def _count(ioctl: EthtoolIoctl, asked: str, device: str) -> tuple[int, bool]:
    """How many rules there are, and whether the driver chooses a location by itself."""
    answer = RXNFC.unpack_from(ioctl.ask(asked, device, request(ETHTOOL_GRXCLSRLCNT)))
    return answer[4], bool(answer[2] & RX_CLS_LOC_SPECIAL)


def _locations(
    ioctl: EthtoolIoctl, asked: str, device: str, count: int
) -> tuple[tuple[int, ...], int]:
    """The locations that are taken, and the size of the table; `count` rules were there before."""
    for attempt in range(LISTING_ATTEMPTS):
        try:
            answer = ioctl.ask(asked, device, request(ETHTOOL_GRXCLSRLALL, count=count))
            break
        except KernelError as error:
            if error.errno != errno.EMSGSIZE or attempt == LISTING_ATTEMPTS - 1:
                raise  # another reason than that rules were added meanwhile
            count, _ = _count(ioctl, asked, device)
    _, _, size, _, count = RXNFC.unpack_from(answer)
    return struct.unpack_from(f"={count}I", answer, RXNFC.size), size & ~RX_CLS_LOC_SPECIAL
