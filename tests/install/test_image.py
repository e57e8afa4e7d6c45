"""The Dockerfile, built by buildah on a base that debootstrap made; its agent serves a launcher
outside, which hands the container's namespace over by descriptor."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.install import roots
from tests.kernel import judge
from tests.kernel.conftest import Node, own_node

CONF = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "netkit",
    "fallback": "veth",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]},
}
# As docker run --privileged --network=host with three volumes, of which this test wants to know
# whether the third is needed for an ADD: namespaces' names are not mounted.
ENTER = """
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t sysfs sysfs "$ROOT/sys"
mount -t devtmpfs dev "$ROOT/dev"
for each in $VOLUMES; do
    mkdir -p "$ROOT${each#*:}"
    mount --bind "${each%:*}" "$ROOT${each#*:}"
done
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$ROOT" "$@"
"""
IMAGE = "localhost/cni-netkit-test"
BASE = "localhost/cni-netkit-base"


@dataclass
class Buildah:
    """buildah with a store of its own, without a registry."""

    folder: Path

    def __call__(self, *arguments: str | Path) -> str:
        store = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]
        # With folders of one's own it does not look at STORAGE_DRIVER; others leave mounts behind.
        store += ["--storage-driver", "vfs"]
        return roots.run(
            "buildah",
            *store,
            *arguments,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        ).strip()


@dataclass
class Container:
    """A container of the image: its root, and what its configuration says to run."""

    root: str
    entrypoint: list[str]
    command: list[str]
    environment: list[str]
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, *command: str, volumes: dict[Path, str]) -> "subprocess.Popen[bytes]":
        """Run the entry point in mount and process namespaces of its own."""
        pairs = " ".join(f"{outside}:{inside}" for outside, inside in volumes.items())
        arguments = [*self.entrypoint, *(command or self.command)]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        process = subprocess.Popen(
            [*unshare, "bash", "-euc", ENTER, "enter", *arguments],
            env={"PATH": os.environ["PATH"], "ROOT": self.root, "VOLUMES": pairs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.processes.append(process)
        return process

    def run(self, *command: str, volumes: dict[Path, str]) -> tuple[int, str]:
        """Run it to its end; exit status and output."""
        process = self.start(*command, volumes=volumes)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output.decode()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The image, built without network but for Debian's packages."""
    folder = tmp_path_factory.mktemp("buildah")
    buildah = Buildah(folder)
    empty = buildah("from", "scratch")
    buildah("add", "--quiet", empty, roots.base(), "/")
    buildah("commit", "--quiet", "--rm", empty, BASE)
    pip = folder / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    volumes = [f"--volume={roots.locked_wheels()}:/wheels:ro", f"--volume={pip}:/etc/pip.conf:ro"]
    context = roots.sources(folder / "context", roots.NEW)
    dockerfile = roots.ROOT / "Dockerfile"
    build = ["build-using-dockerfile", "--layers=false", f"--build-arg=BASE_IMAGE={BASE}"]
    buildah(*build, *volumes, "--file", dockerfile, "--tag", IMAGE, context)
    sizes = dict(
        line.split(maxsplit=1)
        for line in buildah("images", "--format", "{{.Name}} {{.Size}}").splitlines()
    )
    print(f"image {sizes[IMAGE]}, of which the base is {sizes[BASE]}")
    working = buildah("from", IMAGE)
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    root, environment = buildah("mount", working), config.get("Env", [])
    made = Container(root, config["Entrypoint"], config["Cmd"], environment)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    shutil.rmtree(folder)


def test_image_is_small_and_runs_the_agent(container: Container) -> None:
    """Nothing to build with, no caches; what it runs by default."""
    assert (container.entrypoint, container.command) == (
        ["/opt/cni-netkit/bin/cni-netkit"],
        ["agent"],
    )
    inside = Path(container.root)
    for unwanted in (
        "usr/bin/gcc",
        "usr/bin/clang",
        "usr/bin/pip3",
        "opt/cni-netkit/bin/pip",
        "build",
        "src",
    ):
        assert not (inside / unwanted).exists(), unwanted
    for cache in ("var/lib/apt/lists", "var/cache/apt", "root/.cache"):
        assert not (inside / cache).exists() or not list((inside / cache).iterdir()), cache
    used = roots.run("du", "-sm", inside).split()[0]
    base = roots.run("du", "-sm", roots.base()).split()[0]
    assert int(used) - int(base) < 80


