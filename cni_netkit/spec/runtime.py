"""What a runtime knows of one container: the capabilities (CNI conventions document)."""

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from cni_netkit.spec.dns import CapabilityDNS
from cni_netkit.spec.model import Foreign, Form, Model, zero_or

DEVICE_ID_FORM = r"[A-Za-z0-9][A-Za-z0-9_.:@-]*"
"""What becomes part of a path under /sys/bus."""

RATE_MAX = 2**64 - 1
BURST_MAX = 8 * (2**32 - 1) - 1
"""In bits, as in the reference plugin: below 4 GiB less a byte."""

RATE = zero_or(8, RATE_MAX, "no limit", " bits a second")
BURST = zero_or(8, BURST_MAX, "no limit", " bits")


def _valid_mac(value: str) -> str:
    if not re.fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", value):
        raise ValueError
    if int(value[:2], 16) & 1:
        raise ValueError("is a multicast address, no device can have it")
    if value == "00:00:00:00:00:00":
        raise ValueError("is all zero")
    return value.lower()


MAC = Form(
    "a MAC address of the form 02:00:00:00:00:01",
    _valid_mac,
    {"pattern": "^(?!(00:){5}00$)[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"},
)


def _valid_device_id(value: str) -> str:
    if value and not re.fullmatch(DEVICE_ID_FORM, value):
        raise ValueError
    return value


DEVICE_ID = Form(
    "a bus address such as 0000:03:00.0, or a device's name",
    _valid_device_id,
    {"pattern": f"^({DEVICE_ID_FORM})?$"},
)
DeviceID = Annotated[str, DEVICE_ID]


class Limits(Model):
    """The bandwidth capability: bits a second, and bits at once; 0 and 0: no limit.

    CNI conventions document. The kernel counts in bytes, and has 32 bits for a burst
    (TCA_TBF_BURST, include/uapi/linux/pkt_sched.h).
    """

    ingress_rate: Annotated[int, RATE] = 0
    """What the container receives, in bits a second.

    Needs: `ingressBurst`
    """

    ingress_burst: Annotated[int, BURST] = 0
    """What it receives at once, in bits.

    Needs: `ingressRate`
    """

    egress_rate: Annotated[int, RATE] = 0
    """What the container sends, in bits a second.

    Needs: `egressBurst`
    """

    egress_burst: Annotated[int, BURST] = 0
    """What it sends at once, in bits.

    Needs: `egressRate`
    """

    @model_validator(mode="after")
    def _rate_and_burst(self) -> "Limits":
        for which, rate, burst in (
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ):
            if bool(rate) != bool(burst):
                given, missing = ("Rate", "Burst") if rate else ("Burst", "Rate")
                raise ValueError(f"{which}{given} needs {which}{missing}: set both, or neither")
        return self


class RuntimeConfig(Foreign):
    """Per-container values for the capabilities that the configuration declares."""

    mac: Annotated[str, MAC] | None = None
    """The MAC address of the container's device, before `args.cni.mac` and `MAC` of CNI_ARGS.

    Needs: `mode: l2`
    """

    ips: tuple[str, ...] = ()
    """Addresses that are asked of IPAM: host-local has them in its ranges, static gives them."""

    ip_ranges: tuple[tuple[dict[str, Any], ...], ...] = ()
    """Range sets for host-local, before the configured ones, each entry as in `ipam.ranges`."""

    dns: CapabilityDNS | None = None
    """Name servers, before `dns` of the configuration."""

    device_id: Annotated[DeviceID | None, Field(alias="deviceID")] = None
    """The NIC, where neither `deviceID` nor `pciBusID` beside `lease` says it."""

    bandwidth: Limits | None = None
    """Limits for the pair, in both directions.

    Linux: any, with `CONFIG_NET_SCH_TBF`; egress also with `CONFIG_IFB`, `CONFIG_NET_CLS_U32`, …
    Needs: `pairing: pair`
    """
