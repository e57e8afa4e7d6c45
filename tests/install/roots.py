"""Debian roots to install on, wheels to install from: made once, kept under ~/.cache/cni-netkit.

Packages come from where this machine's own apt takes them, wheels from pip's index. What is kept is
used as long as it is there: remove the folder to have newer ones. Tests work on copies.
"""

import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.debian import CACHE, mirror
from tests.lab.debian import OWN_RELEASE as RELEASE

ROOT = Path(__file__).parents[2]
NODE = ["python3-venv", "systemd", "iproute2", "iputils-ping", "nftables", "procps", "libbpf1"]
NODE += ["bash-completion", "fish", "man-db", "sudo", "zsh"]
"""What a node has, and what looks for commands, pages and completions there. Nothing to compile with, and no pip outside of virtual environments."""

SOURCES = ["cni_netkit", "conf", "docs", "examples", "requirements"]
SOURCE_FILES = ["pyproject.toml", "hatch_build.py", "LICENSE", "install.sh"]
SOURCE_FILES += [path.name for path in ROOT.glob("*.md")]
OLD, NEW, OTHER_FORMAT = "0.0.1", "0.0.2", "0.0.3"
"""Versions that the wheels are given, each an upgrade of the one before, the last one with records of
another format."""


def run(*command: str | Path, **options: object) -> str:
    """Run a command that must work; its output."""
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


@contextmanager
def _kept(name: str) -> Iterator[tuple[Path, bool]]:
    """A folder of the cache: where to make it, and whether it has to be made."""
    final = CACHE / name
    if final.exists():
        yield final, False
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=CACHE, prefix="making-"))
    making.chmod(0o755)
    try:
        yield making, True
        making.rename(final)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def base() -> Path:
    """The smallest Debian that apt works in, as images are made of."""
    with _kept(f"debian-{RELEASE}") as (folder, missing):
        if missing:
            run("debootstrap", "--variant=minbase", RELEASE, folder, mirror())
            shutil.copy("/etc/resolv.conf", folder / "etc" / "resolv.conf")
    return CACHE / f"debian-{RELEASE}"


def node_root() -> Path:
    """A Debian that systemd boots, with Python."""
    packages = zlib.crc32(" ".join(NODE).encode())
    name = f"debian-{RELEASE}-node-{packages:08x}"
    with _kept(name) as (folder, missing):
        if missing:
            run("cp", "--archive", "--no-target-directory", base(), folder)
            script = (
                "mount --make-rprivate /; mount -t proc proc $0/proc; "
                "mount -t devtmpfs dev $0/dev; export DEBIAN_FRONTEND=noninteractive; "
                "chroot $0 apt-get -qq update && "
                'chroot $0 apt-get -qq install --yes --no-install-recommends "$@"'
            )
            run("unshare", "--mount", "bash", "-c", script, folder, *NODE, stdin=subprocess.DEVNULL)
            run("bash", "-c", f"rm -rf {folder}/var/lib/apt/lists/* {folder}/var/cache/apt/*")
    return CACHE / name


def sources(into: Path, version: str) -> Path:
    """A copy of what is to be installed, under another version."""
    ignore = shutil.ignore_patterns("__pycache__", "netkit", "xsk.bpf.o")
    for name in SOURCES:
        shutil.copytree(ROOT / name, into / name, ignore=ignore)
    for name in SOURCE_FILES:
        shutil.copy(ROOT / name, into / name)
    initial = into / "cni_netkit" / "__init__.py"
    text, count = re.subn(r'(__version__ = )".*"', rf'\1"{version}"', initial.read_text())
    assert count == 1
    initial.write_text(text)
    if version == OTHER_FORMAT:
        _change_format(into / "cni_netkit" / "record.py")
    return into


def _change_format(module: Path) -> None:
    """Give records a field more, as a release may: then they have another format."""
    text = module.read_text()
    for before, after in (
        ('))\n"""A new one', ", lambda fields: {**fields, 'made_by': 'older'}))\n\"\"\"A new one"),
        (
            "    added_to: str | None = None\n",
            "    added_to: str | None = None\n    made_by: str = 'newer'\n",
        ),
        ('    "added_to": _is(', '    "made_by": _is(str),\n    "added_to": _is('),
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    module.write_text(text)


def wheel(into: Path, version: str) -> Path:
    """A wheel of this checkout with the launcher and the XDP program in it."""
    with tempfile.TemporaryDirectory() as folder:
        source = sources(Path(folder), version)
        pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--disable-pip-version-check"]
        run(*pip, "--no-deps", "--wheel-dir", into, source)
    (made,) = into.glob(f"cni_netkit-{version}-*.whl")
    assert "manylinux" in made.name, "the launcher has not been compiled"
    with zipfile.ZipFile(made) as content:
        assert "cni_netkit/kernel/bpf/xsk.bpf.o" in content.namelist()
    return made


def locked_wheels() -> Path:
    """The wheels that the requirements' locks name, for the roots' Python; not those of the tests."""
    locks = [each for each in sorted((ROOT / "requirements").glob("*.lock")) if each.stem != "test"]
    state = run("sha256sum", *locks, cwd=ROOT / "requirements")
    name = f"wheels-{RELEASE}"
    if (CACHE / name).exists() and (CACHE / name / "locks").read_text() != state:
        shutil.rmtree(CACHE / name)
    with _kept(name) as (folder, missing):
        if missing:
            _download(folder, locks)
            (folder / "locks").write_text(state)
    return CACHE / name


def _download(folder: Path, locks: list[Path]) -> None:
    version = next(node_root().glob("usr/lib/python3.*/os.py")).parent.name.removeprefix("python")
    machine = platform.machine()
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    wanted = ["--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    wanted += ["--platform", f"manylinux2014_{machine}", "--platform", f"manylinux_2_17_{machine}"]
    for lock in locks:
        run(*pip, *wanted, "--require-hashes", "--dest", folder, "-r", lock)


if __name__ == "__main__":  # all of it, beforehand
    node_root()
    locked_wheels()
