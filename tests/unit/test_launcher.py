"""The launcher, compiled with the sanitizers and run as a runtime would, against a peer in here.

What the launcher does to its peer does not depend on time: it connects, reads standard input to
its end, sends, receives. So the test plays the peer in line, after the launcher was started.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import __version__
from cni_netkit.agent import wire
from cni_netkit.agent.wire import WireError, WireRequest
from cni_netkit.kernel.uapi import SIOCGSKNS

SOURCE = Path(__file__).parents[2] / "cni_netkit" / "agent" / "launcher" / "netkit.c"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
DEADLINES = ("CONNECT_MS", "ABSENT_MS", "INPUT_MS", "SEND_MS", "RECEIVE_MS")
PATIENT = [f"-D{each}=60000" for each in DEADLINES]
SHORT = [f"-D{each}=300" for each in DEADLINES]
CONFIG = b'{"cniVersion": "1.0.0", "name": "net", "type": "netkit"}'
VERBS = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


def build(directory: Path, *flags: str, compiler: str = "gcc") -> Path:
    """Compile; the name is that of the plugin."""
    directory.mkdir(exist_ok=True)
    executable = directory / "netkit"
    compiled = subprocess.run(
        [compiler, *WARNINGS, *flags, "-o", executable, SOURCE], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr
    return executable


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A launcher that no slow machine can make give up."""
    return build(tmp_path_factory.mktemp("patient"), *SANITIZED, *PATIENT)


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A launcher whose deadlines pass within the time of a test."""
    return build(tmp_path_factory.mktemp("hasty"), *SANITIZED, *SHORT)


def soon() -> float:
    return time.monotonic() + 30


@dataclass
class Run:
    """One call of the launcher, and the socket of the peer it shall find."""

    directory: Path
    listener: socket.socket
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> str:
        return str(self.directory / "agent.sock")

    def listen(self, backlog: int = 5) -> None:
        self.listener.bind(self.path)
        self.listener.listen(backlog)

    def start(
        self, executable: Path, verb: str = "ADD", stdin: bytes = CONFIG, **more: str
    ) -> None:
        """Start the launcher; its standard input is a file, and so never waits for us."""
        self.environment = {"CNI_COMMAND": verb, "CNI_NETKIT_SOCKET": self.path, **more}
        written = self.directory / "stdin"
        written.write_bytes(stdin)
        with written.open("rb") as opened:
            self.process = subprocess.Popen(
                [executable],
                env=self.environment,
                stdin=opened,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(30)
        return connection

    def received(self, connection: socket.socket) -> WireRequest:
        request = wire.receive_request(connection, soon())
        for descriptor in request.descriptors:
            os.close(descriptor)
        return request

    def ended(self) -> tuple[int, bytes]:
        """Exit status and standard output; on standard error a sanitizer would complain."""
        assert self.process is not None
        output, complaints = self.process.communicate(timeout=30)
        assert complaints == b""
        return self.process.returncode, output

    def error(self) -> dict[str, Any]:
        """The error object that the launcher ended with."""
        status, output = self.ended()
        assert status == 1
        error: dict[str, Any] = json.loads(output)
        assert set(error) == {"cniVersion", "code", "msg", "details"}
        return error


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(30)
        one = Run(tmp_path, listener)
        yield one
        if one.process is not None:
            one.process.kill()
            with one.process:
                pass


def unavailable(verb: str) -> int:
    return 50 if verb == "STATUS" else 11


# What goes well.


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("status", "output"), [(0, b'{"cniVersion": "1.0.0"}\n'), (1, b"{}"), (0, b"")]
)
def test_agent_is_asked_and_its_answer_printed(
    run: Run, patient: Path, verb: str, status: int, output: bytes
) -> None:
    run.listen()
    run.start(patient, verb, CNI_CONTAINERID="c", LANG="C", EMPTY="", ODD="\udcff=\n")
    with run.accept() as connection:
        assert run.received(connection) == WireRequest(run.environment, CONFIG)
        wire.send_answer(connection, status, output, soon())
    assert run.ended() == (status, output)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 16 << 20])
def test_input_arrives_whatever_its_size(run: Run, patient: Path, size: int) -> None:
    stdin = os.urandom(size)
    run.listen()
    run.start(patient, stdin=stdin)
    with run.accept() as connection:
        assert run.received(connection).stdin == stdin
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")


def test_big_environment_arrives(run: Run, patient: Path) -> None:
    run.listen()
    run.start(patient, "ADD", CONFIG, **{f"VARIABLE_{each}": "x" * 1000 for each in range(500)})
    with run.accept() as connection:
        assert run.received(connection).environment == run.environment
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")


def test_input_that_comes_in_pieces_is_read_to_its_end(run: Run, patient: Path) -> None:
    run.listen()
    with subprocess.Popen(
        [patient],
        env={"CNI_COMMAND": "ADD", "CNI_NETKIT_SOCKET": run.path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"name":')
        process.stdin.flush()
        with run.accept() as connection:
            process.stdin.write(b'"net"}')
            process.stdin.close()
            assert run.received(connection).stdin == b'{"name":"net"}'
            wire.send_answer(connection, 0, b"", soon())
        assert process.wait(30) == 0


def test_big_answer_is_printed_whole(run: Run, patient: Path) -> None:
    output = os.urandom(16 << 20)
    run.listen()
    run.start(patient)
    with run.accept() as connection:
        run.received(connection)
        wire.send_answer(connection, 0, output, soon())
        assert run.ended() == (0, output)


def test_answer_is_printed_whole_where_writing_does_not_wait(run: Run, patient: Path) -> None:
    output = os.urandom(1 << 20)
    run.listen()
    ours, theirs = os.pipe()
    with open(ours, "rb") as reader:
        os.set_blocking(theirs, False)
        with subprocess.Popen(
            [patient],
            env={"CNI_COMMAND": "ADD", "CNI_NETKIT_SOCKET": run.path},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
        ) as process:
            os.close(theirs)
            with run.accept() as connection:
                run.received(connection)
                wire.send_answer(connection, 0, output, soon())
            assert reader.read() == output
            assert process.wait(30) == 0


def test_answer_may_come_in_pieces(run: Run, patient: Path) -> None:
    run.listen()
    run.start(patient)
    with run.accept() as connection:
        run.received(connection)
        for each in b"NKAN\0\1\0\1\0\0\0\3{ }":
            connection.sendall(bytes([each]))
    assert run.ended() == (1, b"{ }")


def test_namespace_arrives_as_a_descriptor(run: Run, patient: Path) -> None:
    run.listen()
    run.start(patient, CNI_NETNS="/proc/self/ns/net")
    with run.accept() as connection:
        request = wire.receive_request(connection, soon())
        assert request.netns is not None
        try:
            found = os.fstat(request.netns)
            assert os.path.samestat(found, os.stat("/proc/self/ns/net"))
            assert stat.S_ISREG(found.st_mode)
        finally:
            for descriptor in request.descriptors:
                os.close(descriptor)
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace needs root")
def test_route_socket_of_the_namespace_arrives_with_it(run: Run, patient: Path) -> None:
    """Of that namespace, not of the launcher's: SIOCGSKNS tells."""
    here = os.stat("/proc/self/ns/net")
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    path = f"/proc/{holder.pid}/ns/net"
    try:
        until = soon()
        while os.path.samestat(os.stat(path), here):
            assert time.monotonic() < until
            os.sched_yield()
        run.listen()
        run.start(patient, CNI_NETNS=path)
        with run.accept() as connection:
            request = wire.receive_request(connection, soon())
            assert request.route is not None
            assert not os.get_inheritable(request.route)
            with socket.socket(fileno=request.route) as route:
                assert (route.family, route.proto) == (socket.AF_NETLINK, socket.NETLINK_ROUTE)
                lives_in = fcntl.ioctl(route, SIOCGSKNS)
                assert os.path.samestat(os.fstat(lives_in), os.stat(path))
            for descriptor in (lives_in, request.netns):
                assert descriptor is not None
                os.close(descriptor)
            wire.send_answer(connection, 0, b"", soon())
        assert run.ended() == (0, b"")
    finally:
        holder.communicate()


