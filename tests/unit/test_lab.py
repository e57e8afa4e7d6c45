"""What ./demo, ./test and the others have in common: getting what they need, and telling of it."""

import os
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAB = ROOT / "tests" / "lab"


def bash(script: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a script that sources from tests/lab."""
    return subprocess.run(
        ["bash", "-euc", f"root={ROOT}; lab={LAB}; {script}", "demo"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_everything_is_announced_before_anything_is_done(tmp_path: Path) -> None:
    """What is missing, and where it goes; then step by step. What is there is used and not told of."""
    done = bash(
        '. "$lab/prepare"; has() { [[ $1 == there ]]; }; missing_packages() { echo "one two"; }; '
        'get() { echo "got $1" >&2; }; use() { echo "using $1" >&2; }; '
        "prepare packages:demo there environment iproute2 kernel",
        VIRTUAL_ENV="/somewhere/venv",
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    told, _, steps = done.stderr.partition("demo: step 1 of 4")
    assert "installed by apt-get: one two\n" in told
    assert "in /somewhere/venv: cni-netkit" in told
    assert f"in {tmp_path}/cni-netkit: the source of Linux 7" in told
    assert f"in {tmp_path}/cni-netkit, not installed: iproute2\n" in told
    assert "got" not in told
    assert "there" not in told
    lines = [line for line in steps.splitlines() if line.startswith(("got", "using"))]
    needed = ["packages:demo", "there", "environment", "iproute2", "kernel"]
    assert lines == [
        *(f"got {each}" for each in needed if each != "there"),
        *(f"using {each}" for each in needed),
    ]
    assert re.search(r"^demo: step 4 of 4, \d:\d\d min so far: kernel$", steps, re.MULTILINE)


def test_nothing_is_said_where_nothing_is_missing() -> None:
    done = bash('. "$lab/prepare"; has() { :; }; get() { false; }; use() { :; }; prepare a b')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_failure_of_a_step_ends_it() -> None:
    """Neither the next step is tried nor what came here begun."""
    done = bash(
        '. "$lab/prepare"; has() { false; }; get() { [[ $1 != b ]]; }; prepare a b c; echo on'
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "step 2 of 3" in done.stderr
    assert "step 3 of 3" not in done.stderr


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    """And not too many of them."""
    done = bash('. "$lab/progress"; for n in 1 2 3; do progress "number $n"; done; progress_ends')
    assert (done.stdout, done.stderr) == ("", "number 1\n")


@pytest.mark.parametrize(
    ("done", "everything", "seconds", "told"),
    [
        (0, 100, 7, "0:07 min"),
        (3, 100, 4, "0:04 min"),
        (25, 100, 30, "0:30 min, about 1:30 left"),
        (100, 100, 125, "2:05 min, about 0:00 left"),
    ],
)
def test_what_is_left_is_told_by_the_pace_so_far(
    done: int, everything: int, seconds: int, told: str
) -> None:
    assert bash(f'. "$lab/progress"; pace {done} {everything} {seconds}').stdout == told


def test_only_what_is_missing_is_named() -> None:
    """Also of a list by purpose; nothing is installed for the question."""
    done = bash('"$lab/install-packages" --missing bash no-such-package bash dpkg no-such-package')
    assert (done.returncode, done.stdout) == (0, "no-such-package\n")
    purpose = bash('"$lab/install-packages" --missing demo')
    assert purpose.returncode == 0
    assert "demo" not in purpose.stdout


def test_what_is_cached_is_found_without_fetching(tmp_path: Path) -> None:
    """Where it is not, that is all that is said, and nothing is made."""
    ask = ["/usr/bin/python3", str(LAB / "fetch"), "--cached", "cri-api"]

    def found() -> "tuple[int, str, str]":
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(ask, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert found() == (1, "", "")
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "cni-netkit/fetched/golang-k8s-cri-api-dev-0.36.4-1"
    folder = folder / "usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1"
    folder.mkdir(parents=True)
    assert found() == (1, "", "")
    (folder / "api.proto").touch()
    assert found() == (0, f"{folder}\n", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_guest_knows_whether_its_console_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """In the guest it always is one: programs there have to be told by their environment."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    seen = lab_run().environment()
    assert (seen["TERM"], seen.get("NO_COLOR")) == (("xterm", None) if terminal else ("dumb", "1"))
    assert seen["TMPDIR"] == "/run/tmp"


def lab_run() -> Any:
    """tests/lab/run, which is no module by its name."""
    loader = SourceFileLoader("lab_run", str(LAB / "run"))
    spec = spec_from_loader("lab_run", loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module
