"""What the running kernel can do, probed: never concluded from a release number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cni_netkit.kernel import loading
from cni_netkit.kernel.link import device
from cni_netkit.kernel.netlink.socket import NetlinkSocket
from cni_netkit.kernel.uapi import (
    IFLA_NETKIT_PAIRING,
    IFLA_NETKIT_SCRUB,
    NETLINK_GENERIC,
    NETLINK_ROUTE,
)

if TYPE_CHECKING:
    from cni_netkit.kernel.netns import Netns

ATTRIBUTES = {"netkit": None, "single": IFLA_NETKIT_PAIRING, "scrub": IFLA_NETKIT_SCRUB}
"""Features that are netkit's: the attribute that a kernel with the feature knows."""

_known: dict[str, bool] = {}
"""netkit is built in or not at all, so what was found out once holds as long as the kernel runs."""


def present(
    wanted: Iterable[str], netns: Netns, socket: Callable[[int], NetlinkSocket]
) -> frozenset[str]:
    """Which of the features the kernel has: those of `ATTRIBUTES`, "queue-create", "xsk-diag".

    `socket` opens one of a netlink protocol in the namespace, or gives the one that is open.
    """
    for name in wanted:
        if name not in _known:
            _known[name] = _has(name, netns, socket)
    return frozenset(name for name in wanted if _known[name])


def _has(feature: str, netns: Netns, socket: Callable[[int], NetlinkSocket]) -> bool:
    if feature == "queue-create":
        with loading.alone:
            from cni_netkit.kernel.queues import netdev

        return netdev.can_create_queues(netdev.family(socket(NETLINK_GENERIC)))
    if feature == "xsk-diag":
        with loading.alone:
            from cni_netkit.kernel.queues import xsk

        return xsk.can_list(netns)
    return device.knows(socket(NETLINK_ROUTE), ATTRIBUTES[feature])
