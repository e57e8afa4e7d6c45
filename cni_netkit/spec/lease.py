"""Leases: which queues of which NIC, for what, and what the NIC brings to them."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cni_netkit.spec.model import IFNAME, Form, Model
from cni_netkit.spec.words import shown

QUEUES_MAX = 1024
"""NETKIT_NUM_RX_QUEUES_MAX of drivers/net/netkit.c; queue 0 is the device's own."""


def parse_queues(value: object) -> tuple[int, ...]:
    """Read a pool of queue numbers: a list [14, 15], or ranges "8-11,14". Duplicates fall away."""
    if isinstance(value, str):
        numbers: list[int] = []
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", part)
            if not match:
                raise ValueError(f'{shown(part)} is neither a queue nor a range such as "8-11"')
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise ValueError(f"the range {part.strip()} runs backwards")
            numbers.extend(range(first, last + 1))
    elif isinstance(value, list | tuple):
        if any(isinstance(number, bool) or not isinstance(number, int) for number in value):
            raise ValueError("a list of queues has whole numbers only")
        numbers = list(value)
    else:
        raise ValueError
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


QUEUES = Form(
    'a list of queues [14, 15] or ranges "8-11,14"',
    parse_queues,
    {
        "anyOf": [
            {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 65535},
                "minItems": 1,
            },
            {
                "type": "string",
                "pattern": r"^\s*\d{1,5}(\s*-\s*\d{1,5})?\s*(,\s*\d{1,5}(\s*-\s*\d{1,5})?\s*)*$",
            },
        ]
    },
    reads=True,
)
Queues = Annotated[tuple[int, ...], QUEUES]


class Flow(Model):
    """What is sent to a port of the container's addresses."""

    proto: Literal["tcp", "udp"]
    """The protocol."""

    dst_port: Annotated[int, Field(ge=1, le=65535)]
    """The port that it is sent to."""


def _some_flows(value: tuple[Flow, ...]) -> tuple[Flow, ...]:
    if not value:
        raise ValueError('is empty: name a flow, or set it to "none"')
    return tuple(dict.fromkeys(value))


SOME_FLOWS = Form("a list of objects", _some_flows, {"minItems": 1})

WORD, LIST = "(word)", "(list)"
"""Two forms of one key, which are no part of its path."""

Flows = Annotated[
    Annotated[Literal["address", "none"], Tag(WORD)]
    | Annotated[tuple[Flow, ...], Field(strict=False), SOME_FLOWS, Tag(LIST)],
    Discriminator(lambda value: LIST if isinstance(value, list | tuple) else WORD),
    Form('"address", "none" or a list of objects {"proto": "tcp", "dstPort": 9000}'),
]


class Lease(Model):
    """Receive queues of a physical NIC, lent to the container's device."""

    device: Annotated[str, IFNAME] | None = None
    """The NIC whose queues are lent. May be left to the runtime (`deviceID`)."""

    count: Annotated[int, Field(ge=1, lt=QUEUES_MAX)] = 1
    """How many queues. They are queues 1 to `count` of the container's device; queue 0 is its own.

    Needs: a pool (`queues`) that is not smaller
    """

    queues: Queues | None = None
    """The pool to choose from, highest number first. Without it the one that the NIC was prepared
    with, else every queue but 0.
    """

    workload: Literal["io_uring", "af_xdp"] | None = None
    """What the queues are for: ADD and STATUS verify that the NIC is prepared for it.

    Linux: 7.1, `af_xdp` with `CONFIG_XDP_SOCKETS_DIAG`
    Needs: `pairing: single` for `af_xdp`
    """

    flows: Flows | None = None
    """Rules of the NIC that bring the container's traffic to its queues: all that is sent to its
    addresses (TCP with `io_uring`, else TCP and UDP), none, or what is sent to the named ports.
    Without it `address` with `workload: io_uring`, else `none`.

    Needs: no `udp` with `workload: io_uring`, which cannot receive it
    """

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
