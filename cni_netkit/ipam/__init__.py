"""Who gives addresses: host-local and static built in, any other plugin executed."""

from cni_netkit.attachment import Attachment
from cni_netkit.ipam.base import Invocation, Ipam
from cni_netkit.ipam.delegated import Delegated
from cni_netkit.ipam.host_local import HostLocal
from cni_netkit.record import Record
from cni_netkit.spec import version as versions
from cni_netkit.spec.config import NetConf
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.request import Request

__all__ = ["Invocation", "Ipam", "choose", "configured", "recorded"]


def choose(invocation: Invocation) -> Ipam:
    """The IPAM that the configuration names in ipam.type."""
    kind = invocation.config["ipam"]["type"]
    if kind == "host-local":
        return HostLocal(invocation)
    if kind == "static":
        from cni_netkit.ipam.static import Static  # few have it, and every call would pay

        return Static(invocation)
    return Delegated(invocation)


def configured(request: Request, conf: NetConf, attachment: Attachment) -> Ipam | None:
    """The IPAM of a configuration, to be asked for one attachment; None where it has none."""
    if conf.ipam is None:
        return None
    return choose(
        Invocation(
            config=request.config,
            version=request.version,
            network=attachment.network,
            container_id=attachment.container_id,
            ifname=attachment.ifname,
            netns=request.netns,
            arguments=request.arguments,
            path=request.path,
            environment=request.environment,
        )
    )


def recorded(request: Request, record: Record) -> Ipam | None:
    """The IPAM that the addresses came from, whatever the configuration says by now."""
    chosen = record.config.get("ipam")
    if not isinstance(chosen, dict):
        return None
    if not isinstance(chosen.get("type"), str):
        raise CNIError(
            Code.INVALID_CONFIGURATION, f"the record of {record.attachment} has no ipam.type"
        )
    return choose(
        Invocation(
            config=record.config,
            version=str(record.config.get("cniVersion", versions.SUPPORTED[0])),
            network=record.attachment.network,
            container_id=record.attachment.container_id,
            ifname=record.attachment.ifname,
            netns=request.netns or record.netns,
            path=request.path or record.path,
            environment={**request.environment, "CNI_ARGS": record.arguments},
        )
    )
