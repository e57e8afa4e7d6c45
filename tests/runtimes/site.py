"""A node with one runtime on it, the plugin installed as for users, and perhaps an agent."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.containers.cgroups import GROUPS
from tests.containers.cri import GROUP
from tests.kernel import judge
from tests.kernel.conftest import LAUNCHER, Node
from tests.runtimes.runtime import JSON, NOTHING, ROOT, Asked, Pod, Runtime

REFERENCE = ("loopback", "portmap")
"""What runtimes and configuration lists want beside ours."""

RECORDS = Path("/var/lib/cni/netkit")


class Agent:
    """The agent as on a node: a process."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "agent.sock")
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "notify"))
        self._notices.settimeout(judge.DEADLINE)
        self._log = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready when this returns."""
        command = [sys.executable, "-m", "cni_netkit.admin.main", "agent", "--socket", self.socket]
        env = {**os.environ, "NOTIFY_SOCKET": self._notices.getsockname(), "PYTHONPATH": str(ROOT)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=env, stderr=log)
        assert self._notices.recv(100) == b"READY=1"

    @property
    def runs(self) -> bool:
        """Whether it has been started and not killed."""
        return self._process is not None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(judge.DEADLINE)
        self._process = None

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        self._notices.close()


def install(folder: Path) -> Path:
    """A folder of plugins as install.sh leaves it: launcher, Python entry point, and others' plugins.

    The entry point notes each verb, so that a test can tell which way a request went.
    """
    folder.mkdir()
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed for the launcher"
    subprocess.run([compiler, "-O2", "-static", "-o", folder / "netkit", LAUNCHER], check=True)
    entry = folder / "netkit-python"
    entry.write_text(
        f'#!/bin/sh\necho "$CNI_COMMAND" >>{noted(folder)}\n'
        f'PYTHONPATH={ROOT} exec {sys.executable} -m cni_netkit "$@"\n'
    )
    entry.chmod(0o755)
    reference = os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS")
    assert reference, "name the reference plugins in CNI_NETKIT_REFERENCE_PLUGINS"
    for name in REFERENCE:
        (folder / name).symlink_to(Path(reference, name))
    return folder


def noted(plugins: Path) -> Path:
    """Where the Python entry point of a folder of plugins notes its verbs."""
    return plugins.with_suffix(".verbs")


@dataclass
class Site:
    """What a test works with."""

    node: Node
    runtime: Runtime
    agent: Agent | None
    network: str = ""
    pods: list[Pod] = field(default_factory=list)

    def configure(self, conflist: JSON) -> None:
        """Have a network in force."""
        self.network = str(conflist["name"])
        self.runtime.configure(conflist)

    def run(self, name: str, asked: Asked = NOTHING) -> Pod:
        """Start a pod, which is removed at last if the test fails to do it.

        The agent has done it if there is one, else Python in a process of its own.
        """
        before = len(self.in_process())
        pod = self.runtime.run(name, asked)
        self.pods.append(pod)
        own = len(self.in_process()) > before
        assert own != bool(self.agent and self.agent.runs), "the request went the other way"
        return pod

    def remove(self, *pods: Pod) -> None:
        """Remove pods."""
        for pod in pods:
            self.runtime.remove(pod)
            self.pods.remove(pod)

    def host_end(self, pod: Pod) -> Any:
        """The host's end of a pod's pair as ip(8) sees it, found by its alias; None without one."""
        alias = f"cni-netkit {self.network} {pod.identifier} eth0"
        return next((each for each in judge.ip("link") if each.get("ifalias") == alias), None)

    def has_record(self, pod: Pod) -> bool:
        """Whether the plugin has written down the pod's attachment."""
        return (RECORDS / self.network / f"{pod.identifier}:eth0.json").exists()

    def in_process(self) -> list[str]:
        """The verbs that went to a Python process of their own so far."""
        file = noted(self.runtime.place.plugins)
        return file.read_text().split() if file.exists() else []

    def world(self) -> JSON:
        """Everything that a pod may leave behind."""
        seen = judge.world()
        # portmap keeps its empty chains for ever.
        rules = [line.strip() for line in seen.pop("nftables").splitlines()]
        seen["nftables"] = [line for line in rules if "dnat" in line or "cni-netkit" in line]
        seen["namespaces"] = sorted(os.listdir("/run/netns"))
        seen["mounts"] = sorted(
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        )
        seen["processes"] = sorted(_processes())
        patterns = (f"{GROUP.strip('/')}/*", "libpod_parent/libpod-*")
        seen["cgroups"] = sorted(
            str(each) for pattern in patterns for each in GROUPS.rglob(pattern) if each.is_dir()
        )
        return seen


def _processes() -> Iterable[str]:
    """Names of all processes but those in the mount namespace of the first, and kernel threads."""
    first = os.readlink("/proc/1/ns/mnt")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            namespace = os.readlink(folder / "ns" / "mnt")
            command = (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if namespace != first and command and state != "Z":
            yield (folder / "comm").read_text().strip()
