"""The device: a netkit pair, a single netkit device, or a veth pair in its place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cni_netkit.kernel.model import Link, Wanted
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.steps.base import Outcome, World, difference

if TYPE_CHECKING:
    from cni_netkit.kernel.namespace import Namespace


@dataclass(frozen=True)
class Device:
    """`host_name` is empty for a single device; sizes in bytes; `mac` is the container end's."""

    name: ClassVar[str] = "device"
    kind: str
    pairing: str
    host_name: str
    container_name: str
    alias: str
    mode: str
    policy: str
    peer_policy: str
    scrub: str
    peer_scrub: str
    headroom: int
    tailroom: int
    mtu: int
    rx_queues: int
    mac: str | None

    @property
    def neighbours(self) -> bool:
        """Whether the ends resolve neighbours: with MAC addresses, as l2 and veth have them."""
        return self.kind == "veth" or self.mode == "l2"

    def do(self, world: World, outcome: Outcome) -> None:
        """Create it; both ends are up afterwards."""
        fields: dict[str, Any] = asdict(self)
        host_name, container_name = fields.pop("host_name"), fields.pop("container_name")
        outcome.container_nsid = world.host.id_of(world.inside)
        if self.pairing == "single":
            wanted = Wanted(**fields, name=container_name, peer_name="")
            made = world.inside.create_single(wanted)
            outcome.container_index, outcome.container_mac = made.index, made.mac or ""
        else:
            wanted = Wanted(**fields, name=host_name, peer_name=container_name)
            made = world.host.create_pair(wanted, world.inside)
            outcome.host_index, outcome.host_mac = made.index, made.mac or ""
            outcome.container_index = made.peer_index or 0
            if self.neighbours:
                _skip_duplicate_address_detection(world, host_name)
            world.inside.configure(outcome.container_index, container_name, up=True)
            if self.kind == "veth":  # refuses to come up before its peer exists
                world.host.configure(made.index, host_name, up=True)
            if peer := world.inside.link(index=outcome.container_index):
                outcome.container_mac = peer.mac or ""
        self._verify_sizes(made)

    def undo(self, world: World, outcome: Outcome) -> None:
        """Delete it if it is ours: by index where known, by name else, and always by its alias."""
        if self.pairing == "pair":
            self._delete_ours(world.host, self.host_name, outcome.host_index)
        elif world.container is not None:
            self._delete_ours(world.container, self.container_name, outcome.container_index)
        elif outcome.container_nsid is not None:
            # The path is gone; the namespace itself may live on, held by a process.
            found = world.host.link_in(outcome.container_nsid, self.container_name)
            if found and found.alias == self.alias:
                world.host.delete_link(found, outcome.container_nsid)

    def check(self, world: World, outcome: Outcome) -> None:
        """Both ends: kind, pairing, mode, policies, scrub, MTU, MAC, up."""
        inside = world.inside.link(name=self.container_name)
        where = f"device {self.container_name} in the container"
        if inside is None:
            raise difference(where, f"a {self.kind} device", None)
        self._check_common(where, inside)
        mac = outcome.container_mac or None
        if mac and inside.mac != mac:
            raise difference(f"MAC address of {where}", mac, inside.mac)
        if self.pairing == "single":
            _compare(where, inside, pairing="single", mode=self.mode)
            return
        where_host = f"device {self.host_name} on the host"
        outside = world.host.link(name=self.host_name)
        if outside is None:
            raise difference(where_host, f"a {self.kind} device", None)
        self._check_common(where_host, outside)
        if inside.peer_index != outside.index:
            raise difference(f"peer of {where}", f"index {outside.index}", inside.peer_index)
        if self.kind == "netkit":
            _compare(where_host, outside, mode=self.mode, policy=self.policy, pairing="pair")
            _compare(where_host, outside, peer_policy=self.peer_policy, scrub=self.scrub)
            _compare(where_host, outside, peer_scrub=self.peer_scrub)

    def describe(self) -> str:
        """In words."""
        if self.pairing == "single":
            return f"create the single netkit device {self.container_name}"
        return f"create the {self.kind} pair {self.host_name}, {self.container_name}"

    def _check_common(self, where: str, found: Link) -> None:
        if found.kind != self.kind:
            raise difference(f"kind of {where}", self.kind, found.kind)
        if not found.up:
            raise difference(f"state of {where}", "up", "down")
        if found.mtu != self.mtu:
            raise difference(f"MTU of {where}", self.mtu, found.mtu)

    def _delete_ours(self, namespace: Namespace, name: str, index: int) -> None:
        found = namespace.link(index=index) if index else namespace.link(name=name)
        if found is None and index:
            return
        if found is not None and found.alias == self.alias:
            namespace.delete_link(found)

    def _verify_sizes(self, made: Link) -> None:
        """Kernels before headroom and tailroom take the attributes without a word and drop them."""
        for option in ("headroom", "tailroom"):
            if getattr(self, option) and getattr(made, option) is None:
                raise CNIError(
                    Code.KERNEL_LACKS_FEATURE,
                    f'{option}: this kernel\'s netkit does not know "{option}"',
                    "leave it out, or run a kernel from 6.14 on",
                )


def _skip_duplicate_address_detection(world: World, device: str) -> None:
    """Let the host's end use its link-local address as soon as there is a link.

    What it forwards into the pair waits for neighbour discovery, which is sent from that address;
    detection would hold it back for a second, on a link with nobody else on it.
    """
    world.host.set({f"ipv6/conf/{device}/accept_dad": "0"}, optional=True)


def _compare(where: str, found: Link, **expected: str) -> None:
    for attribute, value in expected.items():
        actual = getattr(found, attribute)
        # An attribute that the kernel does not have at all has its only value.
        if actual is not None and actual != value:
            raise difference(f"{attribute.replace('_', ' ')} of {where}", value, actual)
