"""Measure `cni-netkit node` in a large cluster: memory, time to converge, time of a change.

    python -m tests.bench.cluster [NODES]

The API server is a real one, in network and mount namespaces of its own, the Node objects are as large as
kubelets make them (50 images). Needs root, and the programs of tests/cluster/build-kubernetes, which it makes.
"""

import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import PORT, ControlPlane
from tests.cluster.lone_node import (
    API_SERVER,
    BASE,
    HERE,
    ME,
    NETNS,
    NODES,
    STATUS,
    api_server,
    node,
    node_object,
)
from tests.kernel import judge

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
CLIENTS = 8
IMAGES = 50
CHANGES = 20
HEARTBEATS = 1000
LINK = ("10.8.0.1/16", "fd00:8::1/64")
SECONDS = 300.0
TICK = os.sysconf("SC_CLK_TCK")


def ranges(number: int) -> tuple[str, ...]:
    return f"10.{100 + number // 256}.{number % 256}.0/24", f"fd00:10:{number:x}::/64"


def described(number: int) -> JSON:
    """A node's object, with what fills it."""
    addresses = (f"10.8.{1 + number // 250}.{number % 250 + 1}", f"fd00:8::{number + 16:x}")
    made = node_object(f"bench-{number:05}", ranges(number), addresses)
    name = "registry.example/team/application-{0}@sha256:{1:064x}"
    tag = "registry.example/team/application-{0}:1.{0}"
    made["status"]["images"] = [
        {
            "names": [name.format(image, number * IMAGES + image), tag.format(image)],
            "sizeBytes": 123456789,
        }
        for image in range(IMAGES)
    ]
    conditions = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
    made["status"]["conditions"] = [
        {
            "type": each,
            "status": "False",
            "reason": f"KubeletHas{each}",
            "message": f"it has {each}",
        }
        for each in conditions
    ]
    return made


class Clients:
    """Several connections to the API server at once, kept open."""

    def __init__(self, plane: ControlPlane) -> None:
        self._tls = ssl.create_default_context(cafile=str(plane.authority))

    def do(self, verb: str, asked: list[tuple[str, JSON]], kind: str = "application/json") -> None:
        """Each path with its body."""
        parts = [asked[first::CLIENTS] for first in range(CLIENTS)]
        threads = [threading.Thread(target=self._do, args=(verb, each, kind)) for each in parts]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _do(self, verb: str, asked: list[tuple[str, JSON]], kind: str) -> None:
        connection = http.client.HTTPSConnection(API_SERVER, PORT, context=self._tls, timeout=60)
        headers = {"Authorization": "Bearer administrator-token", "Content-Type": kind}
        for path, body in asked:
            connection.request(verb, path, json.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status < 300, said
        connection.close()


class Measured:
    """A process, as /proc sees it."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc", str(pid))

    @property
    def cpu(self) -> float:
        """Seconds of computing (proc_pid_stat(5), fields 14 and 15)."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rests(self) -> bool:
        """Whether it computes nothing for a second."""
        before = self.cpu
        time.sleep(1)
        return self.cpu == before

    def memory(self) -> str:
        """What it has now, and had at most."""

        def kilobytes(file: str, key: str) -> int:
            lines = (self._proc / file).read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))

        rss, pss = (kilobytes("smaps_rollup", key) for key in ("Rss", "Pss"))
        peak = kilobytes("status", "VmHWM")
        return f"RSS {rss / 1024:.0f} MB, PSS {pss / 1024:.0f} MB, peak {peak / 1024:.0f} MB"


def routes() -> int:
    """How many of ours the node has."""
    found = [judge.run("ip", "-o", family, "route", "show", netns=NETNS) for family in ("-4", "-6")]
    return sum(" via " in line for text in found for line in text.splitlines())


