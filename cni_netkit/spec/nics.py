"""How NICs are to be prepared: /etc/cni-netkit/nics.json, and the words of the command."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cni_netkit.spec import faults
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import Queues, ranges
from cni_netkit.spec.model import IFNAME, Model

Role = Literal["io_uring", "af_xdp"]

COUNT_MAX = 65535


class Preparation(Model):
    """One NIC: its role, the pool of queues for containers, and how many it shall have."""

    device: Annotated[str, IFNAME]
    """The NIC, in the host's namespace. Each can be there once."""

    role: Role
    """What its leased queues are for."""

    queues: Queues
    """The pool for containers, from which leases come that name no `queues`."""

    channels: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    """How many combined channels it shall have, or receive channels where the driver has only
    those. Without it they stay as they are.

    Needs: more than the highest of `queues`, which are numbered from 0
    """

    ring: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    """Length of each receive ring, in descriptors. Without it it stays as it is."""

    copies: Annotated[bool, Field(alias="copy")] = False
    """AF_XDP also where the driver can only copy packets to the socket.

    Needs: `role: af_xdp`
    """

    @model_validator(mode="after")
    def _fits(self) -> "Preparation":
        if self.copies and self.role != "af_xdp":
            raise ValueError('copy is for role "af_xdp"; io_uring copies of its own accord')
        if self.channels is not None and self.queues[-1] >= self.channels:
            raise ValueError(
                f"queues names queue {self.queues[-1]}, but channels is {self.channels}, "
                "and queues are numbered from 0"
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return self.model_dump(by_alias=True, mode="json", exclude_defaults=True)

    @property
    def command(self) -> str:
        """The command that does it."""
        words = f"cni-netkit nic prepare {self.device} --role {self.role}"
        words += f" --queues {ranges(self.queues)}"
        for option, value in (("--channels", self.channels), ("--ring", self.ring)):
            words += f" {option} {value}" if value is not None else ""
        return words + (" --copy" if self.copies else "")


class Nics(Model):
    """The file: every NIC that the agent keeps prepared."""

    nics: Annotated[tuple[Preparation, ...], Field(strict=False)]
    """One object for each NIC."""

    @model_validator(mode="after")
    def _each_once(self) -> "Nics":
        names = [each.device for each in self.nics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice: a NIC has one role")
        return self


def validate_nics(raw: object, what: str) -> tuple[Preparation, ...]:
    """The NICs of a file's contents. Raises error 7 with every fault; `what` names the file."""
    try:
        return Nics.model_validate(raw).nics
    except ValidationError as error:
        told = "; ".join(fault.told(fault.path) for fault in faults.read(error, Nics))
    raise CNIError(
        Code.INVALID_CONFIGURATION,
        f"{what} is not valid: {told}",
        "docs/reference.md has every key with its values; nothing was changed",
    )
