"""Routes in the container, as configurations have them."""

from typing import Annotated

from pydantic import Field

from cni_netkit.spec.forms import DESTINATION, OptionalAddress
from cni_netkit.spec.model import Shared
from cni_netkit.spec.result import JSON, U32

Number = Annotated[int, Field(strict=True, ge=0, le=U32)]


class Route(Shared):
    """A route in the container, as results have it (specification section 5)."""

    dst: Annotated[str, DESTINATION]
    """Where to."""

    gw: OptionalAddress = None
    """Through whom. Without it the gateway of the addresses of the same IP version."""

    mtu: Number | None = None
    """Packets of this size at most, in bytes."""

    advmss: Number | None = None
    """Maximum segment size to tell TCP's other end, in bytes."""

    priority: Number | None = None
    """The lower goes first."""

    table: Number | None = None
    """Routing table; `main` (254) without it."""

    scope: Annotated[int, Field(strict=True, ge=0, le=255)] | None = None
    """`rt_scope` of ip-route(8) as a number. Without it `link` (253) where there is no gateway,
    else `global` (0).
    """

    def as_json(self) -> JSON:
        """As a result has it."""
        return self.model_dump(mode="json", exclude_none=True)
