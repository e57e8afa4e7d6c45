"""A machine to install on: a Debian root under an overlay, entered or booted."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from tests.install.roots import ROOT

# Everything happens in namespaces of its own: no network, and no mount is left behind.
ENTER = """
mount --make-rprivate /
mount -t overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" overlay "$MERGED"
mount -t proc proc "$MERGED/proc"
mount -t sysfs sysfs "$MERGED/sys"
mount -t devtmpfs dev "$MERGED/dev"
mount -t tmpfs run "$MERGED/run"
mount --bind "$MEDIA" "$MERGED/media"
exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$MERGED" "$@"
"""
JOB = "lab-job.service"
UNIT = """[Unit]
Description=what the tests do
[Service]
ExecStart=/bin/bash /job
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
"""


@dataclass
class Machine:
    """A root whose changes go to a folder of its own."""

    folder: Path
    lower: str
    media: Path

    def __post_init__(self) -> None:
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(parents=True)

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    def copy(self, folder: Path) -> "Machine":
        """Another machine that begins where this one is; this one must not change any more."""
        return Machine(folder, f"{self.upper}:{self.lower}", self.media)

    def run(self, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command within; output and complaints together. There is no network."""
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*unshare, "bash", "-euc", ENTER, "enter", *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "LOWER": self.lower,
                "UPPER": str(self.upper),
                "WORK": str(self.folder / "work"),
                "MERGED": str(self.folder / "merged"),
                "MEDIA": str(self.media),
            },
        )

    def install(self, *arguments: str, status: int = 0, python: str = "") -> str:
        """Call install.sh; what it says."""
        variables = [f"PYTHON={python}"] if python else []
        done = self.run("env", *variables, "/media/install.sh", *arguments)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def state(self) -> dict[str, tuple[object, ...]]:
        """Everything that differs from the root: kind, mode, owner, time, inode and contents."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.upper.rglob("*")):
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else ""
            if path.is_file() and not path.is_symlink():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[f"/{path.relative_to(self.upper)}"] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_mtime_ns if not path.is_dir() else 0,
                status.st_ino,
                content,
            )
        return found

    def is_whiteout(self, name: str) -> bool:
        """Whether a name stands for a file that is gone (Documentation/filesystems/overlayfs.rst)."""
        return self.upper.joinpath(name[1:]).is_char_device()

    def files(self) -> set[str]:
        """The names of what is no folder."""
        return {
            name for name, (mode, *_) in self.state().items() if not str(mode).startswith("0o4")
        }


def lab_kernel() -> Path:
    """The lab's kernel, as tests/lab/run finds, unpacks or builds it."""
    loader = SourceFileLoader("lab_run", str(ROOT / "tests" / "lab" / "run"))
    spec = spec_from_loader("lab_run", loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return Path(module.kernel())


def boot(root: Path, job: str, seconds: int) -> str:
    """Boot a root with its own systemd on the lab kernel, run `job` there, power off; its output."""
    units = root / "etc" / "systemd" / "system"
    (units / JOB).write_text(UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants" / JOB).unlink(missing_ok=True)
    (units / "multi-user.target.wants" / JOB).symlink_to(f"../{JOB}")
    (root / "job").write_text(f"export HOME=/root\n{job}\nsystemctl poweroff --force\n")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(root.parent)
    done = subprocess.run(
        [
            lab_kernel(), "mem=2G", "ncpus=2", "seccomp=on",
            "root=/dev/root", "rootfstype=hostfs", f"rootflags={root}", "rw",
            "init=/lib/systemd/systemd", "systemd.show_status=no", f"umid=install-{os.getpid()}",
            "quiet", "loglevel=2", "panic=-1", "con0=fd:0,fd:1", "con=null",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        env={"PATH": os.environ["PATH"], "HOME": str(root.parent), "TMPDIR": memory},
    )  # fmt: skip
    return done.stdout.decode(errors="replace").replace("\r\n", "\n")
