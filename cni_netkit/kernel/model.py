"""Devices, routes, queues, NICs as plain data: what plans and checks needs no netlink."""

import socket
from dataclasses import dataclass

RT_TABLE_MAIN = 254
"""include/uapi/linux/rtnetlink.h."""

SECOND, TICK = 10**9, 64
"""In nanoseconds."""


@dataclass(frozen=True)
class LinkSpec:
    """A device as it shall be: a pair, of which `name` is the host's end, or a single device.

    Sizes in bytes. `rx_queues` are those of the container's end. `peer_*`, `policy` and `scrub`
    apply to pairs only. Without a MAC address the kernel chooses one, where the device has any.
    """

    kind: str
    pairing: str
    name: str
    alias: str
    mtu: int
    peer_name: str = ""
    mode: str = "l3"
    policy: str = "forward"
    peer_policy: str = "forward"
    scrub: str = "default"
    peer_scrub: str = "default"
    headroom: int = 0
    tailroom: int = 0
    rx_queues: int = 1
    mac: str | None = None
    peer_mac: str | None = None

    @property
    def neighbours(self) -> bool:
        """Whether the ends resolve neighbours: with MAC addresses, as l2 and veth have them."""
        return self.kind == "veth" or self.mode == "l2"


@dataclass(frozen=True)
class Link:
    """A device as the kernel describes it. netkit's own attributes are None on other kinds.

    `xdp_program`: the id of the XDP program that it runs.
    """

    index: int
    name: str
    kind: str | None
    up: bool
    mtu: int
    mac: str | None
    alias: str | None
    peer_index: int | None
    rx_queues: int | None
    primary: bool | None = None
    pairing: str | None = None
    mode: str | None = None
    policy: str | None = None
    peer_policy: str | None = None
    scrub: str | None = None
    peer_scrub: str | None = None
    headroom: int | None = None
    tailroom: int | None = None
    xdp_program: int | None = None


@dataclass(frozen=True)
class Route:
    """A unicast route. `scope` is a number of include/uapi/linux/rtnetlink.h, None: by gateway."""

    destination: str
    gateway: str | None = None
    source: str | None = None
    onlink: bool = False
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int = RT_TABLE_MAIN
    scope: int | None = None

    def __str__(self) -> str:
        text = self.destination
        if self.gateway:
            text += f" via {self.gateway}"
        if self.table != RT_TABLE_MAIN:
            text += f" table {self.table}"
        return text


@dataclass(frozen=True)
class NetworkRoute:
    """Where packets to a network go: to a gateway on a link, or nowhere.

    `gateway` is None for a route of type unreachable: the sender is told, by ICMP.
    """

    destination: str
    gateway: str | None

    @classmethod
    def of(cls, destination: str, gateway: str | None) -> "NetworkRoute":
        """With the texts that the kernel's routes have (inet_ntop(3)). Raises ValueError.

        There may be ten thousand, for which `ipaddress` would take ten times as long.
        """
        network, _, length = destination.partition("/")
        return cls(f"{_as_told(network)}/{length}", gateway and _as_told(gateway))

    def __str__(self) -> str:
        if self.gateway is None:
            return f"unreachable {self.destination}"
        return f"{self.destination} via {self.gateway}"


def _as_told(address: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address))
    except OSError:
        raise ValueError(f"{address} is no IP address") from None


@dataclass(frozen=True)
class Bucket:
    """A token bucket (sch_tbf): bytes a second, bytes at once, and bytes that may wait."""

    rate: int
    burst: int
    limit: int


@dataclass(frozen=True)
class FoundBucket:
    """A token bucket as the kernel tells it.

    It tells no burst, but how long one takes at `rate`, in ticks of 64 ns (PSCHED_SHIFT in
    include/net/pkt_sched.h), of which the low 32 bits: 275 seconds.
    """

    rate: int
    limit: int
    ticks: int

    @property
    def burst(self) -> int:
        """The burst in bytes, where it takes less than 275 seconds."""
        return self.ticks * TICK * self.rate // SECOND

    def has_burst(self, burst: int) -> bool:
        """Whether it is this burst, as far as it can be told; the kernel rounds a little."""
        if not self.rate:
            return False
        expected = burst * SECOND // (self.rate * TICK)
        apart = (self.ticks - expected) % (1 << 32)
        return min(apart, (1 << 32) - apart) <= 1 + (expected >> 30)


@dataclass(frozen=True)
class Queue:
    """A receive queue of a device, and the other side of its lease if it is leased.

    `netns_id` is the other side's namespace as seen from here; None: the same one.
    `user` names what else occupies the queue.
    """

    number: int
    leased_index: int | None = None
    leased_queue: int | None = None
    netns_id: int | None = None
    user: str | None = None

    @property
    def free(self) -> bool:
        """Whether nothing occupies the queue."""
        return self.leased_index is None and self.user is None

    @property
    def state(self) -> str:
        """One of `QUEUE_STATES`."""
        return "free" if self.free else "in use" if self.leased_index is None else "leased"


QUEUE_STATES = ("free", "leased", "in use")


@dataclass(frozen=True)
class Rings:
    """A NIC's receive rings: descriptors a ring, and the header-data split with its threshold.

    `data_split`: "unknown", "off", "on" (ETHTOOL_TCP_DATA_SPLIT_*). Thresholds are in bytes, None
    where the driver has none.
    """

    rx: int
    rx_max: int
    data_split: str
    hds_thresh: int | None
    hds_thresh_max: int | None


@dataclass(frozen=True)
class Channels:
    """How many channels a NIC has and can have; 0: none of that kind (ethtool(8), -l)."""

    rx: int
    tx: int
    combined: int
    rx_max: int
    tx_max: int
    combined_max: int

    @property
    def queues(self) -> int:
        """How many receive queues these are."""
        return self.rx + self.combined


@dataclass(frozen=True)
class Feature:
    """A feature of a NIC (netdev_features_strings in net/ethtool/common.c)."""

    on: bool
    changeable: bool


@dataclass(frozen=True)
class FlowRule:
    """A rule (ethtool(8): ntuple) that brings what is sent to an address to a queue.

    `protocol` is "tcp" or "udp", `address` has no prefix length, without `port` any is meant.
    Either `queue` or `context`, an RSS context, is where it goes. Without `location` it is not
    inserted yet.
    """

    protocol: str
    address: str
    port: int | None = None
    queue: int | None = None
    context: int | None = None
    location: int | None = None

    def __str__(self) -> str:
        port = f" port {self.port}" if self.port is not None else ""
        target = f"queue {self.queue}" if self.context is None else f"RSS context {self.context}"
        return f"{self.protocol} to {self.address}{port} into {target}"
