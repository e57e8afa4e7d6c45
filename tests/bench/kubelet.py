"""Measure how long a pod takes from its creation until it runs, ours beside ptp, and what part is the plugin's.

    python -m tests.bench.kubelet [--lab] [--runs N]

One node with a real kubelet and containerd 2, and a real control plane, in namespaces of their own. The two
networks take turns pod by pod: a RuntimeClass each. "Running" is from the request that creates the pod to the
event that says so, without kubectl itself, which is the same for all; "network set-up" is what containerd
counts for it, loopback included. Without netkit (--lab has it) ours are veth pairs. Needs root, control groups
of version 2, and the programs of tests/cluster/build-kubernetes, which it makes.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.contenders import AGENT, PTP, build, reference_plugins
from tests.bench.parts import WARM_UP, Row
from tests.bench.pods import network
from tests.cluster.cluster import OWN_NUMBER, PODS, Cluster, condition, pod, wait_for
from tests.cluster.control_plane import ControlPlane
from tests.cluster.machine import NETWORKS, Machine, addresses
from tests.containers import images
from tests.containers.process import Process
from tests.kernel import judge

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
NODE = "node-1"
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
METRICS = "127.0.0.1:1338"
SET_UP = re.compile(r"network_plugin_operations_duration\w*_sum\{[^}]*(?i:set_?up)[^}]*\} (\S+)")
GROUP, PART = "a pod of a kubelet", "of that, the plugin's"


@dataclass
class Contender:
    """A network, by the handler that stands for it; what was measured of its pods."""

    handler: str
    plugin: JSON
    running: Row
    set_up: Row


def contenders() -> list[Contender]:
    """ptp first: the others are compared with it."""
    made: list[Contender] = []
    for handler, who, plugin in (
        ("ptp", PTP, {"type": "ptp"}),
        ("ours", AGENT, {"type": "netkit", "fallback": "veth", "log": {"level": "error"}}),
    ):
        first = made[0] if made else None
        running = Row(GROUP, "Running", who, against=first.running if first else None)
        set_up = Row(GROUP, "network set-up", who, against=first.set_up if first else None)
        made.append(Contender(handler, plugin, running, set_up))
    return made


def parts(measured: list[Contender]) -> list[Row]:
    """The set-up beside the whole of the same pods."""
    return [
        Row(PART, "network set-up", each.set_up.who, each.set_up.samples, against=each.running)
        for each in measured
    ]


@contextmanager
def one_node(folder: Path, launcher: Path, listed: list[Contender]) -> Iterator[Cluster]:
    """A cluster of one node that is ready, with an agent."""
    judge.run("ip", "link", "set", "lo", "up")
    programs = Path(os.environ["CNI_NETKIT_KUBERNETES"])
    plane = ControlPlane(folder / "plane", programs, addresses(OWN_NUMBER)[0], (NODE,))
    handlers = tuple(each.handler for each in listed)
    machine = Machine(NODE, 1, folder / NODE, programs, plane, handlers=handlers, metrics=METRICS)
    (folder / "images").mkdir()
    images.busybox(folder / "images" / "busybox.tar")
    cluster = Cluster(plane, {NODE: machine}, folder / "images", reference_plugins(), say=tell)
    agent: Process | None = None
    try:
        cluster.start()
        configure(machine, launcher, listed)
        for each in handlers:
            described = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": each}
            plane.api.create(CLASSES, {**described, "metadata": {"name": each}})
        command = [sys.executable, "-m", "cni_netkit.admin.main", "agent"]
        agent = machine.process("agent", *command)
        agent.start()
        socket = Path(f"/proc/{machine.pid}/root/run/cni-netkit/agent.sock")
        agent.wait_for(socket.exists, "it listens", 60)
        wait_for(lambda: condition(cluster.nodes()[NODE], "Ready"), "the node is ready")
        accounts = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for(lambda: plane.api.find(accounts), "pods may be created")
        yield cluster
    finally:
        if agent:
            agent.end(signal.SIGKILL)
        cluster.stop()


def tell(how_far: str) -> None:
    """Tell how far it is, beside the report."""
    print(f"kubelet: {how_far}", file=sys.stderr)


def configure(machine: Machine, launcher: Path, listed: list[Contender]) -> None:
    """Our launcher, and a list for each handler; the first one's is the node's, too."""
    bin_folder = machine.folder / "disk/opt/cni/bin"
    shutil.copy(launcher, bin_folder / "netkit")
    for number, each in enumerate(listed, 1):
        conflist = network(number, each.plugin)
        for name in (each.handler, *(["net"] if number == 1 else [])):
            machine.run("mkdir", "-p", NETWORKS.format(name))
            machine.write(f"{NETWORKS.format(name)}/10.conflist", json.dumps(conflist))


def life(cluster: Cluster, name: str, who: Contender) -> tuple[float, float]:
    """Milliseconds until a pod runs, and those of its network; it is deleted before this returns."""
    machine = cluster.machines[NODE]
    before = set_up(machine)
    body = pod(name, nodeName=NODE, runtimeClassName=who.handler)
    with cluster.plane.api.watch(f"{PODS}?fieldSelector=metadata.name%3D{name}") as events:
        began = time.perf_counter()
        cluster.plane.api.create(PODS, body)
        next(each for each in events if each["object"]["status"].get("phase") == "Running")
        took = time.perf_counter() - began
    counted = set_up(machine) - before
    cluster.delete_pods([name])
    return took * 1e3, counted * 1e3


def set_up(machine: Machine) -> float:
    """Seconds that containerd has spent on networks of pods so far."""
    text = machine.run("busybox", "wget", "-qO-", f"http://{METRICS}/v1/metrics")
    return sum(map(float, SET_UP.findall(text)))


def measure(cluster: Cluster, listed: list[Contender], runs: int) -> None:
    """One pod after the other, in turns."""
    for turn in range(runs + WARM_UP):
        for place in range(len(listed)):
            who = listed[(turn + place) % len(listed)]
            running, network = life(cluster, f"{who.handler}-{turn}", who)
            if turn >= WARM_UP:
                who.running.samples.append(running)
                who.set_up.samples.append(network)


def main() -> None:
    """Parse the command line, go where it is to be measured, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20, help="pods of each (default 20)")
    parser.add_argument("--lab", action="store_true", help="on the lab kernel, which has netkit")
    arguments = parser.parse_args()
    if "CNI_NETKIT_KUBERNETES" not in os.environ:
        builder = [ROOT / "tests/cluster/build-kubernetes"]
        made = subprocess.run(builder, stdout=subprocess.PIPE, text=True, check=True)
        os.environ["CNI_NETKIT_KUBERNETES"] = made.stdout.strip()
        os.environ["CNI_NETKIT_REFERENCE_PLUGINS"] = str(reference_plugins())
        # As tests/cluster/run has it.
        os.environ.setdefault("CNI_NETKIT_LAB_CPUS", "1")
        lab = [str(ROOT / "tests/lab/run"), "--seconds", "1800"] if arguments.lab else []
        command = [*lab, "unshare", "--net", "--mount", "--propagation", "private", sys.executable]
        os.execvp(
            command[0], [*command, "-m", "tests.bench.kubelet", "--runs", f"{arguments.runs}"]
        )
    listed = contenders()
    # Nodes hide /run, and /tmp may lie there.
    folder = Path("/mnt")
    judge.run("mount", "-t", "tmpfs", "tmpfs", str(folder))
    launcher, _ = build(folder)
    with one_node(folder, launcher, listed) as cluster:
        measure(cluster, listed, arguments.runs)
    rows = [*(each.running for each in listed), *(each.set_up for each in listed)]
    print(report.table([*rows, *parts(listed)]))


if __name__ == "__main__":
    main()
