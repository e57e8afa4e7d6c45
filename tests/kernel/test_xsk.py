"""AF_XDP sockets: handed over by an application that has CAP_NET_RAW alone, and receiving.

Two netdevsims are linked: one is the node's NIC, the other sends.
"""

import ctypes
import json
import mmap
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.agent import xsk
from cni_netkit.kernel.namespace import Namespace
from tests.kernel import judge
from tests.kernel.cnitool import CNITOOL, NO_CNITOOL, Cnitool
from tests.kernel.conftest import CLONE_NEWNET, JSON, Conf, Node, libc, links

EXAMPLES = Path(__file__).parents[2] / "examples"
NET_RAW_ALONE = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all,+net_raw",
    "--inh-caps=-all,+net_raw",
    "--ambient-caps=-all,+net_raw",
]
PORT = 9000
SYS_SETRESUID = 117
"""Of x86_64; the C library would change all threads."""
OURS, OTHERS = "192.0.2.2", "192.0.2.1"

pytestmark = pytest.mark.usefixtures("xdp_program")


@dataclass
class Wire:
    """A NIC of the host, and the NIC at the other end of its wire, in a namespace of its own."""

    nic: str
    other: str
    other_device: str

    def send(self, text: str, queue: int) -> None:
        """Have the other NIC send a UDP datagram that arrives on a queue of the NIC.

        By XPS on its own queue after that: netdevsim hands the frame over as it is, and what
        is a number from 0 on the sending side is one from 1 on the receiving side (skbuff.h).
        """
        device = f"/sys/class/net/{self.other_device}/queues"
        script = (
            f'for each in {device}/tx-*/xps_cpus; do echo 0 >"$each"; done; '
            f"echo {judge.every_processor()} >{device}/tx-{queue + 1}/xps_cpus; "
            f"echo -n {text} >/dev/udp/{OURS}/{PORT}"
        )
        judge.run("bash", "-c", script, netns=self.other)


@pytest.fixture
def wire(node: Node) -> Wire:
    """A wire between a NIC of eight queues and another one."""
    nic, other, device = node.nic(), node.container(), node.nic(queues=16)
    judge.run("ip", "link", "set", device, "netns", other)
    # Nothing but what a test sends.
    judge.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1", netns=other)
    for name, netns, address, neighbour in (
        (nic, "", OURS, OTHERS),
        (device, other, OTHERS, OURS),
    ):
        where = ["-n", netns] if netns else []
        judge.run("ip", *where, "link", "set", name, "up")
        judge.run("ip", *where, "address", "add", f"{address}/24", "dev", name)
        far, far_netns = (device, other) if name == nic else (nic, "")
        mac = judge.link(far, far_netns)["address"]
        judge.run("ip", *where, "neigh", "add", neighbour, "lladdr", mac, "dev", name)
    indexes = judge.link(nic)["ifindex"], judge.link(device, other)["ifindex"]
    with open("/proc/self/ns/net") as here, open(f"/run/netns/{other}") as there:
        Path("/sys/bus/netdevsim/link_device").write_text(
            f"{here.fileno()}:{indexes[0]} {there.fileno()}:{indexes[1]}"
        )
    return Wire(nic, other, device)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can read, with the examples, the one in C compiled."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o755)
        shutil.copy(EXAMPLES / "xsk_receive.py", made)
        compiled = str(made / "xsk_receive")
        warnings = ["-Wall", "-Wextra", "-Werror"]
        judge.run("cc", "-O2", *warnings, "-o", compiled, str(EXAMPLES / "xsk_receive.c"))
        yield made


@pytest.fixture
def xsk_socket(node: Node, folder: Path) -> Iterator[Path]:
    """Where the agent, in threads of this process, takes sockets over."""
    with xsk.served(str(folder / "agent.sock")):
        yield folder / "xsk.sock"


def prepare(host: Namespace, name: str) -> None:
    nic = host.links.get(name=name)
    assert nic
    host.xdp.attach(nic)


def leased(node: Node, conf: Conf, nic: str, count: int = 2) -> str:
    """A container whose eth0 is a single device with leases: its queue 1 is the NIC's queue 7."""
    c = node.container()
    node.add(conf(pairing="single", ipam=None, lease={"device": nic, "count": count}), c)
    return c


