"""A node by itself beside a real API server, for `cni-netkit node` and `cni-netkit dra`.

The API server is in the namespaces that this runs in, which are to be fresh ones. For `node` the node is a network
namespace on a link with it, and the others are Node objects; `dra` needs no link. Needs no netkit.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import Api
from tests.cluster.control_plane import PORT, ControlPlane
from tests.containers.process import Process
from tests.kernel import judge

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
BASE = ROOT / "conf/kubernetes/base"
DRA = ROOT / "conf/kubernetes/dra"
NODES = "/api/v1/nodes"
SYSTEM = "/api/v1/namespaces/kube-system"
NETNS = "node"
ME = "node1"
API_SERVER = "10.9.0.254"
HERE = ("10.9.0.1", "fd00:9::1")
LINK = ((f"{API_SERVER}/24", "fd00:9::254/64"), ("10.9.0.1/24", "fd00:9::1/64"))
CONFLIST = Path("/etc/cni/net.d/10-netkit.conflist")
TEMPLATE = Path("/etc/cni-netkit/10-netkit.conflist")
STATUS = Path("/run/cni-netkit/node/status.json")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OWN = (
    "/etc/cni",
    "/etc/cni-netkit",
    "/run/cni-netkit",
    "/run/secrets",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/run/netns",
)
COMMAND = [sys.executable, "-m", "cni_netkit.admin.main"]
ENVIRONMENT = {
    "NODE_NAME": ME,
    "KUBERNETES_SERVICE_HOST": API_SERVER,
    "KUBERNETES_SERVICE_PORT": str(PORT),
}
"""What a container of the DaemonSet finds there."""


@contextmanager
def api_server(folder: Path) -> Iterator[ControlPlane]:
    """An API server on this side of the link, with the account that conf/kubernetes has."""
    assert [each["ifname"] for each in judge.ip("link")] == ["lo"], "use tests/cluster/run"
    for each in OWN:
        os.makedirs(each, exist_ok=True)
        judge.run("mount", "-t", "tmpfs", "tmpfs", each)
    judge.run("ip", "link", "set", "lo", "up")
    judge.run("ip", "link", "add", "plug", "type", "bridge")
    for address in LINK[0]:
        judge.run("ip", "addr", "add", address, "dev", "plug", "nodad")
    judge.run("ip", "link", "set", "plug", "up")
    made = ControlPlane(folder, Path(os.environ["CNI_NETKIT_KUBERNETES"]), API_SERVER, (ME,))
    try:
        made.start(all_of_it=False)
        for file in (BASE / "rbac.yaml", DRA / "rbac.yaml"):
            for each in yaml.safe_load_all(file.read_text()):
                path = f"{SYSTEM}/serviceaccounts"
                if each["kind"] != "ServiceAccount":
                    path = f"/apis/rbac.authorization.k8s.io/v1/{each['kind'].lower()}s"
                made.api.create(path, each)
        yield made
    finally:
        made.stop()
        judge.run("ip", "link", "del", "plug")


def container(folder: Path = BASE, name: str = "node") -> JSON:
    """That of `cni-netkit node` in the DaemonSet, or another one."""
    daemonset = next(yaml.safe_load_all((folder / "daemonset.yaml").read_text()))
    (found,) = (
        each for each in daemonset["spec"]["template"]["spec"]["containers"] if each["name"] == name
    )
    return dict(found)


@contextmanager
def node(plane: ControlPlane, log: Path, template: str) -> Iterator[Process]:
    """`cni-netkit node`, not started yet, on a node on which nothing is."""
    CONFLIST.parent.mkdir(exist_ok=True)
    for each in (CONFLIST, STATUS):
        each.unlink(missing_ok=True)
    TEMPLATE.write_text(template)
    give_account(plane)
    process = Process(
        log,
        [*COMMAND, *container()["command"][1:]],
        prefix=("ip", "netns", "exec", NETNS),
        env=ENVIRONMENT,
    )
    judge.run("ip", "netns", "add", NETNS)
    try:
        judge.run(
            *("ip", "link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", NETNS)
        )
        judge.run("ip", "link", "set", "wire", "master", "plug", "up")
        judge.run("ip", "link", "set", "lo", "up", netns=NETNS)
        for address in LINK[1]:
            judge.run("ip", "addr", "add", address, "dev", "eth0", "nodad", netns=NETNS)
        judge.run("ip", "link", "set", "eth0", "up", netns=NETNS)
        yield process
    finally:
        process.end(signal.SIGKILL)
        judge.run("ip", "netns", "del", NETNS)
        judge.wait_for(lambda: not judge.link("wire"), "the link is gone")


def driver(log: Path) -> Process:
    """`cni-netkit dra`, not started yet, in this namespace; it needs `give_account`."""
    return Process(log, [*COMMAND, *container(DRA, "dra")["command"][1:]], env=ENVIRONMENT)


def give_account(plane: ControlPlane, pod: JSON | None = None) -> None:
    """What a kubelet puts into a container, so that it can ask the API server."""
    ACCOUNT.mkdir(parents=True, exist_ok=True)
    (ACCOUNT / "ca.crt").write_text(plane.authority.read_text())
    (ACCOUNT / "namespace").write_text("kube-system")
    give_token(plane.api, pod)


def give_token(api: Api, pod: JSON | None = None) -> None:
    """A new token, in place of the one before, as a kubelet does; one that is a `pod`'s names its node."""
    asked: JSON = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    if pod:
        whose = {key: pod["metadata"][key] for key in ("name", "uid")}
        asked["spec"]["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", **whose}
    answer = api.create(f"{SYSTEM}/serviceaccounts/cni-netkit/token", asked)
    (ACCOUNT / "token").write_text(answer["status"]["token"])


def node_object(name: str, ranges: tuple[str, ...], addresses: tuple[str, ...]) -> JSON:
    """As a kubelet and the controller manager have it."""
    made: JSON = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]},
    }
    if ranges:
        made["spec"] = {"podCIDR": ranges[0], "podCIDRs": ranges}
    return made
