"""Kernel tests: each in fresh namespaces on both sides, and a store of its own."""

import ctypes
import glob
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import main as admin
from cni_netkit.agent import server
from cni_netkit.kernel.bpf import xdp as bpf
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics.prepare import prepare
from cni_netkit.spec.nics import Preparation
from cni_netkit.verbs import handle
from tests.ethtool.fake import FakeNic
from tests.ethtool.patched import put_in
from tests.kernel import judge
from tests.kernel.features import kernel_has_netkit
from tests.selection import leave_out

CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x00000200, 0x00020000, 0x40000000
MS_REC_PRIVATE = 0x4000 | 0x40000
PACKAGE = Path(__file__).parents[2] / "cni_netkit"
LAUNCHER = PACKAGE / "agent" / "launcher" / "netkit.c"
XDP_PROGRAM = PACKAGE / "kernel" / "bpf" / "xsk.bpf.c"

libc = ctypes.CDLL(None, use_errno=True)
identifiers = itertools.count(os.getpid() % 1000 * 100)

JSON = dict[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "without_netkit: needs a kernel that has no netkit")
    config.addinivalue_line("markers", "any_kernel: does not need netkit, nor mind it")
    config.addinivalue_line("markers", "once: the same whether the plugin has an agent or not")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a kernel with netkit run what needs it, on another the rest; ./test runs both."""
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    if not ours:
        return
    has = kernel_has_netkit()
    through_agent = config.getoption("--through") == "agent"
    out = [
        item
        for item in ours
        if (
            bool(item.get_closest_marker("without_netkit")) == has
            and not item.get_closest_marker("any_kernel")
        )
        or (through_agent and item.get_closest_marker("once"))
    ]
    if out:
        leave_out(config, items, out)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(kind: str, target: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    _call(libc.mount, kind.encode(), target.encode(), kind.encode(), 0, None)


@dataclass
class Answer:
    """What came back from the plugin."""

    status: int
    output: JSON | None

    @property
    def result(self) -> JSON:
        """The result of an ADD that must have worked."""
        assert self.status == 0, self.output
        assert self.output is not None
        return self.output

    @property
    def error(self) -> JSON:
        """The error of a verb that must have failed."""
        assert self.status == 1, self.output
        assert self.output is not None
        return self.output

    @property
    def ok(self) -> bool:
        """Whether it worked without an answer, as DEL, CHECK, GC and STATUS do."""
        assert self.status == 0, self.output
        assert self.output is None
        return True


Requests = Callable[[dict[str, str], bytes], Answer]
"""How a request reaches the plugin: its environment and standard input."""


def in_process(environment: dict[str, str], stdin: bytes) -> Answer:
    """Handle a request here and now."""
    answer = handle(environment, lambda: stdin)
    return Answer(answer.status, answer.output)


@contextmanager
def own_agent() -> Iterator[str]:
    """An agent in a thread of this process; the path of its socket.

    So it can be patched like anything else here. It shares the caller's namespaces, and in the end
    no thread of it is in another one, or left, and no descriptor is.
    """
    threads, descriptors = threading.active_count(), sorted(links("/proc/self/fd/*"))
    namespace = os.readlink("/proc/thread-self/ns/net")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "agent.sock")
        with server.listen(path) as listener:
            agent = server.Agent(listener)
            serving = threading.Thread(target=agent.serve)
            serving.start()
            try:
                yield path
                # A thread that was thrown away is in the container until it has quite ended.
                judge.wait_for(
                    lambda: set(links("/proc/self/task/*/ns/net")) == {namespace},
                    "no worker is left in another namespace",
                )
            finally:
                agent.stop()
                serving.join()
    assert threading.active_count() == threads
    assert sorted(links("/proc/self/fd/*")) == descriptors


@contextmanager
def through_agent(launcher: Path) -> Iterator[Requests]:
    """Give each request to the launcher, and that to `own_agent`."""
    with own_agent() as path:

        def request(environment: dict[str, str], stdin: bytes) -> Answer:
            done = subprocess.run(
                [launcher],
                input=stdin,
                env={**environment, "CNI_NETKIT_SOCKET": path},
                stdout=subprocess.PIPE,
            )
            return Answer(done.returncode, json.loads(done.stdout) if done.stdout else None)

        yield request


def links(pattern: str) -> list[str]:
    """Where the links lead that a pattern matches; one that vanishes meanwhile is left out."""
    found = []
    for name in glob.glob(pattern):
        with suppress(FileNotFoundError):
            found.append(os.readlink(name))
    return found


@dataclass
class Node:
    """A host in its own namespaces, on which the plugin is called as a runtime calls it."""

    request: Requests = in_process
    containers: list[str] = field(default_factory=list)
    nics: list[int] = field(default_factory=list)

    def container(self) -> str:
        """A fresh container namespace; its name for ip(8)."""
        name = f"c{next(identifiers)}"
        judge.run("ip", "netns", "add", name)
        self.containers.append(name)
        return name

    def nic(self, queues: int = 8, *, up: bool = True) -> str:
        """A fresh netdevsim NIC in the host's namespace; its device name."""
        number = next(identifiers)
        Path("/sys/bus/netdevsim/new_device").write_text(f"{number} 1 {queues}")
        self.nics.append(number)
        device = f"/sys/bus/netdevsim/devices/netdevsim{number}/net/*"
        (name,) = judge.wait_for(
            lambda: [Path(each).name for each in glob.glob(device)], "the NIC appears"
        )
        # No link-local addresses that turn up later: a test compares before and after.
        judge.run("ip", "link", "set", name, "addrgenmode", "none")
        if up:
            judge.run("ip", "link", "set", name, "up")
        return str(name)

    def prepare(self, nic: str, role: str, queues: str) -> None:
        """Give a NIC a role; netdevsim can do AF_XDP by copying only."""
        given = {"device": nic, "role": role, "queues": queues, "copy": role == "af_xdp" or None}
        host = Namespace.current()
        try:
            prepare(host, Preparation.model_validate(given))
        finally:
            host.close()

    def virtual_function(self) -> str:
        """A netdevsim virtual function, up: a NIC without queue management."""
        parent = self.nic()
        number = self.nics[-1]
        before = {each["ifname"] for each in judge.ip("link")}
        judge.run(
            "devlink", "dev", "eswitch", "set", f"netdevsim/netdevsim{number}", "mode", "switchdev"
        )
        Path(f"/sys/bus/netdevsim/devices/netdevsim{number}/sriov_numvfs").write_text("1")
        name = judge.wait_for(
            lambda: {each["ifname"] for each in judge.ip("link")} - before - {parent},
            "the virtual function appears",
        ).pop()
        judge.run("ip", "link", "set", name, "up")
        return str(name)

    def remove_nic(self, number: int | None = None) -> None:
        """Take a NIC away as a driver's removal does."""
        number = self.nics[0] if number is None else number
        self.nics.remove(number)
        Path("/sys/bus/netdevsim/del_device").write_text(str(number))

    def call(
        self, verb: str, conf: JSON, netns: str = "", *, cid: str = "", **environment: str
    ) -> Answer:
        """One request; container id and path follow from the namespace's name."""
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": cid or f"container-{netns}",
            "CNI_NETNS": f"/run/netns/{netns}" if netns and "/" not in netns else netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "PATH": os.environ["PATH"],
        }
        variables.update({f"CNI_{name.upper()}": value for name, value in environment.items()})
        return self.request(variables, json.dumps(conf).encode())

    def add(self, conf: JSON, netns: str, **more: str) -> JSON:
        """An ADD that must work; its result."""
        return self.call("ADD", conf, netns, **more).result

    def check(self, conf: JSON, netns: str, result: JSON, **more: str) -> Answer:
        """A CHECK with the result of ADD."""
        return self.call("CHECK", {**conf, "prevResult": result}, netns, **more)

    def clean_up(self) -> None:
        """Take away what would outlive the namespaces."""
        for number in list(self.nics):
            self.remove_nic(number)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher, compiled as for a node."""
    return compiled_launcher(tmp_path_factory.mktemp("launcher"))


def compiled_launcher(folder: Path, *flags: str) -> Path:
    """A launcher in a folder of its own."""
    compiler = shutil.which("cc")
    assert compiler, "to go through the agent a C compiler is needed"
    executable = folder / "netkit"
    subprocess.run([compiler, "-O2", "-static", *flags, "-o", executable, LAUNCHER], check=True)
    return executable


@pytest.fixture(scope="session")
def xdp_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our XDP program, compiled as for a node, in the place of the one that was built or was not."""
    assert shutil.which("clang"), "the XDP program needs clang"
    compiled = tmp_path_factory.mktemp("xdp") / "xsk.bpf.o"
    judge.run("clang", "-O2", "-g", "-target", "bpf", "-c", str(XDP_PROGRAM), "-o", str(compiled))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpf, "OBJECT", compiled)
        yield compiled


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node of its own for each test: network and mount namespace, empty store, no container.

    With `--through agent` it has an agent, too.
    """
    with own_node() as made, ExitStack() as stack:
        if request.config.getoption("--through") == "agent":
            compiled = request.getfixturevalue("launcher")
            made.request = stack.enter_context(through_agent(compiled))
        yield made


@contextmanager
def own_node() -> Iterator[Node]:
    """Enter fresh namespaces, and leave them again."""
    here = {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")}
    folder = os.getcwd()
    _call(libc.unshare, CLONE_NEWNET | CLONE_NEWNS)
    made = Node()
    try:
        _call(libc.mount, b"none", b"/", None, MS_REC_PRIVATE, None)
        for target in ("/var/lib/cni", "/run/netns"):
            _mount("tmpfs", target)
        _mount("sysfs", "/sys")
        _mount("bpf", "/sys/fs/bpf")
        judge.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        made.clean_up()
        # A thread that is just ending still shares the working directory, which setns(2) minds.
        _call(libc.unshare, CLONE_FS)
        for kind, flag in (("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS)):
            _call(libc.setns, here[kind], flag)
            os.close(here[kind])
        os.chdir(folder)


@pytest.fixture
def host(node: Node) -> Iterator[Namespace]:
    """The node's namespace, as the plugin asks it."""
    found = Namespace.current()
    yield found
    found.close()


