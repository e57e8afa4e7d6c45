"""The DaemonSet's pod through containerd: it needs every privilege it has, and is enough for every example.

That nodes become ready by it, and pods run, is shown by real kubelets: tests/cluster.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.cri import CRI, CRIError
from tests.kernel import judge
from tests.kernel.conftest import DUAL_STACK, Node
from tests.kubernetes.conftest import INSTALLED, JSON, ROOT, Pod, daemon, named

EXAMPLES = sorted((ROOT / "conf").glob("*.conflist"))


@pytest.fixture
def pod(runtime: CRI, manifest: list[JSON], tmp_path: Path) -> Iterator[Pod]:
    """The pod with everything in it running."""
    with daemon(runtime, manifest, tmp_path) as made:
        assert made.install() == ""
        made.start()
        yield made


@pytest.mark.parametrize(
    ("kind", "well", "unwell"),
    [
        ("startup", '"supportedVersions"', '"code": 11'),
        ("readiness", "ok: this kernel has netkit", "failed: nobody takes requests at"),
        ("liveness", "are answered", "failed: nobody takes requests at"),
    ],
)
def test_probes_follow_the_agent(pod: Pod, kind: str, well: str, unwell: str) -> None:
    """They succeed while the agent answers, and fail when it does not."""
    ok, told = pod.probe(kind)
    assert ok, told
    assert well in told
    Path("/run/cni-netkit/agent.sock").rename("/run/cni-netkit/elsewhere")
    # What was told is a second old at most.
    judge.wait_for(lambda: not pod.probe(kind)[0], "it fails", 30)
    assert unwell in pod.probe(kind)[1]


def with_nic(node: Node, conflist: JSON) -> JSON:
    """Name a NIC of the lab where an example names eth0, and prepare it."""
    leasing = [plugin for plugin in conflist["plugins"] if "lease" in plugin]
    nic = node.nic() if leasing else ""
    for plugin in leasing:
        plugin["lease"]["device"] = nic
        if role := plugin["lease"].get("workload"):
            node.prepare(nic, role, "4-7")
            plugin["lease"]["flows"] = "none"  # netdevsim has no ntuple filters
    return conflist


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_works(pod: Pod, node: Node, example: Path) -> None:
    """STATUS, ADD, CHECK, DEL, again ADD, GC, of what is ours in it: with just these privileges."""
    conflist = with_nic(node, json.loads(example.read_text()))
    ours = [plugin for plugin in conflist["plugins"] if plugin["type"] == "netkit"]
    container = node.container()
    before = judge.world(container)

    def add() -> list[tuple[JSON, JSON]]:
        done: list[tuple[JSON, JSON]] = []
        for plugin in ours:
            conf = {"cniVersion": "1.1.0", "name": conflist["name"], **plugin}
            if done:
                conf["prevResult"] = done[-1][1]
            done.append((conf, node.add(conf, container)))
        return done

    added = add()
    for conf, _ in added:
        plain = {key: value for key, value in conf.items() if key != "prevResult"}
        assert node.call("STATUS", plain).ok
        assert node.check(plain, container, added[-1][1]).ok
    for conf, _ in reversed(added):
        assert node.call("DEL", conf, container).ok
    assert judge.world(container) == before
    for conf, _ in reversed(add()):
        assert node.call("GC", {**conf, "cni.dev/valid-attachments": []}).ok
    assert judge.world(container) == before


def test_it_stops_when_asked_to(pod: Pod) -> None:
    """SIGTERM ends it, without being killed, and the socket is gone."""
    pod.runtime.stop(pod.agent, pod.spec["terminationGracePeriodSeconds"])
    # 137 would be SIGKILL, when the time is up.
    assert pod.runtime.exit_status(pod.agent) == 0
    assert not Path("/run/cni-netkit/agent.sock").exists()


def test_it_names_a_plugin_that_is_missing(
    runtime: CRI, manifest: list[JSON], tmp_path: Path
) -> None:
    """Rather than every pod's start, the init container fails."""
    portmap = Path("/opt/cni/bin/portmap")
    launcher = Path(INSTALLED)
    launcher.unlink(missing_ok=True)
    portmap.rename("/opt/cni/portmap")
    try:
        with daemon(runtime, manifest, tmp_path) as made:
            told = made.install()
        assert "names the plugin portmap" in told
        assert not launcher.exists()
    finally:
        Path("/opt/cni/portmap").rename(portmap)


# --- Nothing that could be left out ---------------------------------------------------------------


def agent(pod: JSON) -> JSON:
    return named(pod["containers"], "agent")


def without_capability(name: str) -> Callable[[JSON], None]:
    def change(pod: JSON) -> None:
        agent(pod)["securityContext"]["capabilities"]["add"].remove(name)

    return change


