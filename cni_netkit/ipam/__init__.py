"""Who gives addresses: host-local and static built in, any other plugin executed."""

from cni_netkit.ipam.base import Invocation, Ipam
from cni_netkit.ipam.delegated import Delegated
from cni_netkit.ipam.host_local import HostLocal
from cni_netkit.ipam.static import Static

__all__ = ["Invocation", "Ipam", "choose"]


def choose(invocation: Invocation) -> Ipam:
    """The IPAM that the configuration names in ipam.type."""
    kind = invocation.config["ipam"]["type"]
    if kind == "host-local":
        return HostLocal(invocation)
    if kind == "static":
        return Static(invocation)
    return Delegated(invocation)