@pytest.fixture
def fake_nic(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNic]:
    """Give a NIC of the lab what netdevsim has not: RSS, contexts, rules for flows.

    Call it with the device's name and what FakeNic takes. What changes there is its `rules`, `table`,
    `contexts`, `ntuple`; all else is the kernel's.
    """

    def put(name: str, **options: Any) -> FakeNic:
        made = FakeNic(name, **options)
        put_in(monkeypatch, made, judge.generic_family("ethtool"))
        return made

    return put


@pytest.fixture
def conf() -> Callable[..., JSON]:
    """A network configuration: an l3 pair with one IPv4 address unless told otherwise."""

    def make(**keys: Any) -> JSON:
        base = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "netkit",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.1.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        base.update(keys)
        return {key: value for key, value in base.items() if value is not None}

    return make


DUAL_STACK = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}


@pytest.fixture
def dual_stack() -> JSON:
    """An IPAM that gives an IPv4 and an IPv6 address, with default routes."""
    return json.loads(json.dumps(DUAL_STACK))  # type: ignore[no-any-return]


class Command:
    """cni-netkit, run in the node's namespaces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Its standard output."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
        assert admin.main() == status
        return self._capsys.readouterr().out

    def fails(self, *arguments: str) -> str:
        """What it says on standard error where it ends with exit status 1 and prints nothing."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
        assert admin.main() == 1
        output, said = self._capsys.readouterr()
        assert output == ""
        return said

    def misuses(self, *arguments: str) -> str:
        """What it says on standard error of a command line that cannot be meant."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            admin.main()
        assert ended.value.code == 2
        output, said = self._capsys.readouterr()
        assert output == ""
        return said

    def hint(self, *arguments: str) -> str:
        """What it says on standard error beside a report."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
        assert admin.main() == 0
        output, said = self._capsys.readouterr()
        assert output
        return said

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Its report."""
        return json.loads(self(*arguments, "--json", status=status))


@pytest.fixture
def cni_netkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command on a node."""
    return Command(monkeypatch, capsys)


def executable() -> list[str]:
    """The plugin as a process."""
    return [sys.executable, "-m", "cni_netkit"]


Conf = Callable[..., JSON]
Environment = Mapping[str, str]


# Below, since it needs what is above: pytest finds fixtures here.
from tests.kernel.examples import cnitool, with_nic  # noqa: E402, F401
