"""What goes over the cable: ping, TCP, and the programs of examples/ on their leased queue."""

import os
import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.hardware.machine import Machine
from tests.hardware.runner import Failed, NotRun
from tests.kernel import judge

EXAMPLES = Path(__file__).parents[2] / "examples"
SENDER = "sender"
# Of the networks that RFC 2544 sets apart for measuring.
NIC_ADDRESS, SENDER_ADDRESS = "198.18.217.1", "198.18.217.2"
CONTAINER_ADDRESS, GATEWAY = "198.18.218.2", "198.18.218.1"
CONTAINER_ADDRESSES = {
    "addresses": [{"address": f"{CONTAINER_ADDRESS}/24", "gateway": GATEWAY}],
    "routes": [{"dst": "0.0.0.0/0"}],
}
PORT = 9000
BYTES, FRAMES = 1 << 24, 16


def ping(machine: Machine) -> str:
    """From the sender to the container; a link may take a while to let it through."""
    command = ("ping", "-c", "3", "-i", "0.2", "-W", "2", CONTAINER_ADDRESS)

    def answered() -> bool:
        machine.run(*command, netns=SENDER, check=False)
        return bool(machine.commands[-1]["status"] == 0)

    judge.wait_for(answered, f"an answer from {CONTAINER_ADDRESS}; does a firewall drop it?")
    return "".join(re.findall(r"\d+ packets.*", machine.commands[-1]["stdout"]))


def tcp() -> str:
    """A line there and one back."""
    if judge.connects(SENDER, CONTAINER_ADDRESS, PORT, "container") != SENDER_ADDRESS:
        raise Failed(f"expected a connection from {SENDER_ADDRESS} to {CONTAINER_ADDRESS}")
    return "a line there and back"


def compiled(machine: Machine, name: str, *libraries: str) -> str:
    """A program of examples/, compiled. Raises `NotRun` where that cannot be."""
    source, program = EXAMPLES / f"{name}.c", f"{os.environ['TMPDIR']}/{name}"
    if not source.exists():
        raise NotRun(f"there is no {source}")
    folder = os.environ.get("CNI_NETKIT_LIBURING")
    where = ["-static", f"-I{folder}/include", f"-L{folder}/lib"] if folder else []
    try:
        machine.run("cc", "-O2", "-o", program, str(source), *where, *libraries)
    except (Failed, FileNotFoundError) as error:
        raise NotRun(f"{name}.c cannot be compiled here: {str(error)[:300]}") from None
    return program


def zero_copy_tcp(machine: Machine, container: str) -> str:
    """The receiver of examples/ takes a connection on queue 1 of eth0; what comes is what was sent."""
    program = compiled(machine, "zcrx_receive", "-luring")
    data = secrets.token_bytes(1 << 16) * (BYTES >> 16)
    command = ["ip", "netns", "exec", container, program, "eth0", "1", str(PORT)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as receiver:
        try:
            received, said = _send_to(receiver, data)
        finally:
            receiver.kill()
    machine.commands.append(
        {"command": command, "status": receiver.returncode, "stdout": len(received), "stderr": said}
    )
    if receiver.returncode or received != data:
        raise Failed(f"expected {len(data)} bytes as sent, found {len(received)}: {said}")
    copied = re.search(r"counted (\d+) of them as copied", said)
    if copied and int(copied[1]) * 2 > len(data):
        raise Failed(f"expected most of it not to be copied, found: {said}")
    return said


def _send_to(receiver: "subprocess.Popen[bytes]", data: bytes) -> tuple[bytes, str]:
    """Send once the receiver listens; what it received, and what it said."""
    assert receiver.stderr is not None
    first = receiver.stderr.readline()
    if b"listening" not in first:
        said = first + receiver.communicate()[1]
        return b"", said.decode().strip()
    with judge.socket_in(SENDER) as connection:
        connection.connect((CONTAINER_ADDRESS, PORT))

        def send() -> None:
            with connection:
                connection.sendall(data)

        # In a thread of its own, for what comes must be read meanwhile.
        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        received, said = receiver.communicate()
        sending.join()
    return received, said.decode().strip()


def frames(machine: Machine, container: str, *, copies: bool, sent: bool) -> str:
    """The receiver of examples/ hands its socket to the agent, and gets what the sender sends.

    Not to copy is asked of the kernel when the socket is bound: it binds so, or refuses.
    """
    program = EXAMPLES / "xsk_receive.py"
    if not program.exists():
        raise NotRun(f"there is no {program}")
    mark = secrets.token_hex(8)
    options = ["--copy"] if copies else []
    command = [
        "ip",
        "netns",
        "exec",
        container,
        sys.executable,
        str(program),
        *options,
        "eth0",
        "1",
    ]
    with open(f"{os.environ['TMPDIR']}/{mark}", "w+") as log:
        receiver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

        def said() -> str:
            return Path(log.name).read_text()

        def ready() -> bool:
            if receiver.poll() is not None:
                raise Failed(f"expected a socket on queue 1, found: {said().strip()}")
            return "receiving" in said()

        def arrived() -> bool:
            # Each time from another port.
            to = f"/dev/udp/{CONTAINER_ADDRESS}/{PORT}"
            machine.run("bash", "-c", f"echo {mark} >{to}", netns=SENDER)
            return said().count(mark) >= FRAMES

        try:
            judge.wait_for(ready, "the receiver is ready")
            if sent:
                judge.wait_for(arrived, f"{FRAMES} frames arrive")
        finally:
            receiver.kill()
            receiver.wait()
            machine.commands.append({"command": command, "stdout": said()})
    how = "copying" if copies else "without copying"
    return f"{how}; the agent took the socket" + (f"; {FRAMES} frames" if sent else "")


class Agent:
    """The agent of this run: /run is the run's own, so it is where it always is."""

    def __init__(self, command: str) -> None:
        """Start it. It ends with this process, even if that is killed."""
        self._log = open(f"{os.environ['TMPDIR']}/agent.log", "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", command, "agent"],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait_until_ready(self) -> str:
        """It takes sockets."""
        judge.wait_for(self._ready, "the agent listens on /run/cni-netkit/xsk.sock")
        return f"process {self._process.pid}"

    def stop(self, commands: list[dict[str, Any]]) -> str:
        """Terminate it, and keep its log."""
        self._process.terminate()
        status = self._process.wait()
        commands.append({"command": self._process.args, "status": status, "stderr": self._said()})
        if status:
            raise Failed(f"expected exit status 0, found {status}")
        return "stopped"

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise Failed(f"the agent ended: {self._said()}")
        return Path("/run/cni-netkit/xsk.sock").exists()

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().strip()
