""".ci/release begins only where there is something to release."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = "1.2.3"

Release = Callable[..., str]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One of a commit with what the script looks at."""
    folder = tmp_path / "checkout"
    for name, text in {
        ".ci/release": (ROOT / ".ci" / "release").read_text(),
        "cni_netkit/__init__.py": f'"""Package."""\n\n__version__ = "{VERSION}"\n',
        "CHANGELOG.md": f"# Changelog\n\n## {VERSION} (2026-11-30)\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".ci" / "release").chmod(0o755)
    git(folder, "init", "--quiet")
    commit(folder)
    git(folder, "tag", f"v{VERSION}")
    return folder


def git(folder: Path, *arguments: str) -> None:
    own = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    subprocess.run(["git", *own, *arguments], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "test")


def refused(folder: Path, *arguments: str, path: str = "/usr/bin:/bin") -> str:
    """What the script ends with, before it has made anything."""
    done = subprocess.run(
        [folder / ".ci" / "release", *arguments], env={"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert not (folder.parent / "out").exists()
    return done.stderr


@pytest.fixture
def without_compilers(tmp_path: Path) -> str:
    """A PATH on which the first thing that is needed to build is missing."""
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "git", "grep", "readlink", "sed", "env"):
        found = subprocess.run(["which", name], check=True, capture_output=True, text=True)
        (tmp_path / "bin" / name).symlink_to(found.stdout.strip())
    return str(tmp_path / "bin")


def test_what_was_tagged_and_dated_is_released(
    checkout: Path, tmp_path: Path, without_compilers: str
) -> None:
    """As far as the tools; which to install is told."""
    said = refused(checkout, str(tmp_path / "out"), path=without_compilers)
    assert "there is no aarch64-linux-gnu-gcc: apt-get install " in said


def test_changes_without_a_commit(checkout: Path, tmp_path: Path) -> None:
    (checkout / "new").touch()
    assert "changes that no commit has" in refused(checkout, str(tmp_path / "out"))


def test_a_commit_without_its_tag(checkout: Path, tmp_path: Path) -> None:
    """The tag of another version is none."""
    git(checkout, "tag", "--delete", f"v{VERSION}")
    git(checkout, "tag", f"v{VERSION}.1")
    assert f"the commit has no tag v{VERSION}" in refused(checkout, str(tmp_path / "out"))


def test_a_version_without_a_date(checkout: Path, tmp_path: Path) -> None:
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n## {VERSION} (not released)\n")
    commit(checkout)
    git(checkout, "tag", "--force", f"v{VERSION}")
    assert f"the CHANGELOG has no date for {VERSION}" in refused(checkout, str(tmp_path / "out"))


def test_a_rehearsal_needs_neither(checkout: Path, tmp_path: Path, without_compilers: str) -> None:
    git(checkout, "tag", "--delete", f"v{VERSION}")
    said = refused(checkout, "--rehearse", str(tmp_path / "out"), path=without_compilers)
    assert "there is no aarch64-linux-gnu-gcc" in said


@pytest.mark.parametrize(
    "arguments", [(), ("--rehearse",), ("--no-such", "out"), ("--image-option",)]
)
def test_what_to_type_is_told(checkout: Path, arguments: tuple[str, ...]) -> None:
    said = refused(checkout, *arguments)
    assert "usage: .ci/release " in said or "an option for buildah is missing" in said
