"""What runs in a pod: busybox and nothing else, as an image and as a folder."""

import shutil
from pathlib import Path

from tests import oci

NAME = "localhost/pause:latest"
FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp")
APPLETS = ("sh", "sleep")
FOREVER = ["/bin/sleep", "2147483647"]


def busybox() -> Path:
    """The machine's own, which is static."""
    found = shutil.which("busybox")
    assert found, "busybox is not installed; tests/lab/install-packages does that"
    return Path(found)


def folder(into: Path) -> Path:
    """A container's root as a folder (podman run --rootfs)."""
    for name in FOLDERS:
        (into / name).mkdir(parents=True)
    shutil.copy(busybox(), into / "bin" / "busybox")
    for applet in APPLETS:
        (into / "bin" / applet).symlink_to("busybox")
    return into


def archive(file: Path) -> Path:
    """The same as an image."""
    return oci.write(
        file,
        NAME,
        folders=FOLDERS,
        files={"bin/busybox": busybox().read_bytes()},
        links={f"bin/{applet}": "busybox" for applet in APPLETS},
        config={"Env": ["PATH=/bin"], "Entrypoint": FOREVER},
    )
