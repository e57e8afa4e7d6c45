"""The "ipam" object of type static, as the reference plugin reads it."""

from typing import Annotated

from pydantic import ConfigDict

from cni_netkit.spec.addresses import Interface
from cni_netkit.spec.dns import DNS
from cni_netkit.spec.forms import INTERFACE, OptionalAddress
from cni_netkit.spec.model import Shared
from cni_netkit.spec.routes import Route


class StaticAddress(Shared):
    """An address with its prefix length, and its gateway."""

    address: Annotated[Interface, INTERFACE]
    """The address."""

    gateway: OptionalAddress = None
    """The gateway."""

    version: str = ""
    """Of no meaning: the address tells it. The reference plugin reads it."""


class StaticDNS(Shared, DNS):
    """Of the result; `dns` beside `ipam` overrides it."""

    model_config = ConfigDict(extra="forbid")


class StaticConf(Shared):
    """The "ipam" object of type static."""

    type: str = "static"
    """`static`."""

    name: str = ""
    """Of no meaning; the reference plugin reads it."""

    addresses: tuple[StaticAddress, ...] = ()
    """The container's addresses, unless the request asks for others."""

    routes: tuple[Route, ...] = ()
    """Routes in the container."""

    dns: StaticDNS = StaticDNS()
    """Name servers for the result."""
