"""The executable: environment and standard input, one document, exit status (__main__)."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import __version__
from cni_netkit.spec import version as versions
from tests.unit.given import ENVIRONMENT, conf


@dataclass
class Answered:
    """What an execution brought."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        answer = json.loads(self.stdout)
        assert isinstance(answer, dict)
        assert self.stdout.count("\n") == 1
        return answer


def execute(verb: str | None, stdin: bytes = b"", **variables: str) -> Answered:
    """Execute the plugin as a runtime would, in an environment of CNI variables alone."""
    environment = {"PATH": os.environ["PATH"], **variables}
    if verb is not None:
        environment["CNI_COMMAND"] = verb
    done = subprocess.run(
        [sys.executable, "-m", "cni_netkit"], input=stdin, capture_output=True, env=environment
    )
    return Answered(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("verb", [None, ""])
def test_without_a_verb(verb: str | None) -> None:
    """Without CNI_COMMAND one line on standard error says what it is; exit status 0."""
    answered = execute(verb)
    assert (answered.status, answered.stdout) == (0, "")
    assert answered.stderr.count("\n") == 1
    assert f"netkit {__version__}" in answered.stderr
    assert all(version in answered.stderr for version in versions.SUPPORTED)


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_version(version: str) -> None:
    """VERSION answers in the version of the input and names all that are supported."""
    answered = execute("VERSION", json.dumps({"cniVersion": version}).encode())
    assert answered.status == 0
    assert answered.document == {
        "cniVersion": version,
        "supportedVersions": list(versions.SUPPORTED),
    }
    assert answered.stderr == ""


def test_version_with_the_variables_of_libcni() -> None:
    """VERSION is content with the dummies that libcni sets, and with no input at all."""
    dummies: dict[str, Any] = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}
    assert execute("VERSION", **dummies).document["cniVersion"] == "1.1.0"


@pytest.mark.parametrize(
    ("verb", "variables", "stdin", "code", "words"),
    [
        ("NONSENSE", ENVIRONMENT, b"{}", 4, "NONSENSE"),
        ("ADD", {}, b"{}", 4, "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        ("DEL", {}, b"{}", 4, "CNI_CONTAINERID, CNI_IFNAME"),
        ("ADD", {**ENVIRONMENT, "CNI_CONTAINERID": "/"}, b"{}", 4, "CNI_CONTAINERID"),
        ("ADD", ENVIRONMENT, b"", 6, "JSON"),
        ("ADD", ENVIRONMENT, b"{", 6, "JSON"),
        ("ADD", ENVIRONMENT, b"\xff", 6, "JSON"),
        ("ADD", ENVIRONMENT, b'{"cniVersion": "1", "name": "net"}', 6, "cniVersion"),
        ("ADD", ENVIRONMENT, b'{"cniVersion": "9.0.0", "name": "net"}', 1, "9.0.0"),
        ("CHECK", ENVIRONMENT, b'{"cniVersion": "0.3.1", "name": "net"}', 1, "0.4.0"),
        ("GC", ENVIRONMENT, b'{"cniVersion": "1.0.0", "name": "net"}', 1, "1.1.0"),
        ("ADD", ENVIRONMENT, b'{"cniVersion": "1.0.0"}', 7, "name"),
        ("ADD", ENVIRONMENT, json.dumps(conf(foo=1)).encode(), 2, "foo"),
        ("ADD", ENVIRONMENT, json.dumps(conf(mtu=1)).encode(), 7, "mtu"),
        ("ADD", {**ENVIRONMENT, "CNI_ARGS": "x"}, json.dumps(conf()).encode(), 4, "CNI_ARGS"),
        ("CHECK", ENVIRONMENT, json.dumps(conf()).encode(), 7, "prevResult"),
        ("STATUS", ENVIRONMENT, json.dumps(conf(policy="x")).encode(), 7, "policy"),
        ("GC", ENVIRONMENT, json.dumps(conf(policy="x")).encode(), 7, "policy"),
    ],
)
def test_error(verb: str, variables: dict[str, str], stdin: bytes, code: int, words: str) -> None:
    """A failure is exit status 1 and one error object on standard output, whoever is at fault."""
    answered = execute(verb, stdin, **variables)
    assert answered.status == 1
    assert set(answered.document) == {"cniVersion", "code", "msg", "details"}
    assert answered.document["code"] == code
    assert words in answered.document["msg"]
    assert answered.document["cniVersion"] in versions.SUPPORTED


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_error_in_the_version_of_the_request(version: str) -> None:
    """An error object is in the version of the configuration."""
    stdin = json.dumps(conf(cniVersion=version, mtu=1)).encode()
    assert execute("ADD", stdin, **ENVIRONMENT).document["cniVersion"] == version


def test_log_on_standard_error() -> None:
    """A failure is logged on standard error, as one line of JSON that names the attachment."""
    answered = execute("ADD", json.dumps(conf(mtu=1)).encode(), **ENVIRONMENT)
    line = json.loads(answered.stderr)
    assert line["level"] == "error"
    assert line["event"] == answered.document["msg"]
    assert (line["verb"], line["container"], line["ifname"]) == ("ADD", "c1", "eth0")


def on_terminal(stdin: bytes, *descriptors: int) -> tuple[str, str, str]:
    """Execute an ADD with some of its outputs on a terminal: what came there, and on the others."""
    primary, terminal = os.openpty()
    plugin = subprocess.Popen(
        [sys.executable, "-m", "cni_netkit"],
        stdin=subprocess.PIPE,
        stdout=terminal if 1 in descriptors else subprocess.PIPE,
        stderr=terminal if 2 in descriptors else subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", **ENVIRONMENT},
    )
    os.close(terminal)
    output, said = plugin.communicate(stdin)
    seen = b""
    # Nobody has the other end open any more: then reading ends with EIO (pty(7)).
    with contextlib.suppress(OSError):
        while more := os.read(primary, 65536):
            seen += more
    os.close(primary)
    return seen.decode(), (output or b"").decode(), (said or b"").decode()


def test_error_on_a_terminal_is_told_once(tmp_path: Path) -> None:
    """By the error object alone, where both channels are the terminal; the log's file has its line."""
    stdin = json.dumps(conf(mtu=1, log={"file": str(tmp_path / "log")})).encode()
    seen, _, _ = on_terminal(stdin, 1, 2)
    assert json.loads(seen)["code"] == 7
    assert seen.count("mtu") == 1
    assert json.loads((tmp_path / "log").read_text())["event"] == json.loads(seen)["msg"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "pipe", "/"])
