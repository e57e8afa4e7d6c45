"""A whole cluster, and what tests ask of it."""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.machine import CONTAINERD, Machine, make_link
from tests.containers import images
from tests.kernel import judge

JSON = dict[str, Any]
NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
OWN_NUMBER = 254
"""Of this namespace, with the control plane, on the link."""

READY = 150
"""Seconds for something to become ready: an image is unpacked, interpreters are started."""

PAUSE = 0.5
"""Seconds between two looks: what is waited for needs the processors itself."""

PATIENCE = 120
"""Seconds for anything else that Kubernetes does."""

PLUGINS = ("loopback", "portmap", "ptp", "host-local")
"""Plugins of others that nodes come with."""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition; its value. Servers that are not there for a moment are waited for."""
    until = time.monotonic() + seconds
    problem = ""
    while time.monotonic() < until:
        try:
            if value := condition():
                return value
        except OSError as error:
            problem = f": {error}"
        time.sleep(PAUSE)
    raise AssertionError(f"{what} did not come within {seconds} s{problem}")


@dataclass
class Cluster:
    """The control plane, and nodes that have joined it."""

    plane: ControlPlane
    machines: dict[str, Machine]
    images: Path
    plugins: Path
    say: Callable[[str], None]
    counter: int = 0

    def start(self) -> None:
        """Start all of it at the same time, as far as possible, and have images on the nodes."""
        make_link(OWN_NUMBER)
        for machine in self.machines.values():
            machine.boot()
        self.say("nodes have booted")
        with ThreadPoolExecutor(1) as pool:
            ready = pool.submit(self.plane.start)
            self._fill_disks()
            self.say("the nodes have the images")
            ready.result()
        self.say("the API server is ready")
        for machine in self.machines.values():
            machine.start()
            self.say(f"{machine.name} runs containerd and kubelet")
        wait_for(lambda: len(self.nodes()) == len(self.machines), "all nodes are registered")

    def _fill_disks(self) -> None:
        """What is on a node before any pod is. Unpacking an image takes long: the others get copies."""
        first, *others = self.machines.values()
        for machine in self.machines.values():
            folder = machine.disk / "opt/cni/bin"
            folder.mkdir()
            for name in PLUGINS:
                shutil.copy(self.plugins / name, folder)
        first.containerd.start(*sorted(self.images.glob("*.tar")))
        first.containerd.process.end()
        for machine in others:
            source, target = (f"{each.disk}{CONTAINERD.root}" for each in (first, machine))
            judge.run("cp", "-a", f"{source}/.", target)

    def stop(self) -> None:
        """End all of it."""
        for machine in self.machines.values():
            machine.power_off()
        self.plane.stop()

    def logs(self) -> dict[str, str]:
        """The end of each program's log."""
        found = self.plane.logs()
        for machine in self.machines.values():
            found |= machine.logs()
        for name in ("agent", "node", "dra"):
            found[f"containers {name}"] = self._of_containers(name)
        return found

    def _of_containers(self, name: str) -> str:
        select = ("-l", "app.kubernetes.io/name=cni-netkit", "-c", name)
        try:
            return self.plane.kubectl(
                "-n", "kube-system", "logs", *select, "--tail=30", "--prefix", "--ignore-errors"
            )
        except AssertionError as error:
            return str(error)

    # --- What there is -------------------------------------------------------------------------------

    def nodes(self) -> dict[str, JSON]:
        """Node objects by name."""
        return {each["metadata"]["name"]: each for each in self.plane.api.items(NODES)}

    def ready(self) -> set[str]:
        """Names of the nodes that are ready."""
        return {name for name, node in self.nodes().items() if condition(node, "Ready")}

    def pods(self, labels: str = "") -> dict[str, JSON]:
        """Pods of the tests by name."""
        query = f"?labelSelector={labels}" if labels else ""
        return {each["metadata"]["name"]: each for each in self.plane.api.items(PODS + query)}

    def running(self, names: Iterable[str], seconds: float = PATIENCE) -> dict[str, JSON]:
        """Wait until these pods run; what they are then."""
        names = set(names)

        def all_run() -> dict[str, JSON] | None:
            found = {name: pod for name, pod in self.pods().items() if name in names}
            run = found.keys() == names and all(condition(each, "Ready") for each in found.values())
            return found if run else None

        return dict(self.wait_for(all_run, f"{sorted(names)} run", seconds))

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float) -> Any:
        """`wait_for`, which tells the newest events where it was in vain."""
        try:
            return wait_for(condition, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.events()}") from None

    def events(self) -> str:
        """What happened, newest last."""
        found = self.plane.api.items("/api/v1/events")
        lines = [
            f"{each['involvedObject'].get('name')}: {each['reason']}: {each['message']}"
            for each in sorted(found, key=lambda each: each["metadata"]["creationTimestamp"])
        ]
        return "\n".join(lines[-40:])

    # --- What is done with it ------------------------------------------------------------------------

    def create_pod(self, node: str, **spec: Any) -> str:
        """Create a pod of busybox on a node; its name."""
        self.counter += 1
        name = f"pod-{self.counter}"
        self.plane.api.create(PODS, pod(name, nodeName=node, **spec))
        return name

    def delete_pods(self, names: Iterable[str]) -> None:
        """Delete pods, and wait until they are gone."""
        names = set(names)
        for name in names:
            self.plane.api.delete(f"{PODS}/{name}")
        wait_for(lambda: not names & self.pods().keys(), f"{sorted(names)} are gone")

    def on_agent(self, machine: Machine, *command: str) -> str:
        """Run a command beside a node's agent, as `kubectl exec` does."""
        mine = f"spec.nodeName={machine.name}"
        pods = "/api/v1/namespaces/kube-system/pods"
        labels = "app.kubernetes.io%2Fname%3Dcni-netkit"
        (found,) = self.plane.api.items(f"{pods}?fieldSelector={mine}&labelSelector={labels}")
        name = found["metadata"]["name"]
        return self.plane.kubectl("-n", "kube-system", "exec", name, "-c", "agent", "--", *command)

    def namespace_of(self, machine: Machine, address: str) -> str:
        """The name of the network namespace of a pod, by one of its addresses."""
        for name in machine.run("ls", "/run/netns").split():
            found = json.loads(machine.run("ip", "-j", "-n", name, "addr"))
            if any(
                each["local"] == address for device in found for each in device.get("addr_info", [])
            ):
                return name
        raise AssertionError(f"no pod on {machine.name} has {address}")

    def ping(self, machine: Machine, namespace: str, address: str, seconds: float = 1) -> bool:
        """Whether all packets out of a pod's namespace come back, ten a second."""
        said = machine.run(
            *("ip", "netns", "exec", namespace),
            *("ping", "-c", str(int(10 * seconds)), "-i", "0.1", "-W", "2", address),
            check=False,
        )
        return " 0% packet loss" in said


def pod(name: str, labels: JSON | None = None, **spec: Any) -> JSON:
    """A pod that sleeps, and ends a second after it is told to."""
    container = {
        "name": "main",
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sleep", "2147483647"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 1,
            "dnsPolicy": "Default",
            "automountServiceAccountToken": False,
            **spec,
        },
    }


def condition(thing: JSON, kind: str) -> bool:
    """Whether a condition of something is true."""
    found = thing.get("status", {}).get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in found)


def addresses_of(thing: JSON) -> list[str]:
    """A pod's addresses."""
    return [each["ip"] for each in thing["status"].get("podIPs", [])]