def without_volume(name: str) -> Callable[[JSON], None]:
    def change(pod: JSON) -> None:
        mounts = agent(pod)["volumeMounts"]
        mounts[:] = [each for each in mounts if each["name"] != name]

    return change


def with_command(*command: str) -> Callable[[JSON], None]:
    def change(pod: JSON) -> None:
        agent(pod)["command"] = list(command)

    return change


AGENT = ("/bin/sh", "-c", "exec /opt/cni-netkit/bin/cni-netkit agent")
PLAIN = {"cniVersion": "1.1.0", "name": "net", "type": "netkit"}
SINGLE = {**PLAIN, "pairing": "single"}


def fails_to_add(node: Node, conf: JSON) -> JSON:
    return node.call("ADD", conf, node.container()).error


@pytest.mark.parametrize(
    ("change", "conf", "expected"),
    [
        (without_capability("NET_ADMIN"), {**PLAIN, "ipam": DUAL_STACK}, "EPERM"),
        (with_command(*AGENT), {**PLAIN, "ipam": DUAL_STACK}, "/proc/sys/net/ipv"),
        (without_volume("state"), {**PLAIN, "ipam": DUAL_STACK}, "/var/lib: Read-only"),
    ],
    ids=["NET_ADMIN", "remount", "state"],
)
def test_an_add_fails_without(
    runtime: CRI,
    manifest: list[JSON],
    tmp_path: Path,
    node: Node,
    change: Callable[[JSON], None],
    conf: JSON,
    expected: str,
) -> None:
    """Each of them is needed for the ordinary dual-stack pod, and the error says what for."""
    judge.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    with daemon(runtime, manifest, tmp_path, change) as made:
        assert made.install() == ""
        made.start()
        error = fails_to_add(node, conf)
    assert expected in json.dumps(error), error


def test_it_does_not_start_without_sys_admin(
    runtime: CRI, manifest: list[JSON], tmp_path: Path, node: Node
) -> None:
    """The remount needs it; and without the remount, entering a container's namespace does."""

    def change(pod: JSON) -> None:
        without_capability("SYS_ADMIN")(pod)
        with_command(*AGENT)(pod)

    with daemon(runtime, manifest, tmp_path, without_capability("SYS_ADMIN")) as made:
        assert made.install() == ""
        with pytest.raises(AssertionError, match="permission denied"):
            made.start()
    with daemon(runtime, manifest, tmp_path, change) as made:
        made.start()
        error = fails_to_add(node, {**PLAIN, "ipam": DUAL_STACK})
    assert "Operation not permitted" in json.dumps(error) or "EPERM" in json.dumps(error), error


def test_what_a_killed_agent_left_is_found_through_the_netns_folder(
    runtime: CRI, manifest: list[JSON], tmp_path: Path, node: Node
) -> None:
    """An ADD that was cut short has noted no more than where the container is.

    A single device is nowhere but there. The record is made such as a kill leaves it.
    """
    left = {}
    for name, change in (("with", None), ("without", without_volume("netns"))):
        container = node.container()
        (tmp_path / name).mkdir()
        with daemon(runtime, manifest, tmp_path / name) as made:
            assert made.install() == ""
            made.start()
            node.add(SINGLE, container)
        (path,) = Path("/var/lib/cni/netkit/net").glob(f"container-{container}*")
        cut_short = {**json.loads(path.read_text()), "outcome": {}, "complete": False}
        path.write_text(json.dumps(cut_short))
        with daemon(runtime, manifest, tmp_path / name, change) as made:
            made.start()
            left[name] = judge.link("eth0", container)
        path.unlink(missing_ok=True)
    assert left["with"] is None
    assert left["without"] is not None


def test_it_cannot_wait_for_the_network_that_it_makes(
    runtime: CRI, manifest: list[JSON], tmp_path: Path
) -> None:
    """So it is in the node's own, which containers are connected to: hostNetwork."""

    def change(pod: JSON) -> None:
        pod["hostNetwork"] = False

    with daemon(runtime, manifest, tmp_path) as made:
        assert made.install() == ""
        made.write_list()
    judge.wait_for(lambda: runtime.condition("NetworkReady").get("status"), "it is ready", 30)
    with pytest.raises(CRIError) as refused, daemon(runtime, manifest, tmp_path, change):
        pass
    assert "no agent listens on" in str(refused.value)
    # containerd 1.6 and 1.7 keep the sandbox and call DEL until it works: as soon as there is an agent.
    with daemon(runtime, manifest, tmp_path) as made:
        made.start()
        runtime.remove_all(but=made.sandbox)


@pytest.mark.usefixtures("pod")
def test_the_launcher_on_the_node_is_static() -> None:
    """The node needs no Python, and no library of ours."""
    told = subprocess.run(["ldd", INSTALLED], capture_output=True, text=True)
    assert "not a dynamic executable" in told.stderr + told.stdout
