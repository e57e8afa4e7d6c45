"""Leases: which queues of which NIC, for what, and what the NIC brings to them."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from cni_netkit.spec.model import Model, valid_ifname

QUEUES_MAX = 1024
"""NETKIT_NUM_RX_QUEUES_MAX of drivers/net/netkit.c; queue 0 is the device's own."""


def parse_queues(value: object) -> tuple[int, ...]:
    """Read a pool of queue numbers: a list [14, 15], or ranges "8-11,14". Duplicates fall away."""
    if isinstance(value, str):
        numbers: list[int] = []
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", part)
            if not match:
                raise ValueError(f'{part!r} is neither a queue nor a range such as "8-11"')
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise ValueError(f"the range {part.strip()} runs backwards")
            numbers.extend(range(first, last + 1))
    elif isinstance(value, list | tuple):
        if any(isinstance(number, bool) or not isinstance(number, int) for number in value):
            raise ValueError("a list of queues has numbers only")
        numbers = list(value)
    else:
        raise ValueError('must be a list [14, 15] or ranges "8-11,14"')
    if not numbers:
        raise ValueError("is empty: name at least one queue, or leave it out")
    if any(not 0 <= number <= 65535 for number in numbers):
        raise ValueError("queues are numbered from 0 to 65535")
    return tuple(sorted(set(numbers)))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as people write them: "8-11,14"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)


class Flow(Model):
    """What is sent to a port of the container's addresses."""

    proto: Literal["tcp", "udp"]
    dst_port: Annotated[int, Field(ge=1, le=65535)]


def _some_flows(value: tuple[Flow, ...]) -> tuple[Flow, ...]:
    if not value:
        raise ValueError('is empty: name a flow, or set it to "none"')
    return tuple(dict.fromkeys(value))


WORD, LIST = "(word)", "(list)"
"""Two forms of one key, which are no part of its path."""

Flows = Annotated[
    Annotated[Literal["address", "none"], Tag(WORD)]
    | Annotated[tuple[Flow, ...], Field(strict=False), AfterValidator(_some_flows), Tag(LIST)],
    Discriminator(lambda value: LIST if isinstance(value, list | tuple) else WORD),
]


class Lease(Model):
    """Receive queues of a physical NIC, lent to the container's device."""

    device: Annotated[str, AfterValidator(valid_ifname)] | None = None
    count: Annotated[int, Field(ge=1, lt=QUEUES_MAX)] = 1
    queues: Annotated[tuple[int, ...], BeforeValidator(parse_queues)] | None = None
    workload: Literal["io_uring", "af_xdp"] | None = None
    flows: Flows | None = None

    @property
    def wanted_flows(self) -> tuple[str, ...]:
        """The flows to be brought to the queues: "tcp", or with a port "tcp 9000"."""
        flows = self.flows or ("address" if self.workload == "io_uring" else "none")
        if flows == "none":
            return ()
        if flows == "address":
            return ("tcp",) if self.workload == "io_uring" else ("tcp", "udp")
        return tuple(f"{flow.proto} {flow.dst_port}" for flow in flows)

    @model_validator(mode="after")
    def _io_uring_receives_tcp(self) -> "Lease":
        listed = self.flows if isinstance(self.flows, tuple) else ()
        if self.workload == "io_uring" and any(flow.proto == "udp" for flow in listed):
            raise ValueError(
                'flows has "udp", but workload "io_uring" receives TCP: what comes as UDP to a '
                "queue of its memory nobody can read"
            )
        return self

    @model_validator(mode="after")
    def _pool_is_large_enough(self) -> "Lease":
        if self.queues is not None and len(self.queues) < self.count:
            raise ValueError(
                f"count is {self.count}, but queues names only {len(self.queues)}; "
                "name more queues or ask for fewer"
            )
        return self
