"""A DRA driver of somebody else: `python -m tests.cluster.simulated_driver NAME POOL`, on a node.

It says yes to everything; what it has is in a ResourceSlice that the test writes.
"""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from cni_netkit.dra import (
    plugin_pb2,
    plugin_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)

KUBELET = Path("/var/lib/kubelet")


class Simulated(plugin_pb2_grpc.DRAPluginServicer, registration_pb2_grpc.RegistrationServicer):  # type: ignore[misc]
    """Driver and registration in one."""

    def __init__(self, name: str, pool: str, endpoint: Path) -> None:
        self._name, self._pool, self._endpoint = name, pool, endpoint

    def NodePrepareResources(self, request: Any, _context: Any) -> Any:  # noqa: N802
        answer = plugin_pb2.NodePrepareResourcesResponse()
        for each in request.claims:
            device = plugin_pb2.Device(
                request_names=["other"], pool_name=self._pool, device_name="device"
            )
            answer.claims[each.uid].devices.append(device)
        return answer

    def NodeUnprepareResources(self, request: Any, _context: Any) -> Any:  # noqa: N802
        answer = plugin_pb2.NodeUnprepareResourcesResponse()
        for each in request.claims:
            answer.claims[each.uid].SetInParent()
        return answer

    def GetInfo(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return registration_pb2.PluginInfo(
            type="DRAPlugin",
            name=self._name,
            endpoint=str(self._endpoint),
            supported_versions=["v1.DRAPlugin"],
        )

    def NotifyRegistrationStatus(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return registration_pb2.RegistrationStatusResponse()


def main(name: str, pool: str) -> None:
    """Serve until it is told to end."""
    endpoint = KUBELET / "plugins" / name / "dra.sock"
    endpoint.parent.mkdir(parents=True, exist_ok=True)
    served = Simulated(name, pool, endpoint)
    server = grpc.server(ThreadPoolExecutor(2))
    plugin_pb2_grpc.add_DRAPluginServicer_to_server(served, server)
    registration_pb2_grpc.add_RegistrationServicer_to_server(served, server)
    for path in (endpoint, KUBELET / "plugins_registry" / f"{name}-reg.sock"):
        path.unlink(missing_ok=True)
        server.add_insecure_port(f"unix://{path}")
    server.start()
    signal.sigwait([signal.SIGTERM])
    server.stop(0).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main(*sys.argv[1:])
