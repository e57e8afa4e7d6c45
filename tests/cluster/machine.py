"""A node: a machine of namespaces, with a kubelet and a containerd of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.cluster import first
from tests.cluster.control_plane import PORT, SERVICE_ADDRESS, SPARING, ControlPlane
from tests.containers.cgroups import remove_group
from tests.containers.containerd import Containerd
from tests.containers.containerd_config import Settings
from tests.containers.process import Process, children
from tests.kernel import judge

JSON = dict[str, Any]
BRIDGE = "cluster"
PREFIXES = ("10.9.0.{}/24", "fd00:9::{}/64")
ENTER = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")

HANDLERS = ("leasing", "af-xdp")
"""Handlers of containerd (RuntimeClass) whose pods get the network of a folder of their own."""

NETWORKS = "/etc/cni/{}.d"
CONTAINERD = Settings(Path("/var/lib/containerd"), Path("/run/containerd"), snapshotter="overlayfs")


def addresses(number: int) -> list[str]:
    """A node's addresses on the link."""
    return [each.format(number).partition("/")[0] for each in PREFIXES]


def make_link(number: int) -> None:
    """The link that joins all nodes, with this namespace at one of its addresses."""
    judge.run("ip", "link", "add", BRIDGE, "type", "bridge")
    for each in PREFIXES:
        judge.run("ip", "addr", "add", each.format(number), "dev", BRIDGE, "nodad")
    judge.run("ip", "link", "set", BRIDGE, "up")


