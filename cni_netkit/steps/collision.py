"""An address that is taken already: who has it, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_netkit.attachment import Attachment, parse_alias
from cni_netkit.spec.errors import CNIError, Code

if TYPE_CHECKING:
    from cni_netkit.context import Context
    from cni_netkit.kernel.errors import KernelError
    from cni_netkit.kernel.model import Link

LEFT = "what existed before was left as it is"


def by_device(
    context: Context, refusal: KernelError, address: str, device: Link | None
) -> CNIError:
    """Error 103: the host has a route to the address, through a device if that could be found."""
    holder = parse_alias(device.alias) if device else None
    if holder and device:
        return _by_attachment(context, refusal, address, holder, f" (device {device.name})")
    if device:
        who = f"the device {device.name} on the host, which is not of cni-netkit"
    elif recorded := context.addressed(address):
        return _by_attachment(context, refusal, address, recorded, " (by its record)")
    else:
        who = "a route on the host, which is not of cni-netkit"
    return _taken(
        refusal,
        address,
        who,
        f"ip route show table all {address} shows the route; remove it if nobody needs it, or "
        f"give network {context.attachment.network} addresses of its own (ipam)",
    )


def by_alias(context: Context, refusal: KernelError, address: str, alias: str) -> CNIError:
    """Error 103: something in the kernel that bears an alias of ours has to do with the address."""
    holder = parse_alias(alias) or context.addressed(address)
    if holder:
        return _by_attachment(context, refusal, address, holder, "")
    return _taken(refusal, address, "another attachment", "cni-netkit list shows the addresses")


def _by_attachment(
    context: Context, refusal: KernelError, address: str, holder: Attachment, how: str
) -> CNIError:
    own = context.attachment.network
    remedy = "each of its containers needs an address of its own"
    if holder.network != own:
        remedy = (
            f"give the networks {holder.network} and {own} ranges that do not overlap (ipam); "
            "cni-netkit doctor names networks that do"
        )
    return _taken(refusal, address, f"{holder}{how}", remedy)


def _taken(refusal: KernelError, address: str, who: str, remedy: str) -> CNIError:
    return CNIError(
        Code.ALREADY_EXISTS,
        f"{refusal}: the address {address} is taken by {who}",
        f"{remedy}; {LEFT}",
    )
