"""The device: a netkit pair, a single netkit device, or a veth pair in its place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cni_netkit.attachment import bears
from cni_netkit.kernel.errors import KernelError, LostAnswer
from cni_netkit.kernel.model import Link, LinkSpec
from cni_netkit.outcome import Outcome
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.steps.base import difference, ours

if TYPE_CHECKING:
    from cni_netkit.context import Context
    from cni_netkit.kernel.namespace import Namespace


@dataclass(frozen=True)
class Device:
    """What `spec` describes. Its MAC addresses are those that were asked for.

    `addressed`: addresses and routes follow, and bring the ends up in the same requests.
    """

    name: ClassVar[str] = "device"
    spec: LinkSpec
    addressed: bool

    @property
    def host_name(self) -> str:
        """Name of the host's end; empty for a single device."""
        return self.spec.name if self.spec.pairing == "pair" else ""

    @property
    def container_name(self) -> str:
        """Name of the device in the container."""
        return self.spec.peer_name or self.spec.name

    def do(self, context: Context, outcome: Outcome) -> None:
        """Create it."""
        if self.spec.pairing == "single":
            self._create_single(context, outcome)
        else:
            self._create_pair(context, outcome)

    def undo(self, context: Context, outcome: Outcome) -> None:
        """Delete it if it is ours: by index where known, by name else, and always by its alias."""
        if self.name in outcome.untouched:
            return
        if self.spec.pairing == "pair":
            self._delete_ours(context, context.host, self.host_name, outcome.host_index)
        elif context.container is not None:
            index = outcome.container_index
            self._delete_ours(context, context.container, self.container_name, index)
        elif outcome.container_nsid is not None:
            # The path is gone; the namespace itself may live on, held by a process.
            found = context.host.links.get(
                self.container_name, outcome.container_index, outcome.container_nsid
            )
            if found and bears(found.alias, self.spec.alias):
                context.host.links.delete(found, outcome.container_nsid)

    def check(self, context: Context, outcome: Outcome) -> None:
        """Both ends: kind, pairing, mode, policies, scrub, MTU, MAC, up."""
        inside = context.inside.links.get(name=self.container_name)
        where = f"device {self.container_name} in the container"
        if inside is None:
            raise difference(where, f"a {self.spec.kind} device", None)
        self._check_common(where, inside)
        mac = outcome.container_mac or None
        if mac and inside.mac != mac:
            raise difference(f"MAC address of {where}", mac, inside.mac)
        if self.spec.pairing == "single":
            self._compare(where, inside, "pairing", "mode")
            return
        where_host = f"device {self.host_name} on the host"
        outside = context.host.links.get(name=self.host_name)
        if outside is None:
            raise difference(where_host, f"a {self.spec.kind} device", None)
        self._check_common(where_host, outside)
        if inside.peer_index != outside.index:
            raise difference(f"peer of {where}", f"index {outside.index}", inside.peer_index)
        if self.spec.kind == "netkit":
            self._compare(where_host, outside, *OF_PAIRS)

    def describe(self) -> str:
        """In words."""
        if self.spec.pairing == "single":
            return f"create the single netkit device {self.container_name}"
        return f"create the {self.spec.kind} pair {self.host_name}, {self.container_name}"

    def _create_single(self, context: Context, outcome: Outcome) -> None:
        outcome.container_nsid = context.host.id_of(context.inside)
        with self._nothing_made_if_refused(context, outcome):
            made = context.inside.links.create_single(self.spec)
        outcome.container_index, outcome.container_mac = made.index, made.mac or ""
        self._verify_sizes(made)

    def _create_pair(self, context: Context, outcome: Outcome) -> None:
        # Chosen here, addresses need not be asked for afterwards.
        spec = self.spec
        if spec.neighbours:
            spec = replace(spec, mac=random_mac(), peer_mac=spec.peer_mac or random_mac())
        with self._nothing_made_if_refused(context, outcome):
            made = context.host.links.create_pair(spec, context.inside.netns)
        outcome.host_index, outcome.container_index = made.index, made.peer_index or 0
        outcome.host_mac, outcome.container_mac = spec.mac or "", spec.peer_mac or ""
        self._verify_sizes(made)
        only_ipv4 = outcome.addresses and not outcome.has_version(6)
        if spec.neighbours and not only_ipv4:
            _skip_duplicate_address_detection(context, self.host_name)
        if not self.addressed:
            context.inside.links.configure(outcome.container_index, self.container_name, up=True)
            context.host.links.configure(outcome.host_index, self.host_name, up=True)

    @contextmanager
    def _nothing_made_if_refused(self, context: Context, outcome: Outcome) -> Iterator[None]:
        try:
            yield
        except LostAnswer:
            raise  # it may be there: undoing looks
        except KernelError as error:
            outcome.untouched.append(self.name)
            if error.errno != errno.EEXIST:
                raise
            taken = f"{self.container_name} in the container"
            if self.host_name and context.host.links.get(name=self.host_name):
                taken = f"{self.host_name} on the host"
            raise CNIError(
                Code.ALREADY_EXISTS,
                f"attach {context.attachment}: there is a device {taken} already",
                "it was left as it is",
            ) from None

    def _check_common(self, where: str, found: Link) -> None:
        if found.kind != self.spec.kind:
            raise difference(f"kind of {where}", self.spec.kind, found.kind)
        if not found.up:
            raise difference(f"state of {where}", "up", "down")
        if found.mtu != self.spec.mtu:
            raise difference(f"MTU of {where}", self.spec.mtu, found.mtu)

    def _compare(self, where: str, found: Link, *attributes: str) -> None:
        for attribute in attributes:
            expected, actual = getattr(self.spec, attribute), getattr(found, attribute)
            # An attribute that the kernel does not have at all has its only value.
            if actual is not None and actual != expected:
                raise difference(f"{attribute.replace('_', ' ')} of {where}", expected, actual)

    def _delete_ours(self, context: Context, namespace: Namespace, name: str, index: int) -> None:
        found = ours(namespace, self.spec.alias, name, index)
        if found is None and not index and context.record and not context.record.complete:
            found = self._unmarked(namespace, name)
        if found:
            namespace.links.delete(found)

    def _unmarked(self, namespace: Namespace, name: str) -> Link | None:
        """What an ADD made and never learned of, nor could mark; the name was free before."""
        found = namespace.links.get(name=name)
        if found is None or found.alias is not None or found.kind != self.spec.kind:
            return None
        return found if found.pairing in (None, self.spec.pairing) else None

    def _verify_sizes(self, made: Link) -> None:
        """Kernels before headroom and tailroom take the attributes without a word and drop them."""
        for option in ("headroom", "tailroom"):
            if getattr(self.spec, option) and getattr(made, option) is None:
                raise CNIError(
                    Code.KERNEL_LACKS_FEATURE,
                    f'{option}: this kernel\'s netkit does not know "{option}"',
                    "leave it out, or run a kernel from 6.14 on",
                )


OF_PAIRS = ("mode", "policy", "pairing", "peer_policy", "scrub", "peer_scrub")
"""What CHECK compares of a netkit pair, at its primary end."""

NO_MAC = "00:00:00:00:00:00"
"""What the kernel has for an l3 device. Results say so: podman 4 insists on an address."""


def random_mac() -> str:
    """A locally administered unicast address (IEEE 802, the two low bits of the first byte)."""
    first, *others = os.urandom(6)
    return ":".join(f"{byte:02x}" for byte in (first & 0xFC | 0x02, *others))


def _skip_duplicate_address_detection(context: Context, device: str) -> None:
    """Let the host's end use its link-local address as soon as there is a link.

    What it forwards into the pair waits for neighbour discovery, which is sent from that address;
    detection would hold it back for a second, on a link with nobody else on it.
    """
    context.host.set({f"ipv6/conf/{device}/accept_dad": "0"}, optional=True)
