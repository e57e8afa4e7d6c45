"""Who may call the agent calls too often, says nothing, or only begins: honest requests go on."""

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from cni_netkit.agent.callers import OF_ONE_PROCESS
from tests.endurance.agent import AgentProcess
from tests.kernel.conftest import Conf, Node, links

CALLERS, OF_EACH = 8, 50
BEGUN = struct.pack("!4sHHIII", b"NKRQ", 1, 0, 0, 8 << 20, 16 << 20)
"""The head of the largest request that there can be (cni_netkit/agent/wire.py)."""

CALL = """
import contextlib, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
path, number, sent = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
kept = []
for _ in range(number):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].connect(path)
    with contextlib.suppress(BrokenPipeError):  # refused already
        if sent: kept[-1].sendall(sent)
print("called", flush=True)
sys.stdin.read()
"""


@contextmanager
def callers(path: str, number: int, sent: bytes) -> Iterator[None]:
    """Some processes, each with so many connections on which it has sent something, or nothing."""
    command = [sys.executable, "-c", CALL, path, str(number), sent.hex()]
    with ExitStack() as stack:
        processes = []
        for _ in range(CALLERS):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"called\n"
        yield


@pytest.mark.parametrize("sent", [b"", BEGUN], ids=["silent", "begun"])
def test_honest_requests_go_on(
    node: Node, agent: AgentProcess, conf: Conf, sent: bytes, figures: list[str]
) -> None:
    """While 400 connections of others are open; the time it takes is a figure."""
    c = node.container()
    node.add(conf(), c)
    assert node.call("DEL", conf(), c).ok

    def once() -> float:
        began = time.monotonic()
        node.add(conf(), c)
        assert node.call("DEL", conf(), c).ok
        return time.monotonic() - began

    alone = once()
    with callers(agent.socket, OF_EACH, sent):
        beside = once()
    what = "have begun with a request of 24 MiB" if sent else "say nothing"
    figures.append(
        f"ADD and DEL while {CALLERS * OF_EACH} connections {what}: {beside:.2f} s, alone {alone:.2f} s"
    )


def test_one_process_is_refused_beyond_its_bound(
    node: Node, agent: AgentProcess, conf: Conf
) -> None:
    """Eight with 175 each: the agent has open 64 of each, and the others are closed."""

    def connections() -> int:
        found = links(f"/proc/{agent.process.pid}/fd/*")
        return sum(each.startswith("socket:") for each in found)

    before = connections()
    with callers(agent.socket, 175, b""):
        c = node.container()
        node.add(conf(), c)
        assert node.call("DEL", conf(), c).ok
        # Fewer where the first have been silent for too long by now.
        assert 0 < connections() - before <= CALLERS * OF_ONE_PROCESS
