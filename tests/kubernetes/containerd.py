"""A containerd of one's own, and the calls that a kubelet makes."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import api_pb2 as api
import api_pb2_grpc as services
import grpc

from tests.kernel import judge

PAUSE = "pause:lab"
SECONDS = 120

# Without plugins that need what a lab does not have; the snapshotter that needs nothing at all.
VERSION_1 = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin" # Debian's 1.7 has another default
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
"""
VERSION_2 = """
version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "docker.io/library/{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  enable_cdi = false
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    snapshotter = "native"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
"""


class Containerd:
    """The Container Runtime Interface of a running containerd."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.version = version
        self._channel = grpc.insecure_channel(f"unix://{folder}/containerd.sock")
        self.runtime = services.RuntimeServiceStub(self._channel)
        self._configs: dict[str, Any] = {}

    def conditions(self) -> dict[str, Any]:
        """RuntimeReady and NetworkReady, as the kubelet polls them."""
        answer = self.runtime.Status(api.StatusRequest(), timeout=SECONDS)
        return {each.type: each for each in answer.status.conditions}

    def load(self, image: Path) -> None:
        """Import an image."""
        judge.run(
            *("ctr", "--address", f"{self.folder}/containerd.sock", "--namespace", "k8s.io"),
            # The transfer service of 2.x unpacks for another snapshotter.
            *("images", "import", *(["--local"] if self.version > 1 else [])),
            *("--snapshotter", "native", str(image)),
        )

    def run_pod(self, config: Any) -> str:
        """Start a sandbox; its id."""
        config.log_directory = str(self.folder)
        request = api.RunPodSandboxRequest(config=config)
        pod = str(self.runtime.RunPodSandbox(request, timeout=SECONDS).pod_sandbox_id)
        self._configs[pod] = config
        return pod

    def address(self, pod: str) -> str:
        """The pod's address."""
        request = api.PodSandboxStatusRequest(pod_sandbox_id=pod)
        return str(self.runtime.PodSandboxStatus(request, timeout=SECONDS).status.network.ip)

    def start(self, pod: str, config: Any) -> str:
        """Create a container and start it; its id."""
        request = api.CreateContainerRequest(
            pod_sandbox_id=pod, config=config, sandbox_config=self._configs[pod]
        )
        made = str(self.runtime.CreateContainer(request, timeout=SECONDS).container_id)
        self.runtime.StartContainer(api.StartContainerRequest(container_id=made), timeout=SECONDS)
        return made

    def state(self, container: str) -> Any:
        """The state of a container, with its exit status."""
        request = api.ContainerStatusRequest(container_id=container)
        return self.runtime.ContainerStatus(request, timeout=SECONDS).status

    def exit_status(self, container: str) -> int:
        """Wait for the end of a container; its exit status."""
        judge.wait_for(
            lambda: self.state(container).state == api.CONTAINER_EXITED, "it ends", SECONDS
        )
        return int(self.state(container).exit_code)

    def execute(self, container: str, *command: str, seconds: int = SECONDS) -> tuple[int, str]:
        """Run a command in a container, as an exec probe does; its status and its output."""
        request = api.ExecSyncRequest(container_id=container, cmd=command, timeout=seconds)
        done = self.runtime.ExecSync(request, timeout=SECONDS)
        return done.exit_code, (done.stdout + done.stderr).decode()

    def log(self, container: str) -> str:
        """What a container printed."""
        return Path(self.state(container).log_path).read_text()

    def stop(self, container: str, seconds: int) -> None:
        """Stop a container as the kubelet does: SIGTERM, then SIGKILL."""
        request = api.StopContainerRequest(container_id=container, timeout=seconds)
        self.runtime.StopContainer(request, timeout=SECONDS)

    def remove_pod(self, pod: str) -> None:
        """Stop and remove a pod with its containers."""
        self.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=SECONDS)
        self.runtime.RemovePodSandbox(
            api.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=SECONDS
        )
        self._configs.pop(pod, None)

    def remove_all(self, but: str = "") -> None:
        """Remove every pod, or every one but one."""
        answer = self.runtime.ListPodSandbox(api.ListPodSandboxRequest(), timeout=SECONDS)
        for each in answer.items:
            if each.id != but:
                self.remove_pod(each.id)


@contextmanager
def running(folder: Path) -> Iterator[Containerd]:
    """A containerd whose state is in `folder`, with `containerd`, `ctr` and `runc` from PATH."""
    told = judge.run("containerd", "--version").split()
    version = int(next(word for word in told if word[:1].isdigit()).partition(".")[0])
    template = VERSION_1 if version == 1 else VERSION_2
    config = folder / "config.toml"
    runc = judge.run("which", "runc").strip()
    config.write_text(template.format(folder=folder, pause=PAUSE, runc=runc))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["containerd", "--config", config], stdout=log, stderr=log, env=os.environ
        )
    containerd = Containerd(folder, version)
    try:
        judge.wait_for(lambda: _answers(containerd, process), "containerd answers", SECONDS)
        yield containerd
        containerd.remove_all()
    except BaseException:
        print((folder / "log").read_text()[-8000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _answers(containerd: Containerd, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "containerd ended"
    try:
        return bool(containerd.conditions()["RuntimeReady"].status)
    except grpc.RpcError:
        return False
