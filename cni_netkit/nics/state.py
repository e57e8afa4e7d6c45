"""What a NIC is like, as far as workloads depend on it. Read only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cni_netkit.kernel.model import Channels, Feature, Link, Rings
from cni_netkit.steps.flows import NTUPLE

if TYPE_CHECKING:
    from cni_netkit.kernel.namespace import Namespace

Table = tuple[int, ...]


@dataclass(frozen=True)
class NicState:
    """None is what the driver does not have. `xdp`: whose program the NIC runs.

    `xdp_features`: what the driver can do with XDP, by the names of include/uapi/linux/netdev.h.
    """

    link: Link
    channels: Channels | None
    rings: Rings | None
    table: Table | None
    ntuple: Feature | None
    xdp: Literal["none", "ours", "another"]
    xdp_features: frozenset[str]

    @property
    def queues(self) -> int:
        """How many receive queues it has."""
        if self.channels is not None and self.channels.queues:
            return self.channels.queues
        return self.link.rx_queues or 1

    @property
    def data_split(self) -> str | None:
        """Header-data split: "unknown", "off", "on"."""
        return self.rings.data_split if self.rings else None


def read_state(host: Namespace, link: Link) -> NicState:
    """Ask the kernel and the driver about a NIC of the host."""
    ethtool = host.ethtool
    ours = host.xdp.is_attached(link)
    return NicState(
        link=link,
        channels=ethtool.channels(link),
        rings=ethtool.rings(link),
        table=ethtool.indirection(link),
        ntuple=ethtool.feature(link, NTUPLE),
        xdp="ours" if ours else "another" if link.xdp_program else "none",
        xdp_features=host.queues.xdp_features(link),
    )
