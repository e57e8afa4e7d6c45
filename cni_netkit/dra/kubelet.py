"""What the kubelet asks: a registration, claims to be prepared, claims to be unprepared; by gRPC.

Follows k8s.io/kubelet/pkg/apis/pluginregistration/v1 and .../dra/v1: it watches a folder of sockets
for plugins, and asks each what it is and where it serves.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from cni_netkit import log
from cni_netkit.claims import Claim, Claims
from cni_netkit.dra import (
    api,
    claims,
    plugin_pb2,
    plugin_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)
from cni_netkit.dra.inventory import DRIVER, device_name
from cni_netkit.errors import as_cni_error

KUBELET = Path("/var/lib/kubelet")
WORKERS = 4
STOP_SECONDS = 5.0
SERVICE = "v1.DRAPlugin"
"""DRAPluginService of k8s.io/kubelet/pkg/apis/dra/v1."""


class Driver(plugin_pb2_grpc.DRAPluginServicer):  # type: ignore[misc]
    """Answers for claims. Each may be asked for any number of times, in any order."""

    def __init__(self, node: str, get: Callable[[str, str], Any] = api.claim) -> None:
        self._node, self._get, self._rows = node, get, Claims()

    def NodePrepareResources(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """Write the row of each claim, for the ADD that follows."""
        answer = plugin_pb2.NodePrepareResourcesResponse()
        for each in request.claims:
            said = answer.claims[each.uid]
            try:
                row = self._prepare(each)
            except Exception as error:
                said.error = _words(error)
                log.error(
                    "claim not prepared", claim=f"{each.namespace}/{each.name}", problem=said.error
                )
            else:
                log.info("claim prepared", claim=str(row), pod=row.pod)
                said.devices.extend(
                    plugin_pb2.Device(
                        request_names=[share.request],
                        pool_name=self._node,
                        device_name=device_name(share.nic),
                        share_id=share.share or None,
                    )
                    for share in row.shares
                )
        return answer

    def _prepare(self, asked: Any) -> Claim:
        found = self._get(asked.namespace, asked.name)
        if found is None or found["metadata"]["uid"] != asked.uid:
            raise claims.Refused(f"claim {asked.namespace}/{asked.name} ({asked.uid}) is gone")
        row = claims.read(found)
        self._rows.save(row)
        return row

    def NodeUnprepareResources(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """Forget each claim; also one that was never known."""
        answer = plugin_pb2.NodeUnprepareResourcesResponse()
        for each in request.claims:
            said = answer.claims[each.uid]
            try:
                self._rows.remove(each.uid)
            except Exception as error:
                said.error = _words(error)
            else:
                log.info("claim forgotten", claim=f"{each.namespace}/{each.name}")
        return answer


class Registrar(registration_pb2_grpc.RegistrationServicer):  # type: ignore[misc]
    """Tells the kubelet where the driver serves."""

    def __init__(self, endpoint: Path) -> None:
        self._endpoint = endpoint

    def GetInfo(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Who this is."""
        return registration_pb2.PluginInfo(
            type="DRAPlugin",
            name=DRIVER,
            endpoint=str(self._endpoint),
            supported_versions=[SERVICE],
        )

    def NotifyRegistrationStatus(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """What the kubelet made of it."""
        if request.plugin_registered:
            log.info("registered with the kubelet")
        else:
            log.error("the kubelet does not take this driver", problem=request.error)
        return registration_pb2.RegistrationStatusResponse()


@contextlib.contextmanager
def served(driver: Driver, kubelet: Path = KUBELET) -> Iterator[None]:
    """Serve, first the driver, then its registration. Raises OSError."""
    own = kubelet / "plugins" / DRIVER / "dra.sock"
    registry = kubelet / "plugins_registry" / f"{DRIVER}-reg.sock"
    with contextlib.ExitStack() as stack:
        for path in (own, registry):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        plugin = _server(stack, own)
        plugin_pb2_grpc.add_DRAPluginServicer_to_server(driver, plugin)
        plugin.start()
        registration = _server(stack, registry)
        registration_pb2_grpc.add_RegistrationServicer_to_server(Registrar(own), registration)
        registration.start()
        yield


def _server(stack: contextlib.ExitStack, path: Path) -> Any:
    server = grpc.server(ThreadPoolExecutor(WORKERS, path.stem))
    server.add_insecure_port(f"unix://{path}")
    stack.callback(path.unlink, missing_ok=True)
    stack.callback(lambda: server.stop(STOP_SECONDS).wait())
    return server


def _words(error: Exception) -> str:
    if isinstance(error, claims.Refused | api.Unreachable):
        return str(error)
    failure = as_cni_error(error)
    return "; ".join(filter(None, (failure.message, failure.details)))