def test_a_log_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    """It fails nothing: the answer is there, be it a name that no file can have, or a pipe."""
    os.mkfifo(tmp_path / "pipe")
    name = str(tmp_path / name) if name == "pipe" else name
    stdin = json.dumps(conf(mtu=1, log={"file": name})).encode()
    _, output, said = on_terminal(stdin)
    assert json.loads(output)["code"] == 7
    assert "write the log" in said


@pytest.mark.parametrize("terminal", [1, 2])
def test_error_on_two_channels_is_told_on_both(terminal: int) -> None:
    """Where one is a terminal and the other is not, each has what it has for a runtime."""
    seen, output, said = on_terminal(json.dumps(conf(mtu=1)).encode(), terminal)
    document, line = (seen, said) if terminal == 1 else (output, seen)
    assert json.loads(document)["code"] == 7
    assert json.loads(line)["event"] == json.loads(document)["msg"]


def test_input_that_cannot_be_read() -> None:
    """Standard input that is open for writing only is error 5."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -m cni_netkit 0>/dev/null'],
        capture_output=True,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", **ENVIRONMENT},
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 5


def test_closed_input() -> None:
    """Without standard input at all ADD is error 5."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -m cni_netkit 0<&-'],
        capture_output=True,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", **ENVIRONMENT},
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 5


def test_closed_standard_error() -> None:
    """The log goes nowhere: neither into the answer, nor into a file that got its number."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -m cni_netkit 2>&-'],
        input=b"{}",
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", **ENVIRONMENT},
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 7


def test_standard_error_that_nobody_reads() -> None:
    """A log that cannot be written fails nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "cni_netkit"],
        input=b"{}",
        stdout=subprocess.PIPE,
        stderr=writing,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", **ENVIRONMENT},
    )
    os.close(writing)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 7


@pytest.mark.parametrize("version", [None, "", "0.1.0"])
def test_a_missing_version_is_warned_of(version: str | None) -> None:
    """ADD goes on with 0.1.0, as with the reference plugins, and the log says so and what to do."""
    given = {**conf(mtu=1), "cniVersion": version}
    answered = execute("ADD", json.dumps(given).encode(), **ENVIRONMENT)
    assert answered.document["code"] == 7
    assert answered.document["cniVersion"] == "0.1.0"
    lines = [json.loads(line) for line in answered.stderr.splitlines()]
    warnings = [line for line in lines if line["level"] == "warning"]
    assert len(warnings) == (0 if version else 1)
    for line in warnings:
        assert line["event"].startswith("the network configuration has no cniVersion: 0.1.0 holds")
        assert '"cniVersion": "1.0.0"' in line["remedy"]