def test_command_can_be_typed(container: Container) -> None:
    """As docker exec and kubectl exec find it: by the image's PATH; its documentation is there."""
    run = ["chroot", container.root, "env", "-i", *container.environment, "cni-netkit"]
    assert roots.run(*run, "--version") == f"cni-netkit {roots.NEW}\n"
    folder = roots.run(*run, "--help").split()[-1]
    assert Path(container.root, folder[1:], "admin.md").exists()


def test_xdp_program_and_its_loader_are_there(container: Container) -> None:
    """AF_XDP works from the image: the object is in it, and libbpf can open it."""
    code = (
        "from cni_netkit.kernel.bpf import libbpf, xdp; library = libbpf.library(); "
        "assert library.bpf_object__open_file(bytes(xdp.OBJECT), None)"
    )
    python = "/opt/cni-netkit/bin/python"
    roots.run("chroot", container.root, python, "-c", code)


def test_what_follows_a_cluster_is_there(container: Container) -> None:
    """The extra `node`: the DaemonSet's second container is of the same image."""
    python = "/opt/cni-netkit/bin/python"
    roots.run("chroot", container.root, python, "-c", "import cni_netkit.node.api")


def test_versions_are_those_of_the_lock(container: Container) -> None:
    """Each package that is installed, and no other."""
    locked = {
        line.split(" ")[0]
        for name in ("run", "node")
        for line in (roots.ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
        if line[:1].isalpha()
    }
    packages = Path(container.root).glob("opt/cni-netkit/lib/python3*/site-packages/*.dist-info")
    pairs = [path.stem.rsplit("-", 1) for path in packages]
    installed = {f"{name.replace('_', '-')}=={version}" for name, version in pairs}
    assert installed == {*locked, f"cni-netkit=={roots.NEW}"}


@pytest.fixture
def node() -> Iterator[Node]:
    """A host in namespaces of its own."""
    with own_node() as made:
        yield made


def test_agent_serves_a_launcher_outside(container: Container, node: Node, tmp_path: Path) -> None:
    """`install` puts the launcher on the host; ADD and DEL go through it, without the name of the
    container's namespace being known in the agent's container."""
    bin_dir, run, state = (tmp_path / name for name in ("bin", "run", "state"))
    for folder in (bin_dir, run, state):
        folder.mkdir()
    host = {bin_dir: "/host/opt/cni/bin"}
    assert container.run("install", volumes=host) == (0, "/host/opt/cni/bin/netkit is in place\n")
    assert [each.name for each in bin_dir.iterdir()] == ["netkit"]
    again = (0, "/host/opt/cni/bin/netkit was in place already\n")
    assert container.run("install", volumes=host) == again
    agent = container.start(volumes={run: "/run/cni-netkit", state: "/var/lib/cni"})
    judge.wait_for((run / "agent.sock").exists, "the agent listens")
    name = node.container()
    inside = [each for each in children(agent.pid) if cmdline(each).startswith("/opt/cni-netkit/")]
    assert inside
    for process in inside:
        assert Path(f"/proc/{process}/root/opt/cni-netkit").exists()
        assert not Path(f"/proc/{process}/root/run/netns/{name}").exists()
    environment = {
        "CNI_CONTAINERID": "abc",
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        "CNI_NETKIT_SOCKET": str(run / "agent.sock"),
    }

    def call(verb: str) -> str:
        return roots.run(
            bin_dir / "netkit",
            input=json.dumps(CONF),
            env={**environment, "CNI_COMMAND": verb},
        )

    before = judge.ip("link")
    result = json.loads(call("ADD"))
    assert result["ips"][0]["address"] == "10.88.0.2/16"
    assert judge.pings("10.88.0.1", netns=name)
    assert judge.pings("10.88.0.2")
    assert [each.name for each in (state / "netkit" / "net").iterdir()] == ["abc:eth0.json"]
    assert call("DEL") == ""
    assert judge.link("eth0", netns=name) is None
    assert [each["ifname"] for each in judge.ip("link")] == [each["ifname"] for each in before]
    for process in inside:
        os.kill(process, signal.SIGTERM)
    assert b'"stopped"' in agent.communicate(timeout=30)[0]


def children(parent: int) -> list[int]:
    """A process and what descends from it."""
    found = [parent]
    for child in judge.run("pgrep", "--parent", str(parent), check=False).split():
        found += children(int(child))
    return found


def cmdline(process: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
