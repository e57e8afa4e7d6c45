"""The settings of a NIC that a role is made of: found, wanted, and how one is changed.

What each role needs: io_uring/zcrx.c and net/core/netdev_rx_queue.c (header-data split, no XDP
program), net/xdp/xsk.c (an XDP program that redirects); for both, traffic of the host must keep out
of the pool (the RSS table), and that of containers find it (ntuple filters).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni_netkit.kernel.model import Link
from cni_netkit.nics.state import NicState, Table
from cni_netkit.spec.lease import ranges
from cni_netkit.spec.nics import Preparation
from cni_netkit.steps.flows import NTUPLE

if TYPE_CHECKING:
    from cni_netkit.kernel.namespace import Namespace

DEFAULT = "default"
"""An RSS table as the driver makes it of its own accord."""

Value = Any
"""A number, "on", "off", …, or an RSS table: JSON, as records have it. None: there is no such."""


@dataclass(frozen=True)
class Setting:
    """One setting; `key` is its name in records and reports, `name` that for people.

    `wanted` gives None where the role does not ask for anything, or the NIC has it not.
    """

    key: str
    name: str
    found: Callable[[NicState], Value]
    wanted: Callable[[Preparation, NicState], Value]
    change: Callable[[Namespace, Link, Preparation, Value], None]
    of_role: bool = True
    """Whether a workload depends on it; the others are how large things are."""

    def put_back(self, host: Namespace, nic: Link, preparation: Preparation, value: Value) -> None:
        """Have it as it was found."""
        if self is DATA_SPLIT and value == "on":
            # As the driver's default, if that is the same: set explicitly it would exclude XDP.
            self.change(host, nic, preparation, "unknown")
            rings = host.ethtool.rings(nic)
            if rings is not None and rings.data_split == "on":
                return
        self.change(host, nic, preparation, value)


def differences(
    preparation: Preparation, state: NicState, explicit: Collection[str] = ()
) -> list[tuple[Setting, Value, Value]]:
    """What a NIC lacks for its preparation: setting, value found, value wanted, in order of change.

    `explicit`: keys of settings that are known to have been set, not to be a driver's default.
    """
    lacking = []
    for setting in SETTINGS:
        found, wanted = setting.found(state), setting.wanted(preparation, state)
        if wanted is None:
            continue
        if found != wanted or (setting is DATA_SPLIT and setting.key not in explicit):
            lacking.append((setting, found, wanted))
    return lacking


def words(setting: Setting, value: Value) -> str:
    """A value for people."""
    if value is None:
        return "not there"
    if setting is RSS and value != DEFAULT:
        return f"queues {ranges(value)}"
    if setting is XDP:
        names = {"ours": "cni-netkit's program", "another": "another program"}
        return names.get(value, str(value))
    return str(value)


def _channels_found(state: NicState) -> Value:
    channels = state.channels
    if channels is None:
        return None
    return channels.combined if channels.combined_max else channels.rx


def _change_channels(host: Namespace, nic: Link, _: Preparation, value: Value) -> None:
    found = host.ethtool.channels(nic)
    kind = "combined" if found is None or found.combined_max else "rx"
    host.ethtool.set_channels(nic, **{kind: value})


def _change_ring(host: Namespace, nic: Link, _: Preparation, value: Value) -> None:
    host.ethtool.set_rings(nic, rx=value)


def _table_found(state: NicState) -> Value:
    if state.table is None:
        return None
    return DEFAULT if state.table == spread(range(state.queues), state.table) else [*state.table]


def _table_wanted(preparation: Preparation, state: NicState) -> Value:
    """The table as it is where it spares the pool, else one over all other queues."""
    if state.table is None or not set(state.table) & set(preparation.queues):
        return _table_found(state)
    others = [queue for queue in range(state.queues) if queue not in preparation.queues]
    return [*spread(others, state.table)]


def spread(queues: Collection[int], like: Table) -> Table:
    """A table of the same size over other queues (ethtool_rxfh_indir_default(), ethtool.h)."""
    over = list(queues)
    return tuple(over[place % len(over)] for place in range(len(like)))


def _change_table(host: Namespace, nic: Link, _: Preparation, value: Value) -> None:
    host.ethtool.set_indirection(nic, None if value == DEFAULT else value)


def _data_split_wanted(preparation: Preparation, state: NicState) -> Value:
    """On for io_uring; for AF_XDP not on: a frame in two pieces fits few sockets."""
    if preparation.role == "io_uring":
        return "on"
    return "off" if state.data_split == "on" else None


def _change_data_split(host: Namespace, nic: Link, _: Preparation, value: Value) -> None:
    host.ethtool.set_rings(nic, data_split=value)


def _threshold_found(state: NicState) -> Value:
    return state.rings.hds_thresh if state.rings else None


def _threshold_wanted(preparation: Preparation, state: NicState) -> Value:
    has = _threshold_found(state) is not None
    return 0 if preparation.role == "io_uring" and has else None


def _change_threshold(host: Namespace, nic: Link, _: Preparation, value: Value) -> None:
    host.ethtool.set_rings(nic, hds_thresh=value)


def _ntuple_found(state: NicState) -> Value:
    return None if state.ntuple is None else "on" if state.ntuple.on else "off"


def _ntuple_wanted(_: Preparation, state: NicState) -> Value:
    return "on" if state.ntuple and (state.ntuple.on or state.ntuple.changeable) else None


def _change_ntuple(host: Namespace, nic: Link, _: Preparation, value: Value) -> None:
    host.ethtool.set_feature(nic, NTUPLE, value == "on")


def _change_xdp(host: Namespace, nic: Link, preparation: Preparation, value: Value) -> None:
    if value == "ours":
        host.xdp.attach(nic, copy=preparation.copies)
    else:
        host.xdp.detach(nic.name)


CHANNELS = Setting(
    "channels",
    "channels",
    _channels_found,
    lambda preparation, _: preparation.channels,
    _change_channels,
    of_role=False,
)
RING = Setting(
    "ring",
    "receive ring",
    lambda state: state.rings.rx if state.rings else None,
    lambda preparation, _: preparation.ring,
    _change_ring,
    of_role=False,
)
RSS = Setting("rss", "RSS table", _table_found, _table_wanted, _change_table)
NTUPLE_FILTERS = Setting("ntuple", "ntuple filters", _ntuple_found, _ntuple_wanted, _change_ntuple)
DATA_SPLIT = Setting(
    "tcpDataSplit",
    "header-data split",
    lambda state: state.data_split,
    _data_split_wanted,
    _change_data_split,
)
THRESHOLD = Setting(
    "hdsThresh",
    "header-data split threshold",
    _threshold_found,
    _threshold_wanted,
    _change_threshold,
)
XDP = Setting(
    "xdp",
    "XDP program",
    lambda state: state.xdp,
    lambda preparation, _: "ours" if preparation.role == "af_xdp" else "none",
    _change_xdp,
)

SETTINGS = (CHANNELS, RING, RSS, NTUPLE_FILTERS, DATA_SPLIT, THRESHOLD, XDP)
"""In the order of change: the number of queues before what is spread over them."""
