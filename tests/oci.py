"""Images without a registry: a tar in OCI layout (image-spec, image-layout.md)."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""GOARCH of what uname calls the machine."""


def write(
    target: Path,
    name: str,
    *,
    files: Mapping[str, bytes] | None = None,
    folders: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    config: Mapping[str, Any],
) -> Path:
    """An image of one layer; where it is, for `ctr images import`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in folders:
            _add(tar, folder, tarfile.DIRTYPE)
        for path, content in (files or {}).items():
            _add(tar, path, tarfile.REGTYPE, content)
        for path, leads_to in (links or {}).items():
            _add(tar, path, tarfile.SYMTYPE, link=leads_to)
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    packed = blob("layer.v1.tar", layer.getvalue())
    settings = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
    }
    described = blob("config.v1+json", json.dumps(settings).encode())
    manifest = {"schemaVersion": 2, "config": described, "layers": [packed]}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name}
    with tarfile.open(target, "w") as tar:
        _add(tar, "oci-layout", tarfile.REGTYPE, b'{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "manifests": [entry]}
        _add(tar, "index.json", tarfile.REGTYPE, json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", tarfile.REGTYPE, data)
    return target


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, content: bytes = b"", link: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, 0o755, len(content), link
    tar.addfile(info, io.BytesIO(content))
