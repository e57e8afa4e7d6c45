"""What ethtool(8) sees and sets of a NIC: rings, channels, features, RSS, rules for flows.

Rings, channels and features go by the generic netlink family "ethtool"
(Documentation/netlink/specs/ethtool.yaml), RSS and rules by ioctl (`rxfh`, `rxnfc`).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from cni_netkit.kernel import uapi
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.ethtool import rxfh, rxnfc
from cni_netkit.kernel.ethtool.ioctl import EthtoolIoctl
from cni_netkit.kernel.model import Channels, Feature, FlowRule, Link, Rings
from cni_netkit.kernel.netlink import message
from cni_netkit.kernel.netlink.message import Attributes
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import (
    CTRL_ATTR_FAMILY_ID,
    CTRL_ATTR_FAMILY_NAME,
    CTRL_CMD_GETFAMILY,
    ETHTOOL_GENL_NAME,
    ETHTOOL_GENL_VERSION,
    ETHTOOL_TCP_DATA_SPLIT,
    GENL_ID_CTRL,
    NLA_F_NESTED,
)


class Ethtool:
    """The NICs of one namespace. Where a driver has no such thing at all, the answer is None."""

    def __init__(self, netlink: NetlinkSocket, ioctl: EthtoolIoctl) -> None:
        self._netlink = netlink
        self._ioctl = ioctl
        self._number = 0

    def close(self) -> None:
        """Close the socket that nobody else has."""
        self._ioctl.close()

    # Rings and channels

    def rings(self, nic: Link) -> Rings | None:
        """The receive rings."""
        asked = f"look up the rings of {nic.name}"
        found = self._get(asked, nic, uapi.ETHTOOL_MSG_RINGS_GET)
        if found is None:
            return None
        split = found.number(uapi.ETHTOOL_A_RINGS_TCP_DATA_SPLIT) or 0
        return Rings(
            rx=found.number(uapi.ETHTOOL_A_RINGS_RX) or 0,
            rx_max=found.number(uapi.ETHTOOL_A_RINGS_RX_MAX) or 0,
            data_split=ETHTOOL_TCP_DATA_SPLIT[split],
            hds_thresh=found.number(uapi.ETHTOOL_A_RINGS_HDS_THRESH),
            hds_thresh_max=found.number(uapi.ETHTOOL_A_RINGS_HDS_THRESH_MAX),
        )

    def set_rings(
        self,
        nic: Link,
        *,
        rx: int | None = None,
        data_split: str | None = None,
        hds_thresh: int | None = None,
    ) -> None:
        """Set what is given, in one request."""
        words, attributes = [], []
        if rx is not None:
            words.append(f"receive rings of {nic.name} to {rx}")
            attributes.append(message.u32(uapi.ETHTOOL_A_RINGS_RX, rx))
        if data_split is not None:
            words.append(f"header-data split of {nic.name} to {data_split}")
            number = ETHTOOL_TCP_DATA_SPLIT.index(data_split)
            attributes.append(message.u8(uapi.ETHTOOL_A_RINGS_TCP_DATA_SPLIT, number))
        if hds_thresh is not None:
            words.append(f"header-data split threshold of {nic.name} to {hds_thresh}")
            attributes.append(message.u32(uapi.ETHTOOL_A_RINGS_HDS_THRESH, hds_thresh))
        self._set(words, nic, uapi.ETHTOOL_MSG_RINGS_SET, attributes)

    def channels(self, nic: Link) -> Channels | None:
        """How many channels there are, and can be."""
        asked = f"look up the channels of {nic.name}"
        found = self._get(asked, nic, uapi.ETHTOOL_MSG_CHANNELS_GET)
        if found is None:
            return None
        return Channels(
            rx=found.number(uapi.ETHTOOL_A_CHANNELS_RX_COUNT) or 0,
            tx=found.number(uapi.ETHTOOL_A_CHANNELS_TX_COUNT) or 0,
            combined=found.number(uapi.ETHTOOL_A_CHANNELS_COMBINED_COUNT) or 0,
            rx_max=found.number(uapi.ETHTOOL_A_CHANNELS_RX_MAX) or 0,
            tx_max=found.number(uapi.ETHTOOL_A_CHANNELS_TX_MAX) or 0,
            combined_max=found.number(uapi.ETHTOOL_A_CHANNELS_COMBINED_MAX) or 0,
        )

    def set_channels(
        self, nic: Link, *, rx: int | None = None, combined: int | None = None
    ) -> None:
        """Set the numbers that are given, in one request."""
        words, attributes = [], []
        if rx is not None:
            words.append(f"receive channels of {nic.name} to {rx}")
            attributes.append(message.u32(uapi.ETHTOOL_A_CHANNELS_RX_COUNT, rx))
        if combined is not None:
            words.append(f"combined channels of {nic.name} to {combined}")
            attributes.append(message.u32(uapi.ETHTOOL_A_CHANNELS_COMBINED_COUNT, combined))
        self._set(words, nic, uapi.ETHTOOL_MSG_CHANNELS_SET, attributes)

    # Features

    def feature(self, nic: Link, name: str) -> Feature | None:
        """A feature by the kernel's name for it ("rx-ntuple-filter").

        None: the kernel knows none of that name, or it is off and the driver cannot have it on.
        """
        found = self._features(nic).get(name)
        return found if found is not None and (found.on or found.changeable) else None

    def set_feature(self, nic: Link, name: str, on: bool) -> None:
        """Switch a feature. Raises `KernelError` also where the driver left it as it was."""
        asked = f"turn the feature {name} of {nic.name} {'on' if on else 'off'}"
        bit = message.nested(
            uapi.ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED,
            message.text(uapi.ETHTOOL_A_BITSET_BIT_NAME, name),
            message.attribute(uapi.ETHTOOL_A_BITSET_BIT_VALUE, b"") if on else b"",
        )
        wanted = message.nested(
            uapi.ETHTOOL_A_FEATURES_WANTED | NLA_F_NESTED,
            message.nested(uapi.ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, bit),
        )
        # A compact answer, as ethtool(8) asks for: names of what changed would be of no use.
        request = _request(
            uapi.ETHTOOL_MSG_FEATURES_SET,
            nic,
            message.u32(uapi.ETHTOOL_A_HEADER_FLAGS, uapi.ETHTOOL_FLAG_COMPACT_BITSETS),
        )
        self._netlink.ask(Ask(asked, request + wanted, self._family))
        # The kernel acknowledges also what a driver (or another feature) prevents.
        found = self._features(nic).get(name)
        if found is None or found.on != on:
            left = "the driver left it as it was"
            raise KernelError(asked, errno.EOPNOTSUPP, left)

    # Receive-side scaling

    def indirection(self, nic: Link, context: int = 0) -> tuple[int, ...] | None:
        """The RSS table of a context: a queue for each entry."""
        of = f" context {context}" if context else ""
        asked = f"look up the RSS table of {nic.name}{of}"
        return rxfh.indirection(self._ioctl, asked, nic.name, context)

    def set_indirection(self, nic: Link, table: Sequence[int] | None) -> None:
        """Set the RSS table; None: let the driver have its default."""
        if table is None:
            asked = f"reset the RSS table of {nic.name}"
        else:
            asked = f"set the RSS table of {nic.name} to the queues {_queues(table)}"
        rxfh.set_indirection(self._ioctl, asked, nic.name, table)

    def contexts(self, nic: Link) -> dict[int, tuple[int, ...]] | None:
        """The table of every RSS context but 0."""
        asked = f"list the RSS contexts of {nic.name}"
        if not rxfh.has_contexts(self._ioctl, asked, nic.name):
            return None
        request = _request(uapi.ETHTOOL_MSG_RSS_GET, nic)
        found = {}
        for answer in self._netlink.dump(asked, request, self._family):
            attributes = Attributes(answer[4:])
            if context := attributes.number(uapi.ETHTOOL_A_RSS_CONTEXT):
                table = attributes.raw(uapi.ETHTOOL_A_RSS_INDIR) or b""
                found[context] = tuple(memoryview(table).cast("I"))
        return found

    def create_context(self, nic: Link, table: Sequence[int]) -> int:
        """Make an RSS context; its number."""
        asked = f"create an RSS context of {nic.name} over the queues {_queues(table)}"
        return rxfh.create_context(self._ioctl, asked, nic.name, table)

    def remove_context(self, nic: Link, context: int) -> None:
        """Remove an RSS context."""
        asked = f"remove the RSS context {context} of {nic.name}"
        rxfh.remove_context(self._ioctl, asked, nic.name, context)

    # Rules for flows

    def rules(self, nic: Link) -> tuple[FlowRule, ...]:
        """The rules of the form that we make; others are left out."""
        return rxnfc.rules(self._ioctl, f"list the flow rules of {nic.name}", nic.name)

    def has_rules(self, nic: Link) -> bool:
        """Whether there are any, of whatever form."""
        return rxnfc.count(self._ioctl, f"count the flow rules of {nic.name}", nic.name) > 0

    def insert_rule(self, nic: Link, rule: FlowRule) -> int:
        """Insert a rule; its location."""
        return rxnfc.insert(
            self._ioctl, f"insert the flow rule {rule} on {nic.name}", nic.name, rule
        )

    def remove_rule(self, nic: Link, location: int) -> None:
        """Remove the rule at a location."""
        asked = f"remove the flow rule at location {location} of {nic.name}"
        rxnfc.remove(self._ioctl, asked, nic.name, location)

    @property
    def _family(self) -> int:
        if not self._number:
            name = message.text(CTRL_ATTR_FAMILY_NAME, ETHTOOL_GENL_NAME)
            request = bytes((CTRL_CMD_GETFAMILY, 1, 0, 0)) + name
            asked = f"look up the generic netlink family {ETHTOOL_GENL_NAME}"
            ((answer,),) = self._netlink.ask(Ask(asked, request, GENL_ID_CTRL))
            self._number = Attributes(answer[4:]).number(CTRL_ATTR_FAMILY_ID) or 0
        return self._number

    def _features(self, nic: Link) -> dict[str, Feature]:
        asked = f"look up the features of {nic.name}"
        found = self._get(asked, nic, uapi.ETHTOOL_MSG_FEATURES_GET)
        if found is None:
            return {}
        hardware = _bits(found.nest(uapi.ETHTOOL_A_FEATURES_HW))
        active = _bits(found.nest(uapi.ETHTOOL_A_FEATURES_ACTIVE))
        fixed = _bits(found.nest(uapi.ETHTOOL_A_FEATURES_NOCHANGE))
        return {
            name: Feature(on=name in active, changeable=changeable and name not in fixed)
            for name, changeable in hardware.items()
        }

    def _get(self, asked: str, nic: Link, command: int) -> Attributes | None:
        try:
            (answer,) = self._ask(asked, nic, command)
        except KernelError as error:
            if error.errno == errno.EOPNOTSUPP:
                return None
            raise
        return Attributes(answer[4:])

    def _set(self, words: Sequence[str], nic: Link, command: int, values: Sequence[bytes]) -> None:
        if words:
            self._ask(f"set {' and '.join(words)}", nic, command, values)

    def _ask(
        self, asked: str, nic: Link, command: int, values: Sequence[bytes] = ()
    ) -> list[bytes]:
        request = _request(command, nic) + b"".join(values)
        (answers,) = self._netlink.ask(Ask(asked, request, self._family))
        return answers


def _request(command: int, nic: Link, flags: bytes = b"") -> bytes:
    """Struct genlmsghdr, and which NIC: by name, as ethtool(8) does."""
    return bytes((command, ETHTOOL_GENL_VERSION, 0, 0)) + message.nested(
        uapi.ETHTOOL_A_HEADER | NLA_F_NESTED,
        message.text(uapi.ETHTOOL_A_HEADER_DEV_NAME, nic.name),
        flags,
    )


def _bits(bitset: Attributes) -> dict[str, bool]:
    """The bits of a bitset that is written out, by name; without a mask all of them are set."""
    masked = uapi.ETHTOOL_A_BITSET_NOMASK not in bitset
    found = {}
    for _, data in message.attributes(bitset.raw(uapi.ETHTOOL_A_BITSET_BITS) or b""):
        bit = Attributes(data)
        name = bit.text(uapi.ETHTOOL_A_BITSET_BIT_NAME) or ""
        found[name] = not masked or uapi.ETHTOOL_A_BITSET_BIT_VALUE in bit
    return found


def _queues(table: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(set(table))))
