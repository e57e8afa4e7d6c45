"""The linters, as tests: format, habits, types, layers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


LINTERS = [
    ["ruff", "check", "--no-cache"],
    ["ruff", "format", "--check", "--no-cache"],
    ["mypy", "--no-incremental"],
    ["lint-imports", "--no-cache"],
]


@pytest.mark.parametrize("command", LINTERS, ids=lambda command: " ".join(command[:2]))
def test_linter_has_nothing_to_say(command: list[str]) -> None:
    """Exit status 0, or the linter's words."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def shell_scripts() -> list[Path]:
    """Every file of the project that bash runs, or reads (tests/lab/prepare)."""
    skipped = {".git", ".venv", "build", "dist", "__pycache__"}
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [each for each in folders if each not in skipped]
        for path in (Path(folder, name) for name in names):
            if path.suffix in ("", ".sh") and path.is_file():
                with path.open("rb") as file:
                    begin = file.read(100)
                if begin.startswith((b"#!/bin/bash", b"#!/bin/sh", b"# shellcheck shell=")):
                    found.append(path)
    return found


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    """About any script; what is sourced is looked at with what sources it."""
    scripts = shell_scripts()
    assert {"install.sh", "test", "demo", "prepare", "run"} <= {path.name for path in scripts}
    command = ["shellcheck", "--external-sources", *map(str, scripts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
