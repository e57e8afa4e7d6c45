"""What runs in a pod: busybox and nothing else, as an image and as a folder."""

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from pathlib import Path
from typing import Any

NAME = "localhost/pause:latest"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""GOARCH of what uname calls the machine."""

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


def archive(file: Path, scratch: Path) -> Path:
    """The same as an OCI image layout in a tar (image-spec, image-layout.md), for `ctr images import`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(folder(scratch), arcname=".")
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, media: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        kind = f"application/vnd.oci.image.{media}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": FOREVER},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_text(config), "config.v1+json"),
        "layers": [blob(gzip.compress(layer.getvalue(), 1), "layer.v1.tar+gzip")],
    }
    described = blob(_text(manifest), "manifest.v1+json")
    described["annotations"] = {"io.containerd.image.name": NAME}
    members = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    members["oci-layout"] = _text({"imageLayoutVersion": "1.0.0"})
    members["index.json"] = _text({"schemaVersion": 2, "manifests": [described]})
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    os.chmod(file, 0o644)
    return file


def _text(value: object) -> bytes:
    return json.dumps(value).encode()
