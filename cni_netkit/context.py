"""Opening what a request acts on: the two namespaces, IPAM, the store."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from cni_netkit import ipam
from cni_netkit.attachment import Attachment, bears
from cni_netkit.kernel.errors import KernelError, NoNamespace, ProgramError
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.spec import version as versions
from cni_netkit.spec.config import NetConf
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.request import Request
from cni_netkit.state import Record, Store
from cni_netkit.steps.base import Context

ADVICE = {
    errno.EPERM: "the plugin must run as root",
    errno.EROFS: "in a container the agent needs /proc/sys mounted writable: "
    "mount -o remount,bind,rw /proc/sys",
}
"""What to do where the kernel refused, by errno."""


@contextmanager
def open_context(
    request: Request, store: Store, attachment: Attachment, *, netns: str = "", must_exist: bool
) -> Iterator[Context]:
    """The world of one attachment; its container's namespace is None where there is none.

    `netns`: its path where the request has none.

    Raises error 8 where container and plugin share a namespace, before anything is touched, and
    error 3 where a namespace that must exist is gone.
    """
    with ExitStack() as stack:
        host = Namespace.current()
        stack.callback(host.close)
        container = _container(request, netns, must_exist)
        if container is not None:
            stack.callback(container.close)
            if container.netns.identity == host.netns.identity and not request.netns_override:
                raise CNIError(
                    Code.SAME_NAMESPACE,
                    f"CNI_NETNS {request.netns} is the network namespace of the plugin itself",
                    "CNI_NETNS_OVERRIDE=1 makes it go on all the same",
                )
        yield Context(
            attachment=attachment,
            host=host,
            container=container,
            ipam=None,
            holders=lambda nic: holders(store, nic),
            lock=store.lock,
        )


def holders(store: Store, nic: str) -> dict[int, str]:
    """Which attachment holds which queue of a NIC, as far as records tell."""
    found: dict[int, str] = {}
    for record in store.all():
        leases = next((step for step in record.steps if step.get("step") == "leases"), None)
        if leases and leases.get("nic") == nic:
            for queue, _ in record.outcome.get("leases", ()):
                found[queue] = str(record.attachment)
    return found


def netns_of(record: Record) -> str:
    """The path of a record's namespace, if it still leads to the same one."""
    try:
        namespace = Namespace.at(record.netns)
    except NoNamespace:
        return ""
    same = list(namespace.netns.identity) == record.netns_identity
    namespace.close()
    return record.netns if same else ""


def device_of(record: Record) -> Link | None:
    """The single device of a record, wherever the path of its namespace leads by now."""
    nsid = record.outcome.get("container_nsid")
    if nsid is None:
        return None
    host = Namespace.current()
    try:
        found = host.link_in(
            nsid, record.attachment.ifname, record.outcome.get("container_index", 0)
        )
    finally:
        host.close()
    return found if found and bears(found.alias, record.attachment.alias) else None


def ipam_of(request: Request, conf: NetConf, attachment: Attachment) -> ipam.Ipam | None:
    """The IPAM of a configuration, to be asked for one attachment; None where it has none."""
    if conf.ipam is None:
        return None
    return ipam.choose(
        ipam.Invocation(
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


def recorded_ipam(request: Request, record: Record) -> ipam.Ipam | None:
    """The IPAM that the addresses came from, whatever the configuration says by now."""
    if not isinstance(record.config.get("ipam"), dict):
        return None
    path: Sequence[str] = request.path or record.path
    return ipam.choose(
        ipam.Invocation(
            config=record.config,
            version=str(record.config.get("cniVersion", versions.SUPPORTED[0])),
            network=record.attachment.network,
            container_id=record.attachment.container_id,
            ifname=record.attachment.ifname,
            netns=request.netns or record.netns,
            path=path,
            environment={**request.environment, "CNI_ARGS": record.arguments},
        )
    )


def as_cni_error(error: BaseException) -> CNIError:
    """The one seam at which other errors become CNI errors."""
    if isinstance(error, CNIError):
        return error
    if isinstance(error, KernelError):
        return _refused(error)
    if isinstance(error, NoNamespace):
        return CNIError(Code.UNKNOWN_CONTAINER, str(error), "the container may be gone already")
    if isinstance(error, ProgramError):
        return CNIError(Code.BPF_NOT_ATTACHABLE, str(error), "cni-netkit doctor looks at the NICs")
    if isinstance(error, OSError):
        return CNIError(Code.IO_FAILURE, f"{error.filename or 'input or output'}: {error.strerror}")
    return CNIError(
        Code.INTERNAL,
        f"internal error: {type(error).__name__}: {error}",
        "this is a fault of cni-netkit; please report it with the log",
    )


def _refused(error: KernelError) -> CNIError:
    if error.errno == errno.EEXIST:
        return CNIError(Code.ALREADY_EXISTS, str(error), "what existed before was left as it is")
    return CNIError(Code.KERNEL_REFUSED, str(error), ADVICE.get(error.errno, ""))


def valid_attachments(config: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(container id, CNI_IFNAME) of what a GC must keep. No list at all means: nothing.

    Raises error 7 for a list that cannot be read, since guessing would delete what is in use.
    """
    key = "cni.dev/valid-attachments"
    if key not in config:
        key = "cni.dev/attachments"
    listed = config.get(key) or []
    try:
        return {(str(each["containerID"]), str(each["ifname"])) for each in listed}
    except (TypeError, KeyError):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"{key} is no list of objects with containerID and ifname",
            "nothing was removed",
        ) from None


def _container(request: Request, netns: str, must_exist: bool) -> Namespace | None:
    path = request.netns or netns
    if not path:
        return None
    try:
        if request.netns and request.netns_descriptor is not None:
            return Namespace.behind(request.netns_descriptor, path, request.route_descriptor)
        return Namespace.at(path)
    except NoNamespace as error:
        if must_exist:
            raise as_cni_error(error) from None
        return None
