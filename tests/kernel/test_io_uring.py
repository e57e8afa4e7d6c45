"""The zero-copy receiver of examples/ in a container, as far as netdevsim goes.

That is not to the queue itself (docs/decisions/D-26.md): io_uring asks the NIC for its DMA device
first, and netdevsim has none (net/core/netdev_queues.c, netdev_queue_get_dma_dev()). Everything
around it is: the program, the refusals and what it makes of them, receiving by copy, giving buffers back.
"""

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node

EXAMPLE = Path(__file__).parents[2] / "examples" / "zcrx_receive.c"
LIBURING = os.environ.get("CNI_NETKIT_LIBURING")
PORT = 9000
DEFAULT, OFF, ON = 0, 1, 2
"""Header-data split, ETHTOOL_TCP_DATA_SPLIT_*."""
DATA = bytes(range(251)) * (20 << 20 >> 8)
"""In bytes more than the example has room for (16 MiB), so it must give buffers back."""

WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
WITHOUT_IPC_LOCK = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
IN_A_USER_NAMESPACE = ("unshare", "--user", "--map-root-user")

REFUSE = """
import ctypes, os, struct, sys
prctl = ctypes.CDLL(None).prctl
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in (
    (0x20, 0, 0, 0), (0x15, 0, 3, 427),   # number of the system call: io_uring_register
    (0x20, 0, 0, 24), (0x15, 0, 1, 32),   # its second argument: IORING_REGISTER_ZCRX_IFQ
    (0x06, 0, 0, 0x00050000 | int(sys.argv[1])),
    (0x06, 0, 0, 0x7fff0000),
)))
filter = struct.pack("=HxxxxxxQ", 6, ctypes.addressof(program))
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
"""A seccomp filter that answers the registration of a queue with an errno, as other NICs would."""

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not LIBURING,
        reason="no liburing: name one in CNI_NETKIT_LIBURING (tests/lab/fetch liburing)",
    ),
]


@pytest.fixture(scope="session")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, compiled as its head comment says, and with every warning an error."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed"
    program = tmp_path_factory.mktemp("examples") / "zcrx_receive"
    warnings = ("-Wall", "-Wextra", "-Werror")
    library = (f"-I{LIBURING}/include", f"-L{LIBURING}/lib", "-luring")
    subprocess.run(
        [compiler, "-O2", "-static", *warnings, "-o", program, EXAMPLE, *library], check=True
    )
    return str(program)


@dataclass
class Site:
    """A container with a leased queue, and another machine on the other end of the NIC's cable."""

    nic: str
    container: str
    other: str
    device: str
    """Which device of the container has the lease."""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program in the container, which must end by itself."""
        return subprocess.run(
            ["ip", "netns", "exec", self.container, *command],
            capture_output=True,
            text=True,
            timeout=judge.DEADLINE,
        )


@pytest.fixture(params=["pair", "single"])
def site(node: Node, conf: Conf, request: pytest.FixtureRequest) -> Site:
    """The lease is held by the pair (conf/20), or by a second device beside it (conf/21)."""
    nic, remote, other, c = node.nic(), node.nic(), node.container(), node.container()
    judge.run("ip", "link", "set", remote, "netns", other)
    judge.link_nics(nic, remote, other)
    judge.run("ip", "addr", "add", "192.0.2.1/24", "dev", nic)
    judge.run("ip", "addr", "add", "192.0.2.2/24", "dev", remote, netns=other)
    judge.run("ip", "link", "set", remote, "up", netns=other)
    judge.run("ip", "route", "add", "default", "via", "192.0.2.1", netns=other)
    judge.set_rings(nic, tcp_data_split=ON, hds_thresh=0)
    lease: JSON = {"lease": {"device": nic}}
    if request.param == "pair":
        node.add(conf(**lease), c)
        return Site(nic, c, other, "eth0")
    first = node.add(conf(), c)
    node.add(conf(pairing="single", ipam=None, ifName="zc0", prevResult=first, **lease), c)
    return Site(nic, c, other, "zc0")


def send(site: Site) -> None:
    """Send the data from the other machine, through the NIC and the host, and say that it is all."""
    with judge.socket_in(site.other) as connection:
        connection.connect(("10.1.0.2", PORT))
        connection.sendall(DATA)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the receiver ends the connection, too"


def receive_by_copy(site: Site, receiver: str) -> tuple[bytes, str]:
    """What the receiver hands on, and what it says, when the data is sent to it."""
    command = ["ip", "netns", "exec", site.container, receiver, "--copy", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"zcrx_receive: listening on port 9000\n"
        sender = threading.Thread(target=send, args=(site,))
        sender.start()
        try:
            received, said = process.communicate(timeout=3 * judge.DEADLINE)
        finally:
            process.kill()
            sender.join()
    assert process.returncode == 0, said
    return received, said.decode()


def test_registering_the_leased_queue_ends_at_netdevsims_dma(site: Site, receiver: str) -> None:
    """EOPNOTSUPP, and the example names what can be meant; the lease and the NIC are as before."""
    before = judge.leases(site.nic)
    assert [queue for _, queue in before.values()] == [1]
    done = site.run(receiver, site.device, "1", str(PORT))
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"zcrx_receive: register queue 1 of {site.device}: EOPNOTSUPP: no NIC is behind the queue: "
    )
    assert "that NIC does no DMA (netdevsim)" in done.stderr
    assert judge.leases(site.nic) == before


def test_the_kernel_says_so_where_it_has_words(site: Site) -> None:
    """The other memory provider, dma-buf, goes by the same check, and comes with a text."""
    for queue in judge.leases(site.nic).keys() | {1}:
        assert judge.bind_dmabuf(site.nic, queue) == (
            errno.EOPNOTSUPP,
            "Device doesn't support DMA",
        ), queue


def test_refusals_before_the_nics_settings_are_looked_at(site: Site, receiver: str) -> None:
    """A queue that is not leased, or does not exist, and a NIC not prepared: all are EOPNOTSUPP."""
    for device, queue in (("eth0", "0"), (site.device, "0"), (site.device, "2"), ("lo", "0")):
        done = site.run(receiver, device, queue, str(PORT))
        assert f"register queue {queue} of {device}: EOPNOTSUPP: no NIC is behind" in done.stderr
    for split, threshold in ((OFF, 0), (DEFAULT, 0), (ON, 1)):
        judge.set_rings(site.nic, tcp_data_split=split, hds_thresh=threshold)
        done = site.run(receiver, site.device, "1", str(PORT))
        assert f"register queue 1 of {site.device}: EOPNOTSUPP: " in done.stderr, (split, threshold)


def test_the_nic_itself_on_the_host(site: Site, receiver: str) -> None:
    """No way round the lease: the NIC's queue, leased or not, is refused as well."""
    for queue in ("7", "1"):
        command = [receiver, site.nic, queue, str(PORT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=judge.DEADLINE)
        assert f"register queue {queue} of {site.nic}: EOPNOTSUPP: " in done.stderr


@pytest.mark.parametrize(
    "confined", [WITHOUT_NET_ADMIN, IN_A_USER_NAMESPACE], ids=["capability", "user"]
)
def test_without_net_admin_in_the_initial_user_namespace(
    site: Site, receiver: str, confined: tuple[str, ...]
) -> None:
    """EPERM, with a queue and without."""
    for what in ((site.device, "1"), ("--copy",)):
        done = site.run(*confined, receiver, *what, str(PORT))
        assert done.returncode == 1
        assert "EPERM: CAP_NET_ADMIN is needed, in the initial user namespace" in done.stderr


def test_more_memory_than_may_be_locked(site: Site, receiver: str) -> None:
    """ENOMEM for root, too, without CAP_IPC_LOCK."""
    limited = ("prlimit", "--memlock=65536", *WITHOUT_IPC_LOCK)
    done = site.run(*limited, receiver, "--copy", str(PORT))
    assert done.returncode == 1
    assert "ENOMEM: no memory, or without CAP_IPC_LOCK more than RLIMIT_MEMLOCK" in done.stderr


def test_no_such_device(site: Site, receiver: str) -> None:
    """The NIC's name means nothing in the container."""
    done = site.run(receiver, "nosuch0", "1", str(PORT))
    assert "register queue 1 of nosuch0: ENODEV: this network namespace has no" in done.stderr


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EINVAL, "EINVAL: header-data split is not set on the NIC"),
        (errno.EEXIST, "EEXIST: the queue has other memory already"),
        (errno.EBUSY, "EBUSY: an AF_XDP socket has the queue"),
        (errno.ENODATA, "ENODATA: the NIC's driver does not take memory from others"),
        (errno.ERANGE, "ERANGE: the device has no queue with this number"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_what_only_other_nics_answer(receiver: str, number: int, text: str) -> None:
    """Answered by a filter in the kernel's place: the example's text for each."""
    command = [sys.executable, "-ISc", REFUSE, str(number), receiver, "lo", "1", str(PORT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=judge.DEADLINE)
    assert done.returncode == 1
    assert done.stderr.startswith(f"zcrx_receive: register queue 1 of lo: {text}")


def test_data_arrives_by_copy(site: Site, receiver: str) -> None:
    """Without a queue: all of it, in order, and the kernel's counters tell that it was copied."""
    received, said = receive_by_copy(site, receiver)
    assert received == DATA
    assert re.search(rf"received {len(DATA)} bytes in \d+ completions, 0 times short of", said), (
        said
    )
    counted = re.search(r"counted (\d+) of them as copied, in [1-9]\d* pieces", said)
    # Where TCP gets short of memory it moves packets together itself, which is not counted.
    assert counted, said
    assert len(DATA) / 2 < int(counted[1]) <= len(DATA)
    assert said.endswith("all were copied, as no queue is registered\n")


def test_what_lies_beside_headers_is_copied_and_not_counted(site: Site, receiver: str) -> None:
    """Without header-data split the kernel counts nothing: it proves no zero-copy by itself."""
    judge.set_rings(site.nic, tcp_data_split=OFF, hds_thresh=0)
    received, said = receive_by_copy(site, receiver)
    assert received == DATA
    assert "the kernel counted 0 of them as copied, in 0 pieces" in said
