"""An agent in a process of its own, as on a node: it can be killed, and begin again."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kernel import judge
from tests.kernel.conftest import Answer, Node

COMMAND = [sys.executable, "-m", "cni_netkit.admin.main"]


@dataclass
class AgentProcess:
    """An agent as on a node, and launchers that call it."""

    launcher: Path
    folder: Path
    notices: socket.socket
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def socket(self) -> str:
        return str(self.folder / "agent.sock")

    def start(self) -> None:
        """Start it; when this returns it has swept and is ready."""
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "agent", "--socket", self.socket, *self.arguments],
                env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")},
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        assert self.notices.recv(100) == b"READY=1"

    def end(self, number: int) -> None:
        """End it by a signal."""
        self.process.send_signal(number)
        self.process.wait(judge.DEADLINE)

    def request(self, environment: dict[str, str], stdin: bytes) -> Answer:
        """What a runtime does."""
        done = subprocess.run(
            [self.launcher],
            input=stdin,
            env={**environment, "CNI_NETKIT_SOCKET": self.socket},
            stdout=subprocess.PIPE,
        )
        return Answer(done.returncode, json.loads(done.stdout) if done.stdout else None)


@pytest.fixture
def agent(node: Node, launcher: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that runs on the node, through which the node's requests go."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(judge.DEADLINE)
        made = AgentProcess(launcher, tmp_path, notices)
        made.start()
        node.request = made.request
        try:
            yield made
        finally:
            made.end(signal.SIGKILL)