@dataclass
class Client:
    """One of the examples, running in a container."""

    process: "subprocess.Popen[bytes]"
    printed: bytes = b""

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout
        while b"\n" not in self.printed:
            ready, _, _ = select.select([self.process.stdout], [], [], judge.DEADLINE)
            assert ready, "it prints nothing"
            more = os.read(self.process.stdout.fileno(), 4096)
            assert more, "it has ended"
            self.printed += more
        line, _, self.printed = self.printed.partition(b"\n")
        return line.decode()


Start = Callable[..., Client]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start one of the examples in a container, as nobody with CAP_NET_RAW."""
    with ExitStack() as stack:

        def begin(language: str, netns: str, queue: int, xsk_socket: Path) -> Client:
            program = {
                "c": [str(folder / "xsk_receive")],
                "python": ["/usr/bin/python3", "-I", str(folder / "xsk_receive.py")],
            }[language]
            enter = ["ip", "netns", "exec", netns, *NET_RAW_ALONE]
            process = subprocess.Popen(
                [*enter, *program, "--copy", "eth0", str(queue), str(xsk_socket)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Client(process)

        yield begin


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A UDP socket of the host on the NIC's address: it gets what the NIC passes to the stack."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((OURS, PORT))
        udp.settimeout(judge.DEADLINE)
        yield udp


@pytest.mark.parametrize("language", ["c", "python"])
def test_frames_arrive_in_the_containers_rings(
    node: Node,
    conf: Conf,
    wire: Wire,
    xsk_socket: Path,
    start: Start,
    language: str,
) -> None:
    """Those of its queue, and only those; others take their way through the host's stack.

    The NIC is prepared, and the lease says what for, as an administrator would have it.
    """
    node.prepare(wire.nic, "af_xdp", "6-7")
    c = node.container()
    lease = {"device": wire.nic, "count": 2, "workload": "af_xdp"}
    node.add(conf(pairing="single", ipam=None, lease=lease), c)
    one, two = (start(language, c, queue, xsk_socket) for queue in (1, 2))
    assert [one.line(), two.line()] == ["receiving", "receiving"]
    status = Path(f"/proc/{one.process.pid}/status").read_text()
    assert "CapEff:\t0000000000002000" in status
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    with listening() as udp:
        wire.send("for-queue-seven", 7)
        wire.send("for-queue-six", 6)
        wire.send("for-the-host", 5)
        assert one.line().endswith("for-queue-seven")
        assert two.line().endswith("for-queue-six")
        assert udp.recv(100) == b"for-the-host"
        wire.send("again", 7)
        assert one.line().endswith("again")


@pytest.mark.once
@pytest.mark.skipif(not CNITOOL, reason=NO_CNITOOL)
def test_a_pod_of_the_example_configuration(
    node: Node, wire: Wire, tmp_path: Path, xsk_socket: Path, start: Start
) -> None:
    """From preparing the NIC to the frames: conf/30 by cnitool, nothing left of it after DEL."""
    example = Path(__file__).parents[2] / "conf" / "30-single-af-xdp.conflist"
    conflist = json.loads(example.read_text())
    conflist["plugins"][0]["lease"]["device"] = wire.nic
    cnitool, c = Cnitool(tmp_path), node.container()
    network = cnitool.configure(conflist)
    node.prepare(wire.nic, "af_xdp", "4-7")
    cnitool("status", network, c)
    cnitool("add", network, c)
    assert set(judge.leases(wire.nic)) == {7}
    client = start("c", c, 1, xsk_socket)
    assert client.line() == "receiving"
    wire.send("from-the-wire", 7)
    assert client.line().endswith("from-the-wire")
    cnitool("check", network, c)
    cnitool("del", network, c)
    assert judge.leases(wire.nic) == {}


@contextmanager
def socket_of(
    netns: str, queue: int = 1, *, device: str = "eth0", receives: bool = True
) -> Iterator[socket.socket]:
    """An AF_XDP socket bound to a queue of a container's device, made in this process."""
    with ExitStack() as stack:
        made = stack.enter_context(inside(netns, lambda: socket.socket(44, socket.SOCK_RAW)))
        memory = stack.enter_context(mmap.mmap(-1, 1 << 16))
        held = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(held)
        del held
        made.setsockopt(283, 4, struct.pack("=QQIIII", address, 1 << 16, 4096, 0, 0, 0))
        for ring in (5, 6, 2 if receives else 3):
            made.setsockopt(283, ring, 16)
        index = judge.link(device, netns)["ifindex"]
        seat = struct.pack("=HHIII", 44, 2, index, queue, 0)
        # The queue of a socket that was closed just now is given back from a work queue.
        bind = ctypes.CDLL(None).bind
        judge.wait_for(lambda: bind(made.fileno(), seat, len(seat)) == 0, "the queue is free")
        yield made


