"""The bandwidth capability: how much the container receives and sends (CNI conventions document).

As with the reference plugin, ingress is what the container receives: the host's end sends it, and
is shaped. Egress is what the container sends: what the host's end receives goes through an ifb
device, and that is shaped. Nothing of it is within the container's reach.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cni_netkit import log
from cni_netkit.kernel.errors import KernelError, LackingKind
from cni_netkit.kernel.model import Bucket, Link
from cni_netkit.outcome import Outcome
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.steps.base import difference, existing, ours

if TYPE_CHECKING:
    from cni_netkit.context import Context

LATENCY = 25
"""How long a packet may wait for its turn, in milliseconds, once the burst is used up."""

LIMIT_MAX = 0xFFFFFFFF
ETHERNET_HEADER = 14

OPTIONS = {
    "tbf": "CONFIG_NET_SCH_TBF",
    "ifb": "CONFIG_IFB",
    "clsact": "CONFIG_NET_SCH_INGRESS",
    "u32": "CONFIG_NET_CLS_U32",
    "mirred": "CONFIG_NET_ACT_MIRRED",
}
"""What has to be in the kernel, by the names that it uses itself."""


@dataclass(frozen=True)
class Bandwidth:
    """Rates in bits a second, bursts in bits, 0: not shaped; `device` is the host's end."""

    name: ClassVar[str] = "bandwidth"
    device: str
    ifb: str
    alias: str
    mtu: int
    ingress_rate: int
    ingress_burst: int
    egress_rate: int
    egress_burst: int

    def do(self, context: Context, outcome: Outcome) -> None:
        """Shape both directions, each if asked for."""
        try:
            if self.ingress_rate:
                self._warn_of_small("ingressBurst", self.ingress_burst)
                context.host.shaping.shape(outcome.host_index, self.device, self._ingress)
            if self.egress_rate:
                self._warn_of_small("egressBurst", self.egress_burst)
                self._shape_egress(context, outcome)
        except LackingKind as error:
            raise CNIError(
                Code.KERNEL_LACKS_FEATURE,
                f"this kernel has no {error.kind} ({OPTIONS[error.kind]}), which the capability "
                f"bandwidth needs: {error}",
                f"build the kernel with {OPTIONS[error.kind]}, or install its module; without "
                "bandwidth limits on the container it is not needed",
            ) from None

    def undo(self, context: Context, outcome: Outcome) -> None:
        """Delete the ifb device, if it is ours; the rest goes with the host's end."""
        if self.name in outcome.untouched:
            return
        found = ours(context.host, self.alias, self.ifb, outcome.ifb_index)
        if found is not None and found.kind == "ifb":
            context.host.links.delete(found)

    def check(self, context: Context, outcome: Outcome) -> None:
        """Both buckets, the ifb device, and the way to it."""
        outside = existing(context.host, self.device, f"device {self.device} on the host")
        if self.ingress_rate:
            _compare(context, outside, self._ingress)
        if not self.egress_rate:
            return
        where = f"device {self.ifb} on the host"
        ifb = existing(context.host, self.ifb, where)
        if ifb.kind != "ifb":
            raise difference(f"kind of {where}", "ifb", ifb.kind)
        if not ifb.up:
            raise difference(f"state of {where}", "up", "down")
        if ifb.mtu != self.mtu:
            raise difference(f"MTU of {where}", self.mtu, ifb.mtu)
        target = context.host.shaping.redirected(outside.index)
        if target != ifb.index:
            other = context.host.links.get(index=target) if target else None
            raise difference(
                f"device that all goes to which {self.device} receives",
                self.ifb,
                other.name if other else None,
            )
        _compare(context, ifb, self._egress)

    def describe(self) -> str:
        """In words."""
        return f"shape what passes {self.device}"

    @property
    def _ingress(self) -> Bucket:
        return bucket(self.ingress_rate, self.ingress_burst)

    @property
    def _egress(self) -> Bucket:
        return bucket(self.egress_rate, self.egress_burst)

    def _shape_egress(self, context: Context, outcome: Outcome) -> None:
        try:
            ifb = context.host.links.create_ifb(self.ifb, self.alias, self.mtu)
        except KernelError as error:
            if error.errno == errno.EEXIST:
                outcome.untouched.append(self.name)
            raise
        outcome.ifb_index = ifb.index
        # While the device is down: on one that is up it would take an RCU grace period.
        context.host.shaping.shape(ifb.index, self.ifb, self._egress)
        # It needs no address of its own, and would announce it.
        context.host.links.configure(ifb.index, self.ifb, up=True, link_local=False)
        # Last: nothing is sent to a device that would drop it.
        context.host.shaping.redirect(outcome.host_index, self.device, ifb)

    def _warn_of_small(self, key: str, burst: int) -> None:
        if burst // 8 < self.mtu + ETHERNET_HEADER:
            log.warning(
                "the burst is smaller than a packet: packets that are larger are dropped",
                **{key: burst, "mtu": self.mtu},
            )


def bucket(rate: int, burst: int) -> Bucket:
    """The token bucket for a rate in bits a second and a burst in bits.

    As the reference plugin has it: whole bytes, and room for what a burst and the latency let wait.
    """
    rate, burst = rate // 8, burst // 8
    return Bucket(rate, burst, min(rate * LATENCY // 1000 + burst, LIMIT_MAX))


def _compare(context: Context, device: Link, expected: Bucket) -> None:
    found = context.host.shaping.bucket(device.index)
    where = f"token bucket (tbf) of device {device.name} on the host"
    if found is None:
        raise difference(where, f"{expected.rate} bytes a second", None)
    if found.rate != expected.rate:
        raise difference(f"rate of the {where}, in bytes a second", expected.rate, found.rate)
    if not found.has_burst(expected.burst):
        raise difference(f"burst of the {where}, in bytes", expected.burst, found.burst)
    if found.limit != expected.limit:
        raise difference(f"limit of the {where}, in bytes", expected.limit, found.limit)