def test_right_one_of_two_files_arrives(run: Run, patient: Path) -> None:
    right = run.directory / "right"
    right.touch()
    run.directory.joinpath("wrong").touch()
    run.listen()
    run.start(patient, CNI_NETNS=str(right))
    with run.accept() as connection:
        request = wire.receive_request(connection, soon())
        assert request.netns is not None
        try:
            assert os.path.samestat(os.fstat(request.netns), right.stat())
        finally:
            os.close(request.netns)
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")


def test_namespace_arrives_once_however_many_pieces_the_request_has(
    run: Run, patient: Path
) -> None:
    run.listen()
    run.start(patient, stdin=b" " * (4 << 20), CNI_NETNS="/proc/self/ns/net")
    received, descriptors = 0, []
    with run.accept() as connection:
        while received < 4 << 20:
            data, more, _, _ = socket.recv_fds(connection, 1 << 16, 4)
            received += len(data)
            descriptors += more
        for each in descriptors:
            os.close(each)
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")
    assert len(descriptors) == (1 if os.geteuid() else 2)


@pytest.mark.parametrize(
    ("netns", "error"), [("", 0), ("/nowhere/at/all", 2), ("/etc/hostname/x", 20), ("dummy", 2)]
)
def test_namespace_that_cannot_be_opened_is_left_to_the_agent(
    run: Run, patient: Path, netns: str, error: int
) -> None:
    run.listen()
    run.start(patient, "DEL", CNI_NETNS=netns)
    with run.accept() as connection:
        request = run.received(connection)
        assert (request.netns, request.netns_error) == (None, error)
        assert request.environment["CNI_NETNS"] == netns
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")


