"""What the steps of one attachment act on: both namespaces, IPAM, the record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_netkit import records
from cni_netkit.attachment import Attachment
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.errors import NoNamespace
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.record import Record
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.request import Request
from cni_netkit.state import Store

if TYPE_CHECKING:
    from cni_netkit.ipam import Ipam
    from cni_netkit.outcome import Outcome


@dataclass(frozen=True)
class Context:
    """`container` is None where the container's namespace is gone, `ipam` where there is none.

    `record` is None where it was lost: then there is nothing to save.
    """

    attachment: Attachment
    host: Namespace
    container: Namespace | None
    ipam: Ipam | None
    store: Store
    record: Record | None

    @property
    def inside(self) -> Namespace:
        """The container's namespace, where it must be there."""
        if self.container is None:
            raise CNIError(
                Code.UNKNOWN_CONTAINER, f"the network namespace of {self.attachment} is gone"
            )
        return self.container

    def lock(self, what: str) -> AbstractContextManager[None]:
        """Keep other processes from the same thing meanwhile."""
        return self.store.lock(what)

    def holders(self, nic: str) -> dict[int, str]:
        """The attachments that hold queues of a NIC, by queue number."""
        return records.holders(self.store.all(), nic)

    def addressed(self, address: str) -> Attachment | None:
        """Another attachment that has an address, as far as records tell."""
        return records.addressed(self.store, address, self.attachment)

    def save(self, outcome: Outcome) -> None:
        """Put the outcome so far on record.

        For a step that could not be undone without it if this process died.
        """
        if self.record is not None:
            self.record.outcome = outcome.as_dict()
            self.store.update(self.record)


@contextmanager
def namespaces(
    request: Request, *, netns: str = "", must_exist: bool
) -> Iterator[tuple[Namespace, Namespace | None]]:
    """The host's namespace and the container's, which is None where there is none.

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
        yield host, container


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
