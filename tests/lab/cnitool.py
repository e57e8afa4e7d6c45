"""cnitool from Debian's sources: used by tests/lab/fetch. Standard library only."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.debian import CACHE, Apt, Package, run, say
else:  # as a script's neighbour
    from debian import CACHE, Apt, Package, run, say


def compile_cnitool(folder: Path, apt: Apt, library: Package) -> None:
    """Make cnitool: Debian has the library in a package, its command in the source package only."""
    compiler, *_ = apt.packages(r"golang-1\.\d+-go")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        for package in (compiler, Package(f"{compiler.name[:-3]}-src", compiler.version)):
            apt.unpack(package, Path(scratch))
        (root,) = Path(scratch).glob("usr/lib/go-1.*")
        archive = apt.upstream_source("golang-github-appc-cni", Path(scratch))
        path = folder / "usr/share/gocode"
        module = path / "src/github.com/containernetworking/cni"
        run(
            "tar",
            "-xf",
            str(archive),
            "-C",
            str(module),
            "--strip-components=1",
            "--wildcards",
            "*/cnitool/*.go",
        )
        (folder / "tools").mkdir()
        environment = {
            "GOROOT": str(root),
            "GOPATH": str(path),
            "GOCACHE": f"{scratch}/cache",
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "HOME": scratch,
            "PATH": os.environ["PATH"],
        }
        say(f"compiling cnitool of {library.label}")
        program = str(folder / "tools" / "cnitool")
        run(
            *(str(root / "bin/go"), "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "."),
            cwd=module / "cnitool",
            environment=environment,
        )
