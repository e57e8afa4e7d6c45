"""A node of its own: network and mount namespace, empty stores, an agent; gone when closed."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x00000200, 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_REC_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x4000 | 0x40000, 2
PR_SET_PDEATHSIG = 1
KINDS = {"net": CLONE_NEWNET, "mnt": CLONE_NEWNS}
SOCKET = "/run/cni-netkit/agent.sock"
START_SECONDS = 30.0
CPUCLOCK_SCHED = 2
"""include/linux/posix-timers.h; the number of a process's clock is made of this and its own."""

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Container:
    """A network namespace that is all there is of a container."""

    name: str
    number: int

    @property
    def path(self) -> str:
        """Where it is bound."""
        return f"/run/netns/{self.name}"


@dataclass(frozen=True)
class Options:
    """What an agent is started with besides."""

    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Node:
    """Its namespaces are kept by descriptors: what is in them goes with them.

    The calling thread is inside the node it entered last, and what it starts is, too.
    """

    def __init__(self, options: Options = Options()) -> None:
        _call(libc.unshare, CLONE_FS)
        _call(libc.unshare, CLONE_NEWNET | CLONE_NEWNS)
        _call(libc.mount, b"none", b"/", None, MS_REC_PRIVATE, None)
        # All of /var/lib is hidden: the machine need not have /var/lib/cni, and gets none.
        for target in ("/run", "/var/lib"):
            _call(libc.mount, b"tmpfs", target.encode(), b"tmpfs", 0, None)
        _show_own_sysfs()
        for folder in ("/run/netns", "/var/lib/cni"):
            os.mkdir(folder)
        self._namespaces = {kind: _namespace(kind) for kind in KINDS}
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self._agent = _start_agent(options)
        self._containers = 0

    def enter(self) -> None:
        """Have this thread, and what it starts, inside."""
        _enter(self._namespaces)

    def containers(self, number: int) -> list[Container]:
        """Fresh containers, made before anything is timed."""
        made = []
        for _ in range(number):
            self._containers += 1
            container = Container(f"c{self._containers}", self._containers)
            _in_a_thread(partial(_bind_new_namespace, container.path))
            made.append(container)
        return made

    def agent_kibibytes(self) -> int:
        """The agent's resident memory (proc_pid_status(5), VmRSS)."""
        text = Path(f"/proc/{self._agent.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found, text
        return int(found[1])

    def agent_milliseconds(self) -> float:
        """The time that the agent has computed, all its threads together (clock_getcpuclockid(3))."""
        return time.clock_gettime_ns(~self._agent.pid << 3 | CPUCLOCK_SCHED) / 1e6

    def close(self) -> None:
        """Stop the agent and let go of the namespaces."""
        self._agent.terminate()
        try:
            self._agent.wait(10)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        for descriptor in self._namespaces.values():
            os.close(descriptor)


@contextlib.contextmanager
def nodes(*options: Options) -> Iterator[list[Node]]:
    """Fresh nodes, the first of them entered; afterwards the thread is back where it was."""
    home = {kind: _namespace(kind) for kind in KINDS}
    folder = os.getcwd()
    made: list[Node] = []
    try:
        for each in options or (Options(),):
            _enter(home)
            made.append(Node(each))
        made[0].enter()
        yield made
    finally:
        for node in made:
            node.close()
        _enter(home)
        os.chdir(folder)
        for descriptor in home.values():
            os.close(descriptor)


def socket_inside(namespace: int) -> socket.socket:
    """A socket for rtnetlink in the network namespace behind a descriptor."""
    opened: list[socket.socket] = []

    def enter_and_open() -> None:
        _call(libc.setns, namespace, CLONE_NEWNET)
        opened.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))

    _in_a_thread(enter_and_open)
    return opened[0]


def _show_own_sysfs() -> None:
    """sysfs of this network namespace; what lies below the machine's, cgroups above all, stays."""
    os.mkdir("/run/sys")
    _call(libc.mount, b"/sys", b"/run/sys", None, MS_BIND | MS_REC, None)
    _call(libc.mount, b"sysfs", b"/sys", b"sysfs", 0, None)
    if os.path.ismount("/run/sys/fs/cgroup"):
        _call(libc.mount, b"/run/sys/fs/cgroup", b"/sys/fs/cgroup", None, MS_BIND | MS_REC, None)
    _call(libc.umount2, b"/run/sys", MNT_DETACH)
    os.rmdir("/run/sys")


def _start_agent(options: Options) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cni_netkit.admin.main", "agent", "--socket", SOCKET]
    command += options.arguments
    agent = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **options.environment},
        stderr=subprocess.DEVNULL,
        # Whatever becomes of us, it does not stay. There is no other thread that could hold a lock.
        preexec_fn=partial(libc.prctl, PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509
    )
    deadline = time.monotonic() + START_SECONDS
    while not _listens():
        if agent.poll() is not None or time.monotonic() > deadline:
            agent.kill()
            raise RuntimeError(f"{' '.join(command)}: does not listen")
        time.sleep(0.01)
    return agent


def _listens() -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(SOCKET) == 0


def _bind_new_namespace(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o444))
    _call(libc.unshare, CLONE_NEWNET)
    _call(libc.mount, b"/proc/thread-self/ns/net", path.encode(), b"none", MS_BIND, None)


def _namespace(kind: str) -> int:
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _enter(namespaces: dict[str, int]) -> None:
    # A thread that is just ending still shares the working directory, which setns(2) minds.
    _call(libc.unshare, CLONE_FS)
    for kind, flag in KINDS.items():
        _call(libc.setns, namespaces[kind], flag)


def _in_a_thread(function: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
