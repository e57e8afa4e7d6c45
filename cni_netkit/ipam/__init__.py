"""Who gives addresses: host-local and static built in, any other plugin executed."""

from cni_netkit.ipam.base import Context, Ipam
from cni_netkit.ipam.delegated import Delegated
from cni_netkit.ipam.host_local import HostLocal
from cni_netkit.ipam.static import Static

__all__ = ["Context", "Ipam", "choose"]


def choose(context: Context) -> Ipam:
    """The IPAM that the configuration names in ipam.type."""
    kind = context.config["ipam"]["type"]
    if kind == "host-local":
        return HostLocal(context)
    if kind == "static":
        return Static(context)
    return Delegated(context)