def test_named_pipe_in_place_of_a_namespace_does_not_hold_it_up(run: Run, patient: Path) -> None:
    os.mkfifo(run.directory / "pipe")
    run.listen()
    run.start(patient, CNI_NETNS=str(run.directory / "pipe"))
    with run.accept() as connection:
        run.received(connection)
        wire.send_answer(connection, 0, b"", soon())
    assert run.ended() == (0, b"")


def test_refusal_that_comes_before_the_request_was_read_is_printed(run: Run, patient: Path) -> None:
    run.listen()
    run.start(patient, stdin=b" " * (1 << 20))
    with run.accept() as connection:
        wire.send_answer(connection, 1, b'{"code": 11}', soon())
    assert run.ended() == (1, b'{"code": 11}')


def test_closed_standard_streams_are_not_mistaken(run: Run, patient: Path) -> None:
    """Without standard input and output the socket must not become either."""
    run.listen()
    run.environment = {"CNI_COMMAND": "ADD", "CNI_NETKIT_SOCKET": run.path}
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec '{patient}' <&- >&-"], env=run.environment
    ) as process:
        with run.accept() as connection:
            assert run.received(connection).stdin == b""
            wire.send_answer(connection, 0, b"{}", soon())
            assert connection.recv(1) == b""
        assert process.wait(30) == 0


def test_reader_of_the_result_that_went_away_is_a_failure(run: Run, patient: Path) -> None:
    run.listen()
    run.start(patient)
    assert run.process is not None
    assert run.process.stdout is not None
    run.process.stdout.close()
    with run.accept() as connection:
        run.received(connection)
        wire.send_answer(connection, 0, b"{}", soon())
        assert run.process.wait(30) == 1


# The agent is there, and something is wrong with it.

