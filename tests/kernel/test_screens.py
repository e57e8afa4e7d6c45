"""The tables of cni-netkit as they are seen: on terminals of 80 and of 140 columns."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

from tests.kernel import judge
from tests.kernel.conftest import Conf, Node

pytestmark = pytest.mark.once

COMMAND = [sys.executable, "-m", "cni_netkit.admin.main"]
NIC = "enp65s0f0np0"
CONTAINERS = {
    "4f5e6d7c8b9a0b1c2d3e4f50617283944f5e6d7c8b9a0b1c2d3e4f5061728394": "shop/till-0",
    "9c1d0e2f3a4b5c6d7e8f90a1b2c3d4e59c1d0e2f3a4b5c6d7e8f90a1b2c3d4e5": (
        "kube-system/coredns-5d78c9869d-7xkq2"
    ),
}
COMMANDS = (
    *("list", "list --wide", "leases", "doctor", "nic show"),
    f"nic prepare {NIC} --role io_uring --queues 3-7",
    *(f"lease add 9c1d0e2f3a4b --device {NIC} --count 2", "lease remove 9c1d0e2f3a4b"),
)


def screen(columns: int, words: str) -> list[str]:
    """The lines that a command writes to a terminal of so many columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 50, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    variables |= {"TERM": "xterm", "NO_COLOR": "1"}
    seen = bytearray()
    with subprocess.Popen(
        [*COMMAND, *words.split()], stdin=its, stdout=its, stderr=its, env=variables
    ) as process:
        os.close(its)
        # EIO where the last who had it open has gone.
        with suppress(OSError):
            while more := os.read(ours, 1 << 16):
                seen += more
        os.close(ours)
    assert process.returncode == 0, seen.decode()
    return plain(seen.decode().replace("\r\n", "\n"))


def plain(text: str) -> list[str]:
    """The lines of a text, without what makes them bold."""
    return text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()


def piped(words: str) -> list[str]:
    """The lines that a command writes to who reads them."""
    done = subprocess.run([*COMMAND, *words.split()], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def busy(node: Node, conf: Conf) -> None:
    """A node with names as they are in the field."""
    judge.run("ip", "link", "set", node.nic(up=False), "name", NIC, "up")
    judge.run("ip", "link", "set", node.nic(up=False), "name", "eth9")
    ranges = [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88:12::/64"}]]
    configuration = conf(ipam={"type": "host-local", "ranges": ranges}, lease={"device": NIC})
    for container, pod in CONTAINERS.items():
        namespace, _, name = pod.partition("/")
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"
        node.add(configuration, node.container(), cid=container, args=arguments)


@pytest.mark.parametrize("columns", [80, 140])
def test_every_table_fits(busy: None, columns: int) -> None:
    """No line is longer than the terminal; but a command to be copied stays whole."""
    for words in COMMANDS:
        lines = screen(columns, words)
        assert lines, words
        for line in lines:
            assert len(line) <= columns or line.startswith("    $ "), (words, line)


def test_list_on_80_columns(busy: None) -> None:
    """Everything that can be typed is there in one piece."""
    text = "\n".join(screen(80, "list"))
    for container, pod in CONTAINERS.items():
        assert container[:12] in text
        assert container[:13] not in text
        assert pod.partition("/")[0] in text
    for word in ("10.88.0.2", "10.88.0.3", "fd00:88:12::2", f"{NIC}:7", f"{NIC}:6", "complete"):
        assert word in text


def test_piped_everything_is_whole(busy: None) -> None:
    """A line for each attachment, and for each queue, however long."""
    _, *attachments = piped("list")
    _, *queues = piped("leases")
    for each, (container, pod) in enumerate(CONTAINERS.items()):
        (line,) = (line for line in attachments if container in line)
        assert pod in line
        (seat,) = (line for line in queues if pod in line)
        assert seat.startswith(f"{NIC}  {7 - each} ")


def test_what_is_empty_says_so(node: Node) -> None:
    """On a terminal and piped alike."""
    for words, said in (
        ("list", "there is no attachment on this node"),
        ("leases", "there is no NIC here"),
        ("nic show", "there is no NIC here"),
        ("doctor", "there is no NIC here"),
    ):
        for lines in (screen(80, words), piped(words)):
            assert any(line.startswith(said) for line in lines), words
