"""The Container Runtime Interface as a kubelet speaks it: gRPC over a Unix socket.

Requests and answers are plain objects; what they may hold is read from Kubernetes' own api.proto
(service runtime.v1.RuntimeService), so that no code is generated. What is zero is left out of answers.
"""

import base64
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import grpc

from tests.containers.cgroups import remove_group
from tests.containers.described import Service
from tests.containers.fetched import fetched
from tests.kernel import judge

SERVICE = "runtime.v1.RuntimeService"
SECONDS = 240.0
"""What a kubelet waits for RunPodSandbox: twice its runtimeRequestTimeout."""

GROUP = "/cni-netkit-pods"
"""In place of a kubelet's /kubepods."""

JSON = dict[str, Any]


class CRIError(Exception):
    """The runtime refused; its own words."""


def sandbox(
    name: str,
    *,
    namespace: str = "default",
    annotations: Mapping[str, str] | None = None,
    ports: Mapping[int, int] | None = None,
    host_network: bool = False,
) -> JSON:
    """A PodSandboxConfig as a kubelet makes it; `ports`: the node's port to the pod's, TCP."""
    identity = str(uuid.uuid4())
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": identity},
        "hostname": "" if host_network else name,
        "annotations": dict(annotations or {}),
        "linux": {
            "cgroup_parent": f"{GROUP}/pod{identity}",
            "security_context": {"namespace_options": namespaces(host_network=host_network)},
        },
        "port_mappings": [
            {"protocol": "TCP", "host_port": host, "container_port": inside}
            for host, inside in (ports or {}).items()
        ],
    }


def namespaces(*, host_network: bool) -> JSON:
    """NamespaceOption, which a pod and its containers have alike."""
    return {"network": "NODE" if host_network else "POD", "pid": "CONTAINER", "ipc": "POD"}


@cache
def service() -> Service:
    """The service that api.proto describes."""
    return Service(fetched("cri-api"), "api.proto", SERVICE)


class CRI:
    """A connection to a runtime. Containers' logs go to `logs`. All raise `CRIError`."""

    def __init__(self, socket: Path, logs: Path) -> None:
        self._logs = logs
        # Retries of gRPC's own would hide for how long the runtime is away.
        self._channel = grpc.insecure_channel(f"unix://{socket}")
        self._configs: dict[str, JSON] = {}

    def call(self, method: str, seconds: float = SECONDS, **request: Any) -> JSON:
        """One request."""
        try:
            return service().call(self._channel, method, seconds, **request)
        except grpc.RpcError as error:
            raise CRIError(f"{method}: {error.code().name}: {error.details()}") from None

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def condition(self, name: str) -> JSON:
        """RuntimeReady or NetworkReady: `status`, and otherwise a `message`."""
        conditions = self.call("Status", seconds=5)["status"]["conditions"]
        return dict(next(each for each in conditions if each["type"] == name))

    # --- pods ---------------------------------------------------------------------------------------

    def run_pod(self, config: JSON, handler: str = "") -> str:
        """Start a pod's sandbox; its id."""
        config = {**config, "log_directory": str(self._logs)}
        try:
            made = self.call("RunPodSandbox", config=config, runtime_handler=handler)
        except CRIError:
            remove_group(config["linux"]["cgroup_parent"])
            raise
        pod = str(made["pod_sandbox_id"])
        self._configs[pod] = config
        return pod

    def status(self, pod: str) -> JSON:
        """PodSandboxStatus, with what the runtime itself says of it."""
        return self.call("PodSandboxStatus", pod_sandbox_id=pod, verbose=True)

    def stop_pod(self, pod: str) -> None:
        """Stop a pod; may be repeated."""
        self.call("StopPodSandbox", pod_sandbox_id=pod)

    def remove_pod(self, pod: str) -> None:
        """Stop and remove a pod with its containers, and its control group, which is the kubelet's."""
        self.stop_pod(pod)
        self.call("RemovePodSandbox", pod_sandbox_id=pod)
        if config := self._configs.pop(pod, None):
            remove_group(config["linux"]["cgroup_parent"])

    def remove_all(self, but: str = "") -> None:
        """Remove every pod, or every one but one."""
        for each in self.call("ListPodSandbox").get("items", []):
            if each["id"] != but:
                self.remove_pod(each["id"])

    # --- containers ---------------------------------------------------------------------------------

    def start(self, pod: str, config: JSON) -> str:
        """Create a container and start it; its id."""
        made = self.call(
            "CreateContainer",
            pod_sandbox_id=pod,
            config=config,
            sandbox_config=self._configs[pod],
        )
        container = str(made["container_id"])
        self.call("StartContainer", container_id=container)
        return container

    def runs(self, container: str) -> bool:
        """Whether it does."""
        return bool(self._container(container).get("state") == "CONTAINER_RUNNING")

    def exit_status(self, container: str) -> int:
        """Wait for the end of a container; its exit status."""
        ended = judge.wait_for(lambda: self._ended(container), "the container ends", SECONDS)
        return int(ended.get("exit_code", 0))

    def execute(self, container: str, *command: str) -> tuple[int, str]:
        """Run a command in a container, as an exec probe does; its status and its output."""
        done = self.call("ExecSync", container_id=container, cmd=command, timeout=int(SECONDS))
        said = b"".join(base64.b64decode(done.get(name, "")) for name in ("stdout", "stderr"))
        return int(done.get("exit_code", 0)), said.decode()

    def log(self, container: str) -> str:
        """What a container printed."""
        return Path(self._container(container)["log_path"]).read_text()

    def stop(self, container: str, seconds: int) -> None:
        """Stop a container as a kubelet does: SIGTERM, then SIGKILL."""
        self.call("StopContainer", container_id=container, timeout=seconds)

    def _container(self, container: str) -> JSON:
        return dict(self.call("ContainerStatus", container_id=container)["status"])

    def _ended(self, container: str) -> JSON | None:
        status = self._container(container)
        return status if status.get("state") == "CONTAINER_EXITED" else None
