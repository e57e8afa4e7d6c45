"""A node whose only container runtime is a containerd of the tests, and the DaemonSet's pod on it."""

import copy
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni_netkit.node.conflist import Template, write
from tests.containers.cgroups import remove_group
from tests.containers.containerd import Containerd
from tests.containers.containerd_config import Settings
from tests.containers.cri import CRI, GROUP, CRIError, sandbox
from tests.kernel import judge
from tests.kernel.conftest import Answer, Node
from tests.kubernetes import kubelet

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
KUBECTL = os.environ.get("CNI_NETKIT_KUBECTL", "kubectl")
PLUGINS = os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS", "")
CONFLIST = Path("/etc/cni/net.d/10-netkit.conflist")
INSTALLED = "/opt/cni/bin/netkit"

# Folders of the node that containers see, and what the runtime and others keep.
OWN = ("/opt/cni", "/etc/cni", "/var/lib/cni", "/run/netns", "/run/cni-netkit", "/run/containerd")


@pytest.fixture(scope="session")
def manifest() -> list[JSON]:
    """What kustomize makes of the base."""
    rendered = judge.run(KUBECTL, "kustomize", str(ROOT / "conf/kubernetes/base"))
    return list(yaml.safe_load_all(rendered))


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CRI]:
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
    # overlayfs wants another file system below it than this one may be.
    run = Path("/run/containerd")
    made = Containerd(folder, "2", Settings(run / "root", run / "state", snapshotter="overlayfs"))
    try:
        made.start(*Path(os.environ["CNI_NETKIT_IMAGES"]).glob("*.tar"))
        yield made.cri
        made.cri.remove_all()
    finally:
        made.end()
        remove_group(GROUP)


@dataclass
class Pod:
    """The DaemonSet's pod on this node, as the manifest has it but for what a test changes."""

    runtime: CRI
    spec: JSON
    files: Path
    sandbox: str = ""
    agent: str = ""

    def install(self) -> str:
        """Run the init container to its end; what it printed if it failed."""
        made = self._run("initContainers", "install")
        return "" if self.runtime.exit_status(made) == 0 else self.runtime.log(made)

    def write_list(self) -> None:
        """In place of the container `node`, which is in tests/cluster: it needs an API server."""
        template = Template.read((self.files / CONFLIST.name).read_bytes(), "the template")
        write(CONFLIST, template.complete(["10.244.0.0/24"], [], "the template"))

    def start(self) -> None:
        """Start the agent, and wait until its probe succeeds."""
        self.agent = self._run("containers", "agent")
        judge.wait_for(self._is_up, "the startup probe succeeds", 60)

    def probe(self, kind: str) -> tuple[bool, str]:
        """Whether a probe succeeds, and what it was told; what a kubelet asks, it asks on the node."""
        probe = named(self.spec["containers"], "agent")[f"{kind}Probe"]
        if "exec" in probe:
            status, output = self.runtime.execute(self.agent, *probe["exec"]["command"])
            return status == 0, output
        page = probe["httpGet"]
        connection = http.client.HTTPConnection(
            page["host"], page["port"], timeout=probe["timeoutSeconds"]
        )
        connection.request("GET", page["path"])
        answer = connection.getresponse()
        return 200 <= answer.status < 400, answer.read().decode()

    def _run(self, kind: str, name: str) -> str:
        spec = named(self.spec[kind], name)
        config = kubelet.container(self.spec, spec, {"configuration": self.files})
        return self.runtime.start(self.sandbox, config)

    def _is_up(self) -> bool:
        assert self.runtime.runs(self.agent), self.runtime.log(self.agent)
        try:
            return self.probe("startup")[0]
        except CRIError:  # it may have ended just now; then the next look tells
            return False


def named(listed: list[JSON], name: str) -> JSON:
    """The container of a name."""
    return next(each for each in listed if each["name"] == name)


Change = Any
"""Makes something else of a pod specification, in place."""


@contextmanager
def daemon(
    runtime: CRI, manifest: list[JSON], folder: Path, change: Change = None
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
        sandbox("cni-netkit", namespace="kube-system", host_network=spec.get("hostNetwork", False))
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
