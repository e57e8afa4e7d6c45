"""Images without a registry: a tar in OCI layout (image-spec, image-layout.md)."""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""GOARCH of what uname calls the machine."""

FAST = 1
"""Level of compression: what is loaded once is not worth more."""


def write(
    target: Path,
    name: str,
    *,
    files: Mapping[str, bytes | Path] | None = None,
    folders: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    config: Mapping[str, Any],
) -> Path:
    """An image of one layer; where it is, for `ctr images import`.

    A file given by its path keeps its mode, and its time, which Python compares with what is compiled; one
    given by its content is executable.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in folders:
            _add(tar, folder, tarfile.DIRTYPE)
        for path, source in (files or {}).items():
            if isinstance(source, Path):
                of = source.stat()
                content = source.read_bytes()
                _add(tar, path, tarfile.REGTYPE, content, mode=of.st_mode, time=int(of.st_mtime))
            else:
                _add(tar, path, tarfile.REGTYPE, source)
        for path, leads_to in (links or {}).items():
            _add(tar, path, tarfile.SYMTYPE, link=leads_to)
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = _digest(data)
        blobs[digest] = data
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": digest, "size": len(data)}

    packed = blob("layer.v1.tar+gzip", gzip.compress(layer.getvalue(), FAST))
    settings = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
    }
    described = blob("config.v1+json", json.dumps(settings).encode())
    manifest = {"schemaVersion": 2, "config": described, "layers": [packed]}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name}
    # By renaming: who reads meanwhile finds the old one or the new one.
    new = target.with_suffix(f".{os.getpid()}")
    with tarfile.open(new, "w") as tar:
        _add(tar, "oci-layout", tarfile.REGTYPE, b'{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "manifests": [entry]}
        _add(tar, "index.json", tarfile.REGTYPE, json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/{digest.replace(':', '/')}", tarfile.REGTYPE, data)
    new.rename(target)
    return target


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes,
    content: bytes = b"",
    *,
    link: str = "",
    mode: int = 0o755,
    time: int = 0,
) -> None:
    info = tarfile.TarInfo(name)
    info.mtime = time
    info.type, info.mode, info.size, info.linkname = kind, mode & 0o7777, len(content), link
    tar.addfile(info, io.BytesIO(content))
