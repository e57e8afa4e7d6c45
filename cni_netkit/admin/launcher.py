"""Where the compiled launcher is, and putting it where a runtime calls plugins."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

LAUNCHER = Path(__file__).parent.parent / "agent" / "launcher" / "netkit"

OURS = (b"CNI plugin that connects containers with netkit devices", b"cni_netkit")
"""What the launcher, respectively the Python entry point, contains."""


class LauncherError(Exception):
    """There is no launcher, or it cannot be put in place; the text says why."""


def path() -> Path:
    """The launcher of this installation. Raises `LauncherError`."""
    if not LAUNCHER.exists():
        raise LauncherError(
            "this installation has none, since there was no C compiler when it was built; "
            "the Python entry point netkit does the same, more slowly"
        )
    return LAUNCHER


def install(folder: Path) -> bool:
    """Put the launcher into `folder` by renaming; whether that changed anything.

    A runtime that calls it meanwhile gets the old one or the new one. The folder must exist: a
    mount that was forgotten is not to look like a success. Raises `LauncherError`.
    """
    content = path().read_bytes()
    target = folder / "netkit"
    try:
        if not folder.is_dir():
            raise LauncherError(f"there is no folder {folder}: mount the host's CNI_PATH there")
        if target.exists():
            found = target.read_bytes()
            if found == content and not target.is_symlink():
                return False
            if not any(each in found for each in OURS):
                raise LauncherError(f"{target} is something else than netkit: move it away first")
        _replace(target, content)
    except OSError as error:
        raise LauncherError(f"write {target}: {error.strerror}") from None
    return True


def _replace(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".netkit.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o755)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def main(command: str, folder: str) -> int:
    """Carry out `cni-netkit launcher` or `cni-netkit install`; the exit status."""
    try:
        if command == "launcher":
            print(path())
        else:
            target = Path(folder) / "netkit"
            print(f"{target} {'is in place' if install(Path(folder)) else 'was in place already'}")
    except LauncherError as error:
        print(f"cni-netkit {command}: {error}", file=sys.stderr)
        return 1
    return 0