def inside(netns: str, function: Callable[[], Any]) -> Any:
    """What a function makes in a namespace, for this process."""
    made: list[Any] = []

    def enter_and_call() -> None:
        with open(f"/run/netns/{netns}") as namespace:
            if ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0:
                made.append(function())

    thread = threading.Thread(target=enter_and_call)
    thread.start()
    thread.join()
    return made[0]


def hand_over(path: Path, *descriptors: int) -> JSON:
    """The agent's answer to a message with these descriptors."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.settimeout(judge.DEADLINE)
        agent.connect(str(path))
        socket.send_fds(agent, [b"x"], descriptors)
        answer: JSON = json.loads(agent.recv(1000))
        assert agent.recv(1000) == b"", "there is one answer"
        return answer


def test_what_is_refused_and_why(
    node: Node, conf: Conf, wire: Wire, host: Namespace, xsk_socket: Path
) -> None:
    """By what the kernel says of the descriptor, whatever the application may claim."""
    c, other = leased(node, conf, wire.nic), node.container()
    # The same index and the same queue number in another namespace.
    node.add(conf(pairing="single", ipam=None), other)
    assert judge.link("eth0", c)["ifindex"] == judge.link("eth0", other)["ifindex"]

    def refused(*descriptors: int) -> str:
        answer = hand_over(xsk_socket, *descriptors)
        assert set(answer) == {"ok", "reason"}
        assert answer["ok"] is False
        return str(answer["reason"])

    with socket_of(c) as one:
        assert refused(one.fileno()) == (
            "queue 1 of eth0 is not leased from a NIC that is prepared for AF_XDP"
        )
    prepare(host, wire.nic)
    before = sorted(links("/proc/self/fd/*"))
    with socket_of(c, 0) as own, socket_of(other, 0) as elsewhere:
        not_leased = "queue 0 of eth0 is not leased from a NIC that is prepared for AF_XDP"
        assert refused(own.fileno()) == not_leased
        assert refused(elsewhere.fileno()) == not_leased
    with socket_of(c, receives=False) as deaf:
        assert "no receive ring" in refused(deaf.fileno())
    with inside(c, lambda: socket.socket(44, socket.SOCK_RAW)) as unbound:
        assert "is not bound" in refused(unbound.fileno())
    node.add(conf(pairing="single", ipam=None), c, ifname="nk1")
    with socket_of(c) as older, socket_of(c, 0, device="nk1"):
        judge.run("ip", "-n", c, "link", "delete", "nk1")
        assert "they hide older ones" in refused(older.fileno())
    with open("/dev/null") as file, socket.socket() as tcp:
        assert refused(file.fileno()) == "the descriptor is not one of a socket"
        assert refused(tcp.fileno()) == "the descriptor is a socket, but not of AF_XDP"
    with socket_of(c) as one, socket_of(c, 2) as two:
        assert "no descriptor" in refused()
        assert "more than one" in refused(one.fileno(), two.fileno())
        assert "more than one" in refused(*[one.fileno()] * 100)
        assert hand_over(xsk_socket, one.fileno()) == {"ok": True}
        assert hand_over(xsk_socket, one.fileno()) == {"ok": True}
    judge.wait_for(
        lambda: sorted(links("/proc/self/fd/*")) == before, "no descriptor is left in the agent"
    )


def test_who_holds_all_connections_hurts_only_himself(
    node: Node,
    conf: Conf,
    wire: Wire,
    host: Namespace,
    xsk_socket: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever users it has; and all the namespaces that it makes have one bound together."""
    monkeypatch.setattr(xsk, "SECONDS", judge.DEADLINE)
    c, other = leased(node, conf, wire.nic), leased(node, conf, wire.nic)
    prepare(host, wire.nic)

    def silent(user: int = 0, *, new: bool = False) -> socket.socket:
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        agent.settimeout(judge.DEADLINE)
        if new:
            assert libc.unshare(CLONE_NEWNET) == 0
            agent.close()
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        as_user(user, lambda: agent.connect(str(xsk_socket)))
        return agent

    with ExitStack() as stack:
        for number in range(3 * xsk.OF_ONE):
            stack.enter_context(inside(c, partial(silent, number)))
            stack.enter_context(inside(c, lambda: silent(1000, new=True)))
        with socket_of(c) as own, socket_of(other) as innocent:
            waiting = stack.enter_context(inside(c, silent))
            socket.send_fds(waiting, [b"x"], [own.fileno()])
            assert inside(other, lambda: hand_over(xsk_socket, innocent.fileno())) == {"ok": True}
            waiting.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.recv(1000)


