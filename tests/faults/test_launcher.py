"""The launcher, built with sanitizers: fuzzed, and called in every way in which a process can be."""

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.fuzz import run
from tests.unit.test_launcher import CONFIG, SANITIZED, SHORT, build

pytestmark = pytest.mark.any_kernel

FUZZED = ("-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
HARNESS = run.HERE / "launcher.c"
EXECUTIONS = 20_000
SECONDS_OF_A_LONG_RUN = 1200
DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


def test_the_launcher_is_fuzzed(tmp_path: Path, long: bool, figures: list[str]) -> None:
    """Answers of an agent, environment, input: no bad access, one document or none, an exit status."""
    program, found = tmp_path / "fuzz", tmp_path / "found"
    built = subprocess.run(
        ["clang", *FUZZED, *SHORT, "-o", program, HARNESS], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    found.mkdir()
    much = f"-max_total_time={SECONDS_OF_A_LONG_RUN}" if long else f"-runs={EXECUTIONS}"
    options = [much, f"-seed={0 if long else 4711}", "-timeout=20", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [program, *options, found, run.CORPUS / "launcher"],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-5000:]
    counted = DONE.search(done.stderr)
    assert counted
    executions, edges, features, corpus = counted.groups()
    figures.append(
        f"fuzz launcher (ASan, UBSan): {executions} executions, {edges} edges, {features} features, "
        f"{corpus} inputs in the corpus, 0 findings"
    )


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With sanitizers, and little patience; no Python entry point lies beside it."""
    return build(tmp_path_factory.mktemp("launcher"), *SANITIZED, *SHORT)


def refused(done: "subprocess.CompletedProcess[bytes]") -> int:
    """The code of the one document that there is."""
    assert done.returncode == 1, done
    assert done.stderr == b"", done.stderr
    return int(json.loads(done.stdout)["code"])


def call(
    launcher: Path, environment: dict[bytes, bytes], stdin: bytes = CONFIG
) -> "subprocess.CompletedProcess[bytes]":
    """Nobody listens."""
    nobody = {b"CNI_COMMAND": b"ADD", b"CNI_NETKIT_SOCKET": b"/nonexistent/agent.sock"}
    return subprocess.run(
        [launcher], env={**nobody, **environment}, input=stdin, capture_output=True
    )


@pytest.mark.parametrize("length", [107, 108, 109, 200, 4096, 100_000])
def test_a_long_path_of_the_socket(launcher: Path, length: int) -> None:
    """sun_path has 108 bytes: 11 for nobody there, 4 for what can be no path."""
    path = b"/nonexistent/".ljust(length, b"a")
    assert refused(call(launcher, {b"CNI_NETKIT_SOCKET": path})) == (4 if length > 107 else 11)


@pytest.mark.parametrize("verb", [b"x", b'"\\\n', b"\xff\xfe", b"A" * 100_000, b"%s%n%s"])
def test_any_verb(launcher: Path, verb: bytes) -> None:
    """What the message quotes is escaped, and cut where it is long."""
    assert refused(call(launcher, {b"CNI_COMMAND": verb})) == 11


def test_an_environment_as_large_as_there_can_be(launcher: Path) -> None:
    """128 KiB each, 6 MiB together: as much as Linux takes with an unlimited stack."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    many = {f"V{number}".encode(): b"v" * 131_000 for number in range(40)}

    def unlimited() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, hard))

    done = subprocess.run(
        [launcher],
        env={**many, b"CNI_COMMAND": b"DEL", b"CNI_NETKIT_SOCKET": b"/nonexistent"},
        input=CONFIG,
        capture_output=True,
        preexec_fn=unlimited if hard == resource.RLIM_INFINITY else None,
    )
    assert refused(done) == 11
    assert soft


def execute(launcher: Path, arguments: list[bytes], variables: list[bytes]) -> tuple[int, bytes]:
    """By execve(2) itself: with what subprocess would not pass on. Exit status and output."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        passed = [(ctypes.c_char_p * (len(each) + 1))(*each) for each in (arguments, variables)]
        ctypes.CDLL(None).execve(os.fsencode(launcher), *passed)
        os._exit(99)
    os.close(writing)
    with open(reading, "rb") as pipe:
        output = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


@pytest.mark.parametrize("arguments", [[], [b""], [b"a" * 100_000], [b"netkit", b"--help"]])
def test_any_arguments(launcher: Path, arguments: list[bytes]) -> None:
    """They are none of its business, also where there is not even its own name (argc 0)."""
    variables = [b"CNI_COMMAND=STATUS", b"CNI_NETKIT_SOCKET=/nonexistent"]
    status, output = execute(launcher, arguments, variables)
    assert status == 1
    assert json.loads(output)["code"] == 50


def test_an_environment_that_is_none(launcher: Path) -> None:
    """Without '=', empty, twice: the first counts, as for getenv(3)."""
    odd = [b"", b"=", b"==", b"CNI_COMMAND", b"CNI_COMMAND=GC", b"CNI_COMMAND=\xff", b"A", b"A=1"]
    status, output = execute(launcher, [b"netkit"], [*odd, b"CNI_NETKIT_SOCKET=/nonexistent"])
    assert status == 1
    assert json.loads(output)["msg"].startswith("GC: ")
    assert execute(launcher, [b"netkit"], []) == (0, b"")


@pytest.mark.parametrize("closed", range(1, 8))
def test_closed_descriptors(launcher: Path, closed: int) -> None:
    """No socket becomes standard input or output; without output nobody is told, and that is all."""
    numbers = [each for each in range(3) if closed >> each & 1]
    shell = " ".join(f"{each}{'<' if each == 0 else '>'}&-" for each in numbers)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" {shell}', launcher],
        env={b"CNI_COMMAND": b"ADD", b"CNI_NETKIT_SOCKET": b"/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 1
    assert done.stderr == b""
    if 1 not in numbers:
        assert json.loads(done.stdout)["code"] == 11


@pytest.mark.parametrize("stdin", [b"", b"\0" * 1000, b"[" * 1_000_000, b"\xff" * (16 << 20)])
def test_any_input(launcher: Path, stdin: bytes) -> None:
    """What has no cniVersion is answered in the newest."""
    done = call(launcher, {}, stdin)
    assert refused(done) == 11
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_it_wants_no_rights_of_its_own(launcher: Path) -> None:
    """It is not setuid, and works for whom it is executed by."""
    assert not launcher.stat().st_mode & 0o6000
    assert shutil.which("clang")