NOTHING = b""
HALF_A_HEADER = b"NKAN\0\1\0"
HEADER_ONLY = b"NKAN\0\1\0\0\0\0\0\5"
HALF_AN_ANSWER = b"NKAN\0\1\0\0\0\0\0\5{}"
BROKEN_ANSWERS = [
    pytest.param(NOTHING, "hung up after 0 bytes", id="nothing"),
    pytest.param(HALF_A_HEADER, "hung up after 7 bytes", id="half a header"),
    pytest.param(HEADER_ONLY, "hung up after 12 bytes", id="header only"),
    pytest.param(HALF_AN_ANSWER, "hung up after 14 bytes", id="half an answer"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else than NKAN", id="garbage"),
    pytest.param(b"\0" * 4096, "something else than NKAN", id="zeros"),
    pytest.param(b"NKAN\0\2" + b"\0" * 6, "speaks version 2 of the protocol", id="other version"),
    pytest.param(b"NKAN\0\1\1\0\0\0\0\0", "announced exit status 256", id="odd status"),
    pytest.param(b"NKAN\0\1\0\0\1\0\0\1", "and 16777217 bytes", id="too much announced"),
    pytest.param(b"NKAN\0\1\0\0\xff\xff\xff\xff", "4294967295 bytes", id="all that is possible"),
    pytest.param(b"NKAN\0\1\0\0\0\0\0\2{}\n", "more than the 14 bytes", id="too much sent"),
    pytest.param(b"NKAN\0\1\0\0\0\0\0\0" + b"x" * 8192, "more than the 12 bytes", id="more"),
]


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
@pytest.mark.parametrize(("answer", "text"), BROKEN_ANSWERS)
def test_broken_answer_is_an_error_and_nothing_of_it_is_printed(
    run: Run, patient: Path, verb: str, answer: bytes, text: str
) -> None:
    run.listen()
    run.start(patient, verb)
    with run.accept() as connection:
        run.received(connection)
        connection.sendall(answer)
    error = run.error()
    assert error["code"] == unavailable(verb)
    assert error["cniVersion"] == "1.0.0"
    assert error["msg"].startswith(f"{verb}: the agent at {run.path} ")
    assert text in error["msg"]


@pytest.mark.parametrize("verb", VERBS)
def test_agent_that_hangs_up_at_once_is_an_error(run: Run, patient: Path, verb: str) -> None:
    run.listen()
    run.start(patient, verb, stdin=b" " * (1 << 20) + CONFIG)
    run.accept().close()
    error = run.error()
    assert (error["code"], error["cniVersion"]) == (unavailable(verb), "1.0.0")
    assert "after 0 bytes of its answer" in error["msg"]
    assert "DEL undoes" in error["details"]


def test_request_is_never_sent_again(run: Run, patient: Path) -> None:
    """Neither over a second connection nor by the Python entry point."""
    fall_back(patient, run.directory)
    run.listen()
    run.start(run.directory / "netkit")
    with run.accept() as connection:
        run.received(connection)
    assert run.error()["code"] == 11
    run.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        run.listener.accept()
    assert not run.directory.joinpath("seen").exists()


def test_agent_that_resets_the_connection_is_an_error(run: Run, patient: Path) -> None:
    run.listen()
    run.start(patient)
    with run.accept() as connection:
        assert connection.recv(1) == b"N"
    assert "after 0 bytes of its answer" in run.error()["msg"]


@pytest.mark.parametrize("answer", [NOTHING, HALF_A_HEADER, HEADER_ONLY, HALF_AN_ANSWER])
@pytest.mark.parametrize("verb", ["DEL", "STATUS"])
def test_agent_that_falls_silent_is_waited_for_until_the_deadline(
    run: Run, hasty: Path, answer: bytes, verb: str
) -> None:
    run.listen()
    run.start(hasty, verb)
    with run.accept() as connection:
        run.received(connection)
        with suppress(BrokenPipeError):  # on a machine so slow that the deadline is over
            connection.sendall(answer)
        error = run.error()
    assert error["code"] == unavailable(verb)
    assert "did not answer within 300 ms" in error["msg"]


def test_agent_that_trickles_gains_no_time(run: Run, hasty: Path) -> None:
    run.listen()
    run.start(hasty)
    until = soon()
    with run.accept() as connection, suppress(BrokenPipeError):
        run.received(connection)
        connection.sendall(b"NKAN\0\1\0\0\0\1\0\0")
        # Readable means that the launcher has hung up.
        while not select.select([connection], [], [], 0.05)[0]:
            assert time.monotonic() < until
            connection.sendall(b" ")
    assert "did not answer within 300 ms" in run.error()["msg"]


def test_agent_that_does_not_read_is_waited_for_until_the_deadline(run: Run, hasty: Path) -> None:
    run.listen()
    run.start(hasty, stdin=b" " * (4 << 20))
    with run.accept():
        error = run.error()
    assert error["code"] == 11
    assert "did not take the request within 300 ms" in error["msg"]
    assert error["details"].startswith("nothing was done")


def test_agent_that_does_not_accept_is_waited_for_until_the_deadline(run: Run, hasty: Path) -> None:
    run.listen(backlog=0)
    fall_back(hasty, run.directory)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(run.path)
        run.start(run.directory / "netkit", "STATUS")
        error = run.error()
    assert error["code"] == 50
    assert "did not accept the connection within 300 ms" in error["msg"]
    assert not run.directory.joinpath("seen").exists()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_socket_of_another_kind_is_an_error(
    run: Run, patient: Path, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(run.path)
        run.start(patient)
        error = run.error()
    assert error["code"] == 11
    assert "Protocol wrong type for socket" in error["msg"]


def test_name_of_a_socket_may_not_be_longer_than_possible(run: Run, patient: Path) -> None:
    run.start(patient, CNI_NETKIT_SOCKET="/" + "x" * 107)
    error = run.error()
    assert (error["code"], error["cniVersion"]) == (4, "1.1.0")
    assert "CNI_NETKIT_SOCKET is longer than the 107 bytes" in error["msg"]


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_too_much_input_is_refused(run: Run, patient: Path, verb: str) -> None:
    run.listen()
    run.start(patient, verb, stdin=CONFIG + b" " * (16 << 20))
    with run.accept() as connection:
        error = run.error()
        assert (error["code"], error["cniVersion"]) == (5, "1.0.0")
        assert "more than 16777216 bytes on standard input" in error["msg"]
        with pytest.raises(WireError, match="hung up after 0"):
            wire.receive_request(connection, soon())


def test_input_that_does_not_end_is_waited_for_until_the_deadline(run: Run, hasty: Path) -> None:
    run.listen()
    ours, theirs = os.pipe()
    try:
        ended = subprocess.run(
            [hasty],
            env={"CNI_COMMAND": "ADD", "CNI_NETKIT_SOCKET": run.path},
            stdin=ours,
            capture_output=True,
            timeout=30,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == 1
    error = json.loads(ended.stdout)
    assert error["code"] == 5
    assert "standard input did not end within 300 ms" in error["msg"]


def test_input_that_cannot_be_read_is_an_error(run: Run, patient: Path) -> None:
    run.listen()
    directory = os.open(run.directory, os.O_RDONLY)
    try:
        ended = subprocess.run(
            [patient],
            env={"CNI_COMMAND": "ADD", "CNI_NETKIT_SOCKET": run.path},
            stdin=directory,
            capture_output=True,
            timeout=30,
        )
    finally:
        os.close(directory)
    assert json.loads(ended.stdout)["code"] == 5
    assert "Is a directory" in json.loads(ended.stdout)["msg"]


# No agent.

SCRIPT = f"""#!{sys.executable} -IS
import json, os, signal, sys
seen = {{
    "environment": dict(os.environ),
    "stdin": sys.stdin.read(),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "pipe": open("/proc/self/status").read().split("SigIgn:")[1].split()[0],
}}
with open(os.path.join(os.path.dirname(sys.argv[0]), "seen"), "w") as file:
    json.dump(seen, file)
print("the answer of Python")
sys.exit(3)
"""


def fall_back(executable: Path, directory: Path) -> None:
    """Put the launcher into a directory of its own, and beside it what stands for our Python."""
    shutil.copy(executable, directory / "netkit")
    script = directory / "netkit-python"
    script.write_text(SCRIPT)
    script.chmod(0o755)


def nothing(run: Run) -> None:
    """Nothing lies there."""


def dead(run: Run) -> None:
    """An agent that died left its socket."""
    run.listener.bind(run.path)


def plain_file(run: Run) -> None:
    """It is no socket at all."""
    Path(run.path).touch()


@pytest.mark.parametrize("arrange", [nothing, dead, plain_file])
def test_without_an_agent_python_takes_its_place(run: Run, patient: Path, arrange: Any) -> None:
    arrange(run)
    fall_back(patient, run.directory)
    stdin = "{" + "x" * (1 << 20)
    run.start(run.directory / "netkit", stdin=stdin.encode(), CNI_ARGS="a=b", EMPTY="")
    assert run.ended() == (3, b"the answer of Python\n")
    seen = json.loads(run.directory.joinpath("seen").read_text())
    # What an interpreter adds to its own environment in the C locale is not of our making.
    assert {name: seen["environment"].get(name) for name in run.environment} == run.environment
    assert set(seen["environment"]) - set(run.environment) <= {"LC_CTYPE"}
    assert seen["stdin"] == stdin
    assert seen["descriptors"] == ["0", "1", "2", "3"], "3 is the listing itself"


def test_python_is_looked_for_beside_the_real_file(run: Run, patient: Path) -> None:
    real, linked = run.directory / "real", run.directory / "linked"
    real.mkdir()
    linked.mkdir()
    fall_back(patient, real)
    linked.joinpath("netkit").symlink_to(real / "netkit")
    run.start(linked / "netkit")
    assert run.ended() == (3, b"the answer of Python\n")


def test_python_inherits_no_ignored_signal(run: Run, patient: Path, tmp_path: Path) -> None:
    shutil.copy(patient, tmp_path / "netkit")
    script = tmp_path / "netkit-python"
    script.write_text("#!/bin/sh\nexec grep SigIgn: /proc/self/status\n")
    script.chmod(0o755)
    run.start(tmp_path / "netkit")
    # Whoever started the tests may have ignored some himself (nohup); Python ignores SIGPIPE.
    before = subprocess.run(["grep", "SigIgn:", "/proc/self/status"], stdout=subprocess.PIPE).stdout
    assert run.ended() == (0, before)
    assert not int(before.split()[1], 16) >> (signal.SIGPIPE - 1) & 1


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("arrange", [nothing, dead])
def test_without_agent_and_python_it_is_an_error(
    run: Run, hasty: Path, verb: str, arrange: Any
) -> None:
    arrange(run)
    run.start(hasty, verb)
    error = run.error()
    assert (error["code"], error["cniVersion"]) == (unavailable(verb), "1.0.0")
    assert f"no agent listens on {run.path}" in error["msg"]
    assert f"{hasty.parent}/netkit-python, cannot be executed: No such file" in error["msg"]
    assert "cni-netkit agent" in error["details"]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC"])
@pytest.mark.parametrize("arrange", [nothing, dead])
def test_agent_that_comes_in_a_moment_is_waited_for(
    run: Run, patient: Path, verb: str, arrange: Any
) -> None:
    """As when a DaemonSet replaces it, or a node has just booted."""
    arrange(run)
    run.start(patient, verb, stdin=CONFIG)
    assert run.process
    looked = wait_until_it_sleeps(run.process.pid)
    assert looked
    Path(run.path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(30)
        listener.bind(run.path)
        listener.listen()
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            assert run.received(connection).stdin == CONFIG
            wire.send_answer(connection, 0, b"{}", soon())
    assert run.ended() == (0, b"{}")


@pytest.mark.parametrize("verb", ["STATUS", "VERSION"])
def test_who_asks_how_things_are_does_not_wait(run: Run, patient: Path, verb: str) -> None:
    """Its patience is a minute, and the test's half of one."""
    run.start(patient, verb)
    assert run.error()["code"] == unavailable(verb)


def wait_until_it_sleeps(process: int) -> bool:
    """Till it waits in poll() for nothing, which it does between two looks."""
    until = soon()
    while time.monotonic() < until:
        with suppress(OSError):
            # number of the system call, then its arguments: poll(NULL, 0, ...) on x86-64 and arm64
            words = Path(f"/proc/{process}/syscall").read_text().split()
            if words[0] in ("7", "73") and words[1:3] == ["0x0", "0x0"]:
                return True
    return False


def test_python_that_may_not_be_executed_is_named(run: Run, patient: Path) -> None:
    fall_back(patient, run.directory)
    run.directory.joinpath("netkit-python").chmod(0o644)
    run.start(run.directory / "netkit")
    assert "netkit-python, cannot be executed: Permission denied" in run.error()["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_socket_that_may_not_be_used_is_no_agent(run: Run, patient: Path) -> None:
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as name:
        run.directory = Path(name)
        run.directory.chmod(0o755)
        fall_back(patient, run.directory)
        script = run.directory / "netkit-python"
        script.write_text("#!/bin/sh\necho the answer of Python\n")
        run.listen()
        os.chmod(run.path, 0o600)
        ended = subprocess.run(
            [run.directory / "netkit"],
            env={"CNI_COMMAND": "ADD", "CNI_NETKIT_SOCKET": run.path},
            input=CONFIG,
            capture_output=True,
            user=65534,
            timeout=30,
        )
    assert (ended.returncode, ended.stdout) == (0, b"the answer of Python\n")


# What it prints by itself.


@pytest.mark.parametrize("environment", [{}, {"CNI_COMMAND": ""}])
def test_without_a_command_it_says_the_same_as_python(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    executable = build(tmp_path, "-O2", "-static", f'-DNETKIT_VERSION="{__version__}"')
    ours = subprocess.run([executable], env=environment, capture_output=True, timeout=30)
    python = subprocess.run(
        [sys.executable, "-m", "cni_netkit"],
        env=environment,
        capture_output=True,
        timeout=30,
        cwd=SOURCE.parents[3],
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, b"", python.stderr)


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b"", "1.1.0"),
        (b"{}", "1.1.0"),
        (b'{"cniVersion":"0.3.1"}', "0.3.1"),
        (b'{"name": "cniVersion", "cniVersion" \n:\t "0.4.0"}', "0.4.0"),
        (b'{"cniVersion": 1, "x": {"cniVersion": "0.2.0"}}', "0.2.0"),
        (b'{"cniVersion": "1.0', "1.1.0"),
        (b'{"cniVersion', "1.1.0"),
        (b'{"cniVersion"', "1.1.0"),
        (b'{"cniVersion":', "1.1.0"),
        (b'{"cniVersion": ""}', "1.1.0"),
        (b'{"cniVersion": "1.\\"\\n"}', "1.1.0"),
        (b'{"cniVersion": "1.0.0.0.0.0.0.0.0.0"}', "1.1.0"),
        (b'\0{"cniVersion": "0.3.1"}', "1.1.0"),
    ],
)
def test_error_is_in_the_version_of_the_request(
    run: Run, hasty: Path, stdin: bytes, version: str
) -> None:
    run.start(hasty, stdin=stdin)
    assert run.error()["cniVersion"] == version


def test_whatever_a_text_has_in_it_the_error_is_json(run: Run, hasty: Path) -> None:
    odd = '/"\\\n\t\x01\x1f\x7f\udcff\u00e4'
    run.start(hasty, verb=odd, CNI_NETKIT_SOCKET=odd)
    text = '/"\\\n\t\x01\x1f????'
    assert run.error()["msg"].startswith(f"{text}: no agent listens on {text} (")


def test_error_is_json_however_long_its_texts_are(run: Run, hasty: Path) -> None:
    run.start(hasty, verb="\x01" * (100 << 10))
    assert run.error()["msg"].strip("\x01") == ""


@pytest.mark.parametrize(
    "compiler",
    [
        each
        for each in ("cc", "gcc", "musl-gcc", "clang", "aarch64-linux-gnu-gcc")
        if shutil.which(each)
    ],
)
def test_it_is_compiled_static_and_without_a_warning(tmp_path: Path, compiler: str) -> None:
    executable = build(tmp_path, "-O2", "-static", compiler=compiler)
    assert b"/ld-linux" not in executable.read_bytes()[:4096]
