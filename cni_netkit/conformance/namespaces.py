"""A host of its own for each row: fresh network and mount namespaces, and containers in it.

Python has setns and unshare from 3.12 on. All of this is for a process with a single thread.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36

NAMED = Path("/run/netns")
"""Where ip(8) looks for namespaces by name."""

PRIVATE = ("/run", "/var/lib/cni")
"""What plugins write to; each row has them to itself, empty."""

libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: object) -> None:
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)


def adopt_orphans() -> None:
    """Become the parent of what a plugin leaves running (prctl(2))."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def enter_fresh_host(kept: Iterable[Path]) -> None:
    """Have this process be on a host where nothing is; `kept` stays visible all the same."""
    folders = {each.resolve() for each in kept if each.is_dir()}
    hidden = {each for each in folders if any(each.is_relative_to(path) for path in PRIVATE)}
    opened = {each: os.open(each, os.O_PATH) for each in hidden}
    _call("unshare", CLONE_NEWNET | CLONE_NEWNS)
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    for target in PRIVATE:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount("tmpfs", target, "tmpfs")
    _mount("sysfs", "/sys", "sysfs")
    for folder, descriptor in opened.items():
        folder.mkdir(parents=True)
        _mount(f"/proc/self/fd/{descriptor}", str(folder), flags=MS_BIND | MS_REC)
        os.close(descriptor)
    NAMED.mkdir()


def add_container(name: str) -> Path:
    """Make a network namespace that ip(8) knows by its name."""
    path = NAMED / name
    path.touch(exist_ok=False)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        _call("unshare", CLONE_NEWNET)
        try:
            _mount("/proc/self/ns/net", str(path), flags=MS_BIND)
        finally:
            _call("setns", here, CLONE_NEWNET)
    finally:
        os.close(here)
    return path


def remove_container(path: Path) -> None:
    """Take it away, as a runtime does; the kernel ends what is in it."""
    _call("umount2", str(path).encode(), MNT_DETACH)
    path.unlink()
