"""Measure what a node of Kubernetes runs of cni-netkit: how long each starts, and what memory it takes.

    python -m tests.bench.processes [TURNS]

`agent`, `node` and `dra` with the manifests' arguments, each by itself and then all at once, beside a real API
server, in network and mount namespaces of its own, on a cluster of one node without NICs. Memory is that of a
process that has started and had nothing to do. Needs root, and the programs of tests/cluster/build-kubernetes,
which it makes.
"""

import compileall
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import yaml

from cni_netkit.dra import kubelet, registration_pb2, registration_pb2_grpc
from cni_netkit.dra.inventory import DRIVER
from tests.bench.cluster import ROOT, Measured, enter, say, wait
from tests.cluster.control_plane import PORT, ControlPlane
from tests.cluster.lone_node import (
    API_SERVER,
    BASE,
    COMMAND,
    HERE,
    ME,
    NETNS,
    NODES,
    STATUS,
    api_server,
    node,
    node_object,
)
from tests.containers.process import Process
from tests.kernel import judge

DRA = BASE.parent / "dra"
AGENT = Path("/run/cni-netkit/agent.sock")
REGISTRATION = kubelet.KUBELET / "plugins_registry" / f"{DRIVER}-reg.sock"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
TURNS = 5


def arguments(manifest: Path, name: str) -> list[str]:
    """Of a container of the DaemonSet, without the program's name; the agent's comes after a shell."""
    daemonset = next(yaml.safe_load_all(manifest.read_text()))
    containers = daemonset["spec"]["template"]["spec"]["containers"]
    (command,) = (each["command"] for each in containers if each["name"] == name)
    words = " ".join(command).split()
    return words[words.index(name) :]


def answers(path: Path) -> bool:
    """Whether somebody listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def registers() -> bool:
    """Whether the driver says who it is, as it is asked by a kubelet."""
    if not REGISTRATION.exists():
        return False
    with grpc.insecure_channel(f"unix://{REGISTRATION}") as channel:
        try:
            asked = registration_pb2.InfoRequest()
            said = registration_pb2_grpc.RegistrationStub(channel).GetInfo(asked, timeout=5)
        except grpc.RpcError:
            return False
    return bool(said.name == DRIVER)


class Program:
    """One of them, how it is known that it serves, and what it leaves."""

    def __init__(
        self,
        name: str,
        process: Process,
        serves: Callable[[], bool],
        left: tuple[Path, ...],
        published: Callable[[], Any] | None = None,
    ) -> None:
        self.name, self.process, self.serves = name, process, serves
        self.left, self.published = left, published

    def start(self) -> float:
        """Seconds until it serves."""
        for each in self.left:
            each.unlink(missing_ok=True)
        began = time.monotonic()
        self.process.start()
        return wait(self.serves) - began

    def at_rest(self) -> Measured:
        """Once it has done what it does without being asked."""
        if self.published:
            wait(lambda: bool(self.published and self.published()))
        seen = Measured(self.process.pid)
        wait(seen.rests)
        return seen


def programs(plane: ControlPlane, folder: Path, of_node: Process) -> list[Program]:
    """All three; `of_node` is the process `node`."""
    found = {"KUBERNETES_SERVICE_HOST": API_SERVER, "KUBERNETES_SERVICE_PORT": str(PORT)}

    def process(name: str, manifest: Path) -> Process:
        return Process(
            folder / f"{name}.log",
            [*COMMAND, *arguments(manifest, name)],
            prefix=("ip", "netns", "exec", NETNS),
            env={"NODE_NAME": ME, **found},
        )

    return [
        Program(
            "agent", process("agent", BASE / "daemonset.yaml"), lambda: answers(AGENT), (AGENT,)
        ),
        Program(
            "node",
            of_node,
            lambda: STATUS.exists() and '"ready":true' in STATUS.read_text(),
            (STATUS,),
        ),
        Program(
            "dra",
            process("dra", DRA / "daemonset.yaml"),
            registers,
            (REGISTRATION,),
            lambda: plane.api.items(SLICES),
        ),
    ]


def measure(plane: ControlPlane, folder: Path, turns: int) -> None:
    plane.api.create(NODES, node_object(ME, ("10.99.0.0/24", "fd00:99::/64"), HERE))
    for each in yaml.safe_load_all((DRA / "rbac.yaml").read_text()):
        path = f"/apis/rbac.authorization.k8s.io/v1/{each['kind'].lower()}s"
        plane.api.create(path, each)
    template = (BASE / "10-netkit.conflist").read_text()
    with ExitStack() as stack:
        of_node = stack.enter_context(node(plane, folder / "node.log", template))
        judge.run("ip", "link", "set", "lo", "up", netns=NETNS)
        known = programs(plane, folder, of_node)
        for each in known:
            stack.callback(each.process.end, signal.SIGKILL)
            started, computed, seen = [], [], None
            for _ in range(turns):
                each.process.end()
                started.append(each.start())
                seen = each.at_rest()
                computed.append(seen.cpu)
            assert seen
            say(f"{each.name}: from nothing until it serves ({turns})", f"{median(started):.2f} s")
            say("  computing, imports included", f"{median(computed):.2f} s")
            say("  memory, by itself", seen.memory())
            each.process.end()
        for each in known:
            each.start()
        for each in known:
            say(f"{each.name}: memory beside the others", each.at_rest().memory())
            loaded = Path(f"/proc/{each.process.pid}/maps").read_text()
            say("  gRPC is loaded", "yes" if "/grpc/" in loaded else "no")


def main() -> None:
    """In namespaces of its own, where there is neither a kubelet nor anything that it left."""
    enter("tests.bench.processes")
    # As installed: compiling the sources is no part of a start there.
    compileall.compile_dir(ROOT / "cni_netkit", quiet=1)
    judge.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib")
    for each in ("/var/lib/cni", "/var/lib/kubelet"):
        os.mkdir(each)
    with tempfile.TemporaryDirectory() as folder, api_server(Path(folder, "plane")) as plane:
        measure(plane, Path(folder), int(sys.argv[1]) if sys.argv[1:] else TURNS)


if __name__ == "__main__":
    main()
