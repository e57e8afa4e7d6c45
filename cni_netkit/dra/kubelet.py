"""What the kubelet asks by gRPC: a registration, claims to be prepared or forgotten, NICs' health.

Follows k8s.io/kubelet/pkg/apis/pluginregistration/v1, .../dra/v1 and .../dra-health/v1alpha1: it
watches a folder of sockets for plugins, and asks each what it is and where it serves.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from cni_netkit import log
from cni_netkit.claims import Claim, Claims
from cni_netkit.dra import (
    api,
    claims,
    health_pb2,
    health_pb2_grpc,
    plugin_pb2,
    plugin_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)
from cni_netkit.dra.inventory import DRIVER, Device, device_name
from cni_netkit.errors import as_cni_error

KUBELET = Path("/var/lib/kubelet")
WORKERS = 8
"""A stream of health occupies one, also one whose kubelet has gone, for a moment."""

STOP_SECONDS = 5.0
HEALTH_SECONDS = 10
"""How often health is told that has not changed."""

HEALTH_TIMEOUT_SECONDS = 60
"""What a kubelet has not heard of for so long is of unknown health."""

SERVICE = "v1.DRAPlugin"
"""DRAPluginService of k8s.io/kubelet/pkg/apis/dra/v1."""


class Driver(plugin_pb2_grpc.DRAPluginServicer):  # type: ignore[misc]
    """Answers for claims. Each may be asked for any number of times, in any order."""

    def __init__(self, node: str, get: Callable[[str, str], Any] = api.claim) -> None:
        self._node, self._get, self._rows = node, get, Claims()
        self._lock = threading.Lock()
        self._unprepared: set[str] = set()
        self.counted: Counter[tuple[str, str]] = Counter()
        """Claims by what was asked, `prepare` or `unprepare`, and whether that was `ok`."""

    def NodePrepareResources(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """Write the row of each claim, for the ADD that follows."""
        answer = plugin_pb2.NodePrepareResourcesResponse()
        for each in request.claims:
            said = answer.claims[each.uid]
            try:
                row = self._prepare(each)
            except Exception as error:
                said.error = _words(error)
                self.counted["prepare", "refused"] += 1
                log.error(
                    "claim not prepared", claim=f"{each.namespace}/{each.name}", problem=said.error
                )
            else:
                self.counted["prepare", "ok"] += 1
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
        with self._lock:
            self._unprepared.discard(row.uid)
            self._rows.save(row)
        return row

    def restore(self, row: Claim) -> bool:
        """Write a row that is missing, unless its claim has been unprepared; whether it was.

        The API server has a claim reserved for its pod until that is gone, which is after that.
        """
        with self._lock:
            if row.uid in self._unprepared:
                return False
            self._rows.save(row)
        return True

    def NodeUnprepareResources(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """Forget each claim; also one that was never known."""
        answer = plugin_pb2.NodeUnprepareResourcesResponse()
        for each in request.claims:
            said = answer.claims[each.uid]
            try:
                with self._lock:
                    self._unprepared.add(each.uid)
                    self._rows.remove(each.uid)
            except Exception as error:
                said.error = _words(error)
                self.counted["unprepare", "refused"] += 1
            else:
                self.counted["unprepare", "ok"] += 1
                log.info("claim forgotten", claim=f"{each.namespace}/{each.name}")
        return answer


class Health(health_pb2_grpc.DRAResourceHealthServicer):  # type: ignore[misc]
    """Tells whether each NIC is well; a pod's `allocatedResourcesStatus` says so of its own."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._news = threading.Condition()
        self._devices: dict[str, str] | None = None
        self._ended = False

    def end(self) -> None:
        """End all streams: a server that stops waits for what is asked of it."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def tell(self, devices: Iterable[Device]) -> None:
        """What there is to be told from now on."""
        found = {each.name: each.problem for each in devices}
        with self._news:
            if found != self._devices:
                self._devices = found
                self._news.notify_all()

    def NodeWatchResources(self, _request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """All that is known, whenever it has changed, and now and then."""
        context.add_callback(self._wake)
        told: dict[str, str] | None = None
        while self._is_wanted(context):
            told = self._news_since(told, context)
            if told is not None:
                yield self._response(told)

    def _is_wanted(self, context: Any) -> bool:
        return not self._ended and bool(context.is_active())

    def _news_since(self, told: dict[str, str] | None, context: Any) -> dict[str, str] | None:
        with self._news:
            self._news.wait_for(
                lambda: self._devices != told or not self._is_wanted(context), HEALTH_SECONDS
            )
            return self._devices

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def _response(self, devices: dict[str, str]) -> Any:
        return health_pb2.NodeWatchResourcesResponse(
            devices=[
                health_pb2.DeviceHealth(
                    device=health_pb2.DeviceIdentifier(pool_name=self._node, device_name=name),
                    health=health_pb2.UNHEALTHY if problem else health_pb2.HEALTHY,
                    last_updated_time=int(time.time()),
                    health_check_timeout_seconds=HEALTH_TIMEOUT_SECONDS,
                    message=problem,
                )
                for name, problem in devices.items()
            ]
        )


class Registrar(registration_pb2_grpc.RegistrationServicer):  # type: ignore[misc]
    """Tells the kubelet where the driver serves."""

    def __init__(self, endpoint: Path, registered: Callable[[bool], None]) -> None:
        self._endpoint, self._registered = endpoint, registered

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
        self._registered(request.plugin_registered)
        if request.plugin_registered:
            log.info("registered with the kubelet")
        else:
            log.error("the kubelet does not take this driver", problem=request.error)
        return registration_pb2.RegistrationStatusResponse()


@contextlib.contextmanager
def served(
    driver: Driver, health: Health, registered: Callable[[bool], None], kubelet: Path = KUBELET
) -> Iterator[None]:
    """Serve, first the driver, then its registration; `registered` is told what became of that.

    Raises OSError.
    """
    own = kubelet / "plugins" / DRIVER / "dra.sock"
    registry = kubelet / "plugins_registry" / f"{DRIVER}-reg.sock"
    with contextlib.ExitStack() as stack:
        for path in (own, registry):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        plugin = _server(stack, own)
        plugin_pb2_grpc.add_DRAPluginServicer_to_server(driver, plugin)
        health_pb2_grpc.add_DRAResourceHealthServicer_to_server(health, plugin)
        plugin.start()
        stack.callback(health.end)
        registration = _server(stack, registry)
        registrar = Registrar(own, registered)
        registration_pb2_grpc.add_RegistrationServicer_to_server(registrar, registration)
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