class Machine:
    """One node. It can be powered off, booted again, taken off the link, given another address."""

    def __init__(
        self,
        name: str,
        number: int,
        folder: Path,
        programs: Path,
        plane: ControlPlane,
        *,
        handlers: Sequence[str] = HANDLERS,
        metrics: str = "",
    ) -> None:
        networks = {each: Path(NETWORKS.format(each)) for each in handlers}
        self._settings = replace(CONTAINERD, handlers=networks, metrics=metrics)
        self.name, self.number, self.folder = name, number, folder
        self.place = number
        self._programs, self._plane = programs, plane
        for each in ("logs", "containerd"):
            (folder / each).mkdir(parents=True)
        for each in first.ON_DISK:
            part = self.disk / each.lstrip("/")
            part.mkdir(parents=True)
            judge.run("mount", "-t", "tmpfs", "tmpfs", str(part))
        self._first: subprocess.Popen[bytes] | None = None
        self.containerd: Containerd
        self.kubelet: Process

    @property
    def disk(self) -> Path:
        """Where what outlives a reboot is seen from outside."""
        return self.folder / "disk"

    @property
    def pid(self) -> int:
        """Of its first process, as this namespace sees it."""
        assert self._first, f"{self.name} is off"
        return children(self._first.pid)[0]

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command that shall run on it."""
        return ("nsenter", f"--target={self.pid}", *ENTER, "--")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command on it; its standard output."""
        return judge.run(*self.enter, *command, check=check)

    def background(self, *command: str) -> "subprocess.Popen[bytes]":
        """Run a command on it that goes on."""
        return subprocess.Popen([*self.enter, *command], stdin=subprocess.DEVNULL)

    def ip(self, *arguments: str) -> Any:
        """What `ip -j -d` says there."""
        text = self.run("ip", "-j", "-d", *arguments)
        return json.loads(text) if text.strip() else []

    def python(self, program: str) -> str:
        """What a Python program prints that runs on it with the tests in reach."""
        root = str(Path(__file__).parents[2])
        return self.run("env", f"PYTHONPATH={root}", sys.executable, "-c", program)

    def write(self, path: str, text: str) -> None:
        """Write a file there."""
        Path(f"/proc/{self.pid}/root{path}").write_text(text)

    def boot(self) -> None:
        """Power it on: as after a power cut, where it was on before."""
        apart = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
        self._first = subprocess.Popen(
            [
                *("unshare", *apart, "--propagation", "private", "--mount-proc"),
                *(sys.executable, "-I", first.__file__, self.name, self.folder / "disk"),
            ],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        judge.wait_for(self._is_up, f"{self.name} is up", 60)
        self._plug()
        seen = f"/proc/{self.pid}/root"
        folder = self.folder / "containerd"
        self.containerd = Containerd(
            folder, "2", self._settings, env=SPARING, prefix=self.enter, seen=seen
        )
        self.kubelet = self.process("kubelet", self._programs / "kubelet", *self._kubelet())

    def start(self) -> None:
        """Start containerd and kubelet."""
        self.containerd.start()
        self.kubelet.start()

    @property
    def addresses(self) -> list[str]:
        """Its addresses on the link, IPv4 and IPv6."""
        return addresses(self.place)

    def move(self, place: int) -> None:
        """Give it other addresses on the link, as an administrator does: its kubelet is told."""
        self.kubelet.end()
        for each in PREFIXES:
            self.run("ip", "addr", "del", each.format(self.place), "dev", "eth0")
            self.run("ip", "addr", "add", each.format(place), "dev", "eth0", "nodad")
        self.place = place
        self._default_routes()
        self.kubelet = self.process("kubelet", self._programs / "kubelet", *self._kubelet())
        self.kubelet.start()

    def power_off(self) -> None:
        """All that runs on it is gone at once, and its devices with it."""
        assert self._first
        os.kill(self.pid, signal.SIGKILL)
        self._first.wait(60)
        self._first = None
        self.kubelet.end()
        self.containerd.end()
        remove_group(f"/{self.name}")
        judge.wait_for(lambda: not judge.link(self._plug_name), "its plug is gone", 60)

    def logs(self) -> dict[str, str]:
        """The end of each log, by program."""
        return {
            f"{self.name} {each.log.stem}": each.end_of_log()
            for each in (self.containerd.process, self.kubelet)
        }

    @property
    def _plug_name(self) -> str:
        return f"plug-{self.number}"

    def _plug(self) -> None:
        """Connect it with the link; the API server's service address leads to the API server.

        The latter is kube-proxy's work, which these nodes have not.
        """
        judge.run(
            *("ip", "link", "add", self._plug_name, "type", "veth"),
            *("peer", "name", "eth0", "netns", str(self.pid)),
        )
        judge.run("ip", "link", "set", self._plug_name, "master", BRIDGE, "up")
        self.run("ip", "link", "set", "lo", "up")
        for each in PREFIXES:
            self.run("ip", "addr", "add", each.format(self.place), "dev", "eth0", "nodad")
        self.run("ip", "link", "set", "eth0", "up")
        self._default_routes()
        for chain in ("prerouting", "output"):
            hook = f"type nat hook {chain} priority -100;"
            self.run(
                "nft",
                f"add table ip service; add chain ip service {chain} {{ {hook} }};"
                f"add rule ip service {chain} ip daddr {SERVICE_ADDRESS} tcp dport 443"
                f" dnat to {self._plane.address}:{PORT}",
            )

    def _default_routes(self) -> None:
        self.run("ip", "route", "replace", "default", "via", self._plane.address)
        self.run("ip", "-6", "route", "replace", "default", "via", addresses(254)[1])

    def _is_up(self) -> bool:
        assert self._first
        assert self._first.poll() is None, f"{self.name} did not boot"
        found = children(self._first.pid)
        return bool(found) and Path(f"/proc/{found[0]}/root/run/up").exists()

    def process(self, name: str, *command: str | Path) -> Process:
        """A program that runs on it, when it is started."""
        log = self.folder / "logs" / f"{name}.log"
        return Process(log, command, prefix=self.enter, env=SPARING)

    def _kubelet(self) -> list[str]:
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(kubelet_configuration()))
        return [
            f"--kubeconfig={self._plane.kubeconfig_of[self.name]}",
            f"--config={path}",
            f"--hostname-override={self.name}",
            f"--node-ip={','.join(self.addresses)}",
            "--cert-dir=/var/lib/kubelet/pki",
        ]


def kubelet_configuration() -> JSON:
    """KubeletConfiguration v1beta1: small, quick to notice, and with nothing the lab lacks."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD.socket}",
        "cgroupDriver": "cgroupfs",
        "cpuCFSQuota": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%"},
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "2s",
        "volumeStatsAggPeriod": "0s",
        "imageMinimumGCAge": "24h",
        "serializeImagePulls": False,
    }
