"""containerd with its CRI plugin, with every file it has in one folder."""

import errno
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.containers import images
from tests.kernel import judge
from tests.runtimes.containerd_config import configuration_of
from tests.runtimes.cri import CRI, CRIError
from tests.runtimes.runtime import JSON, NOTHING, Asked, Place, Pod, Refused, Runtime, fetched

NO_FIELD = "the CRI has no field for it"
GROUP = "/cni-netkit-pods"
GROUPS = Path("/sys/fs/cgroup")


class Containerd(Runtime):
    """One containerd. `handlers` are further runtime handlers with networks of their own."""

    lacks = {"mac": NO_FIELD, "ips": NO_FIELD}

    def __init__(
        self, place: Place, series: str, handlers: Mapping[str, Path] | None = None
    ) -> None:
        super().__init__(place)
        self.programs = fetched(f"containerd-{series}")
        self.second = series.startswith("2")
        self.newest = "1.1.0" if self.second else "1.0.0"
        self.socket = str(place.folder / "containerd.sock")
        self.handlers = handlers or {}
        self.log = place.folder / "log"
        self.cri: CRI | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers; at the first time give it the image."""
        first = not self.log.exists()
        configuration = self.place.folder / "config.toml"
        configuration.write_text(
            configuration_of(self.place, self.socket, self.handlers, second=self.second)
        )
        env = {**self.place.env, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "containerd", "--config", configuration], env=env, stderr=log
            )
        if self.cri is None:
            self.cri = CRI(self.socket, fetched("cri-api"))
        judge.wait_for(self._answers, f"containerd answers; {self.log} tells why not")
        if first:
            self._import_image()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            self._call("Version", seconds=5)
        except CRIError:
            return False
        return True

    def _import_image(self) -> None:
        file = images.busybox(self.place.folder / "image.tar")
        # The transfer service of 2.x would unpack for overlayfs only.
        local = ["--local"] if self.second else []
        command = ["images", "import", *local, "--snapshotter", "native", str(file)]
        judge.run(
            str(self.programs / "ctr"), "--address", self.socket, "--namespace", "k8s.io", *command
        )

    def kill(self) -> None:
        """SIGKILL; the shims keep the pods."""
        self._end(signal.SIGKILL)

    def end(self) -> None:
        """SIGTERM, and hang up."""
        self._end(signal.SIGTERM)
        if self.cri:
            self.cri.close()
        remove_group(GROUP)

    def _end(self, number: int) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(judge.DEADLINE)

    def configure(self, conflist: JSON) -> None:
        """And wait until it was read."""
        super().configure(conflist)
        name = f'"Name":"{conflist["name"]}"'
        judge.wait_for(
            lambda: (
                name in str(self._call("Status", verbose=True).get("info", {}).get("cniconfig", ""))
            ),
            f"containerd has read network {conflist['name']}",
        )

    def run(self, name: str, asked: Asked = NOTHING) -> Pod:
        """RunPodSandbox, as a kubelet asks for it."""
        if asked.mac or asked.ips:
            raise Refused(NO_FIELD)
        identity = str(uuid.uuid4())
        namespaces = {"network": "POD", "pid": "CONTAINER", "ipc": "POD"}
        config: JSON = {
            "metadata": {"name": name, "namespace": "default", "uid": identity, "attempt": 0},
            "hostname": name,
            "annotations": dict(asked.annotations),
            "log_directory": str(self.place.folder / "pods"),
            "linux": {
                "cgroup_parent": f"{GROUP}/{identity}",
                "security_context": {"namespace_options": namespaces},
            },
            "port_mappings": [
                {"protocol": "TCP", "host_port": host, "container_port": inside}
                for host, inside in asked.ports.items()
            ],
        }
        try:
            made = self._call("RunPodSandbox", config=config, runtime_handler=asked.handler)
        except CRIError as error:
            remove_group(f"{GROUP}/{identity}")
            raise Refused(str(error)) from None
        return self._pod(name, made["pod_sandbox_id"], f"{GROUP}/{identity}")

    def _pod(self, name: str, identifier: str, group: str) -> Pod:
        answer = self._call("PodSandboxStatus", pod_sandbox_id=identifier, verbose=True)
        network = answer["status"]["network"]
        addresses = [network["ip"], *(each["ip"] for each in network.get("additional_ips", []))]
        info = str(answer["info"]["info"])
        netns = info.partition("/netns/")[2].partition('"')[0]
        return Pod(name, identifier, netns, tuple(addresses), {"group": group})

    def describe(self, pod: Pod) -> tuple[bool, tuple[str, ...]]:
        """PodSandboxStatus."""
        status = self._call("PodSandboxStatus", pod_sandbox_id=pod.identifier)["status"]
        network = status.get("network", {})
        found = [network.get("ip"), *(each["ip"] for each in network.get("additional_ips", []))]
        # SANDBOX_READY is 0, which MessageToDict leaves out.
        return "state" not in status, tuple(filter(None, found))

    def stop(self, pod: Pod) -> None:
        """StopPodSandbox."""
        self._call("StopPodSandbox", pod_sandbox_id=pod.identifier)

    def remove(self, pod: Pod) -> None:
        """StopPodSandbox and RemovePodSandbox; then the pod's cgroup, which is the kubelet's."""
        self.stop(pod)
        self._call("RemovePodSandbox", pod_sandbox_id=pod.identifier)
        remove_group(pod.more["group"])

    def network_fault(self) -> str:
        """Status, condition NetworkReady."""
        (condition,) = (
            each
            for each in self._call("Status")["status"]["conditions"]
            if each["type"] == "NetworkReady"
        )
        return "" if condition.get("status") else str(condition.get("message"))

    def _call(self, method: str, **request: object) -> JSON:
        assert self.cri is not None
        return self.cri.call(method, **request)  # type: ignore[arg-type]


def remove_group(name: str) -> None:
    """Remove a cgroup, in every hierarchy; what still runs in it fails the test."""
    for folder in (Path(f"{GROUPS}{name}"), *GROUPS.glob(f"*{name}")):
        judge.wait_for(partial(_removed, folder), f"nothing runs in {folder}")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