def as_user(user: int, function: Callable[[], None]) -> None:
    """Call with the credentials of a user, in this thread alone (setresuid(2))."""
    libc.syscall(SYS_SETRESUID, -1, user, -1)
    function()
    libc.syscall(SYS_SETRESUID, -1, 0, -1)


def test_same_queue_number_of_another_namespace_is_refused(
    node: Node, conf: Conf, wire: Wire, host: Namespace, xsk_socket: Path
) -> None:
    """Two containers whose devices have the same index, leases from two NICs, one of them prepared."""
    c, other = leased(node, conf, wire.nic), leased(node, conf, node.nic())
    assert judge.link("eth0", c)["ifindex"] == judge.link("eth0", other)["ifindex"]
    prepare(host, wire.nic)
    with socket_of(other) as stranger, socket_of(c) as own:
        answer = hand_over(xsk_socket, stranger.fileno())
        assert (answer["ok"], "not leased" in answer["reason"]) == (False, True)
        assert hand_over(xsk_socket, own.fileno()) == {"ok": True}


def test_closing_the_socket_gives_the_queue_back_to_the_stack(
    node: Node, conf: Conf, wire: Wire, host: Namespace, xsk_socket: Path, start: Start
) -> None:
    """While it is open the stack sees nothing of the queue, afterwards everything."""
    c = leased(node, conf, wire.nic)
    prepare(host, wire.nic)
    with listening() as udp:
        client = start("c", c, 1, xsk_socket)
        assert client.line() == "receiving"
        wire.send("one", 7)
        assert client.line().endswith("one")
        client.process.kill()
        client.process.wait()
        wire.send("two", 7)
        assert udp.recv(100) == b"two"
        again = start("python", c, 1, xsk_socket)
        assert again.line() == "receiving"
        wire.send("three", 7)
        assert again.line().endswith("three")


def test_agent_that_is_killed_changes_nothing(
    node: Node, conf: Conf, wire: Wire, host: Namespace, folder: Path, start: Start
) -> None:
    """Who receives goes on; and the next agent finds program and map by their pins."""
    c = leased(node, conf, wire.nic)
    prepare(host, wire.nic)
    agents: list[subprocess.Popen[bytes]] = []

    def run_agent() -> None:
        command = [sys.executable, "-m", "cni_netkit.admin.main", "agent", "--socket"]
        agents.append(subprocess.Popen([*command, str(folder / "agent.sock")]))
        judge.wait_for(lambda: connects(folder / "xsk.sock"), "the agent takes sockets over")

    try:
        run_agent()
        one = start("c", c, 1, folder / "xsk.sock")
        assert one.line() == "receiving"
        agents[0].kill()
        agents[0].wait()
        wire.send("without-an-agent", 7)
        assert one.line().endswith("without-an-agent")
        run_agent()
        two = start("python", c, 2, folder / "xsk.sock")
        assert two.line() == "receiving"
        wire.send("to-the-first", 7)
        wire.send("to-the-second", 6)
        assert one.line().endswith("to-the-first")
        assert two.line().endswith("to-the-second")
    finally:
        for agent in agents:
            agent.send_signal(signal.SIGTERM)
            agent.wait()
    assert not (folder / "xsk.sock").is_symlink()
    assert not (folder / "xsk" / "xsk.sock").exists()


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        return agent.connect_ex(str(path)) == 0


def test_queue_of_an_application_that_was_killed_can_be_leased_again(
    node: Node, conf: Conf, wire: Wire, host: Namespace, xsk_socket: Path, start: Start
) -> None:
    """The kernel would keep it for a socket that is no more, if the device went at once."""
    prepare(host, wire.nic)
    configuration = conf(pairing="single", ipam=None, lease={"device": wire.nic, "queues": "7"})
    for _ in range(3):
        c = node.container()
        node.add(configuration, c)
        assert set(judge.leases(wire.nic)) == {7}
        client = start("c", c, 1, xsk_socket)
        assert client.line() == "receiving"
        client.process.kill()
        client.process.wait()
        assert node.call("DEL", configuration, c).ok
