"""A node whose only container runtime is a containerd of the tests, and the DaemonSet's pod on it."""

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import api_pb2 as api
import grpc
import pytest
import yaml

from tests.containers import oci
from tests.kernel import judge
from tests.kernel.conftest import Answer, Node
from tests.kubernetes import containerd, kubelet

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
KUBECTL = os.environ.get("CNI_NETKIT_KUBECTL", "kubectl")
PLUGINS = os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS", "")
INSTALLED = "/opt/cni/bin/netkit"

# Folders of the node that containers see, and what the runtime and others keep.
OWN = ("/opt/cni", "/etc/cni", "/var/lib/cni", "/run/netns", "/run/cni-netkit", "/run/containerd")


@pytest.fixture(scope="session")
def manifest() -> list[JSON]:
    """What kustomize makes of the base."""
    rendered = judge.run(KUBECTL, "kustomize", str(ROOT / "conf/kubernetes/base"))
    return list(yaml.safe_load_all(rendered))


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[containerd.Containerd]:
    """A containerd with the images, and the plugins that nodes come with."""
    # Each of these tests may do what it likes to the node: it must not be the machine itself.
    assert os.readlink("/proc/self/ns/mnt") != os.readlink("/proc/1/ns/mnt"), (
        "use tests/kubernetes/run"
    )
    for own in OWN:
        os.makedirs(own, exist_ok=True)
        judge.run("mount", "-t", "tmpfs", "tmpfs", own)
        # As systemd has them: what the runtime mounts there is seen by containers.
        judge.run("mount", "--make-shared", own)
    judge.run("mount", "-t", "sysfs", "sysfs", "/sys")
    judge.run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    judge.run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    judge.run("ip", "link", "set", "lo", "up")
    os.makedirs("/opt/cni/bin")
    for plugin in ("loopback", "portmap"):
        shutil.copy(Path(PLUGINS, plugin), "/opt/cni/bin")
    folder = tmp_path_factory.mktemp("containerd")
    with containerd.running(folder) as made:
        made.load(_pause(folder / "pause.tar"))
        made.load(_cni_netkit(folder / "cni-netkit.tar"))
        yield made
    for cgroup, _, _ in os.walk(Path("/sys/fs/cgroup", kubelet.CGROUP), topdown=False):
        os.rmdir(cgroup)


def _pause(tar: Path) -> Path:
    busybox = Path("/bin/busybox").read_bytes()
    forever = {"Entrypoint": ["/busybox", "sleep", "2147483647"]}
    name = f"docker.io/library/{containerd.PAUSE}"
    return oci.write(tar, name, files={"busybox": busybox}, config=forever)


def _cni_netkit(tar: Path) -> Path:
    """The frame of a Debian system; see `Pod.container` for the rest."""
    installation = os.environ["CNI_NETKIT_INSTALLATION"]
    return oci.write(
        tar,
        "docker.io/library/cni-netkit:0.1.0",
        folders=("usr", "etc", "proc", "sys", "dev", "run", "tmp", "var", "opt", "host"),
        links={
            **{name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")},
            "opt/cni-netkit": f"{installation}/current",
        },
        config={"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
    )


@dataclass
class Pod:
    """The DaemonSet's pod on this node, as the manifest has it but for what a test changes."""

    runtime: containerd.Containerd
    spec: JSON
    files: Path
    sandbox: str = ""
    agent: str = ""

    def container(self, spec: JSON) -> Any:
        """A container of the pod, with an installation of this checkout as its image's content."""
        config = kubelet.container(self.spec, spec, {"configuration": self.files})
        given = ["/usr", os.environ["CNI_NETKIT_INSTALLATION"]]
        python = judge.run(
            f"{given[1]}/current/bin/python", "-c", "import sys; print(sys.base_prefix)"
        )
        if not python.startswith("/usr"):
            given.append(python.strip())
        for folder in given:
            config.mounts.add(host_path=folder, container_path=folder, readonly=True)
        return config

    def install(self) -> str:
        """Run the init container to its end; what it printed if it failed."""
        (spec,) = self.spec["initContainers"]
        made = self.runtime.start(self.sandbox, self.container(spec))
        return "" if self.runtime.exit_status(made) == 0 else self.runtime.log(made)

    def start(self) -> None:
        """Start the agent, and wait until its probe succeeds."""
        (spec,) = self.spec["containers"]
        self.agent = self.runtime.start(self.sandbox, self.container(spec))
        probe = spec["startupProbe"]["exec"]["command"]
        judge.wait_for(lambda: self._succeeds(probe), "the startup probe succeeds", 60)

    def probe(self, kind: str) -> tuple[int, str]:
        """Status and output of a probe."""
        (spec,) = self.spec["containers"]
        return self.runtime.execute(self.agent, *spec[f"{kind}Probe"]["exec"]["command"])

    def _succeeds(self, command: list[str]) -> bool:
        state = self.runtime.state(self.agent)
        assert state.state == api.CONTAINER_RUNNING, self.runtime.log(self.agent)
        try:
            return self.runtime.execute(self.agent, *command)[0] == 0
        except grpc.RpcError:  # it may have ended just now; then the next look tells
            return False


Change = Any
"""Makes something else of a pod specification, in place."""


@contextmanager
def daemon(
    runtime: containerd.Containerd, manifest: list[JSON], folder: Path, change: Change = None
) -> Iterator[Pod]:
    """The pod: its sandbox, its ConfigMap as files."""
    (settings,) = [each for each in manifest if each["kind"] == "ConfigMap"]
    for name, content in settings["data"].items():
        (folder / name).write_text(content)
    (described,) = [each for each in manifest if each["kind"] == "DaemonSet"]
    spec = copy.deepcopy(described["spec"]["template"]["spec"])
    if change:
        change(spec)
    pod = Pod(runtime, spec, folder)
    pod.sandbox = runtime.run_pod(
        kubelet.sandbox("cni-netkit", host_network=spec.get("hostNetwork", False))
    )
    try:
        yield pod
    finally:
        runtime.remove_pod(pod.sandbox)


def on_the_node(environment: dict[str, str], stdin: bytes) -> Answer:
    """A request as the runtime makes it: the installed launcher, executed on the node."""
    done = subprocess.run([INSTALLED], input=stdin, env=environment, stdout=subprocess.PIPE)
    return Answer(done.returncode, json.loads(done.stdout) if done.stdout else None)


@pytest.fixture
def node() -> Iterator[Node]:
    """The node, with containers that the test makes for itself."""
    made = Node(request=on_the_node)
    yield made
    made.clean_up()
    for name in made.containers:
        judge.run("ip", "netns", "del", name, check=False)