def wait(condition: Callable[[], bool]) -> float:
    """Until it is so; when that was."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not come"
    return time.monotonic()


def say(what: str, figure: str) -> None:
    print(f"{what:50} {figure}", flush=True)


def measure(plane: ControlPlane, folder: Path, count: int) -> None:
    clients = Clients(plane)
    plane.api.create(NODES, node_object(ME, ("10.99.0.0/24", "fd00:99::/64"), HERE))
    clients.do("POST", [(NODES, described(number)) for number in range(count)])
    template = json.loads((BASE / "10-netkit.conflist").read_text())
    template["plugins"][0] |= {
        "nonMasqueradeCIDRs": ["10.96.0.0/11", "fd00:10::/32"],
        "fallback": "veth",
    }
    with node(plane, folder / "node.log", json.dumps(template)) as process:
        for address in LINK:
            judge.run("ip", "addr", "add", address, "dev", "eth0", "nodad", netns=NETNS)
        began = time.monotonic()
        process.start()
        is_ready = wait(lambda: STATUS.exists() and '"ready":true' in STATUS.read_text())
        assert routes() == 2 * count, f"{routes()} routes\n{process.end_of_log()}"
        seen = Measured(process.pid)
        say(f"from nothing to {2 * count} routes and the list", f"{is_ready - began:.1f} s")
        say("  of that computing, imports included", f"{seen.cpu:.1f} s")
        say("memory then", seen.memory())
        took, computed = changes(plane, count, seen)
        say(
            f"a node deleted or created: its routes ({len(took)})",
            f"median {took[len(took) // 2]:.0f} ms, most {took[-1]:.0f} ms",
        )
        say("  computing for one", f"{computed * 1000 / len(took):.0f} ms")
        beats = [
            (f"{NODES}/bench-{number % count:05}/status", heartbeat(number))
            for number in range(HEARTBEATS)
        ]
        before = seen.cpu
        clients.do("PATCH", beats, "application/strategic-merge-patch+json")
        wait(seen.rests)
        say(
            f"a kubelet's report ({HEARTBEATS} of them)",
            f"{(seen.cpu - before) * 1e6 / HEARTBEATS:.0f} µs of computing",
        )
        say("memory in the end", seen.memory())


def heartbeat(number: int) -> JSON:
    """A kubelet says that it lives."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + number))
    return {"status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": now}]}}


def changes(plane: ControlPlane, count: int, seen: Measured) -> tuple[list[float], float]:
    """Milliseconds from the API server's answer to the last route, each; and computing, of all."""
    took = []
    before = seen.cpu
    last = described(count - 1)
    path = f"{NODES}/{last['metadata']['name']}"
    shown = [
        ["ip", *family, "route", "show", each]
        for family, each in zip(((), ("-6",)), ranges(count - 1), strict=True)
    ]

    def there() -> int:
        return sum(bool(judge.run(*command, netns=NETNS).strip()) for command in shown)

    for turn in range(CHANGES):
        time.sleep(1.5)  # so that it is not held back as one of several
        if turn % 2:
            plane.api.create(NODES, last)
        else:
            plane.api.delete(path)
        began = time.monotonic()
        wanted = 2 if turn % 2 else 0
        took.append((wait(lambda wanted=wanted: there() == wanted) - began) * 1000)  # type: ignore[misc]
    return sorted(took), seen.cpu - before


def enter(module: str) -> None:
    """Have a module go on in namespaces of its own, where there is a Kubernetes to start."""
    if "CNI_NETKIT_KUBERNETES" not in os.environ:
        made = subprocess.run(
            [ROOT / "tests/cluster/build-kubernetes"], stdout=subprocess.PIPE, text=True
        )
        os.environ["CNI_NETKIT_KUBERNETES"] = made.stdout.strip()
        apart = ["unshare", "--net", "--mount", "--propagation", "private"]
        os.execvp(apart[0], [*apart, sys.executable, "-m", module, *sys.argv[1:]])


def main() -> None:
    """In namespaces of its own."""
    enter("tests.bench.cluster")
    with tempfile.TemporaryDirectory() as folder, api_server(Path(folder, "plane")) as plane:
        measure(plane, Path(folder), int(sys.argv[1]) if sys.argv[1:] else 5000)


if __name__ == "__main__":
    main()
