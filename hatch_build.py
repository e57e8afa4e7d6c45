"""Build hook: the launcher into the wheel, where there is a C compiler; else a pure wheel.

CC names the compiler, with options if need be; a cross compiler makes a wheel for its machine:
`CC="python -m ziglang cc -target aarch64-linux-musl" python -m build --wheel`
Without it musl's is preferred: a static program of glibc asks the processor for its features when
it starts, and each such question leaves a virtual machine (0.53 ms instead of 0.19; DESIGN.md,
D-14).
"""

import os
import shlex
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LAUNCHER = "cni_netkit/agent/launcher/netkit"
FLAGS = ("-O2", "-static", "-s", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")
MACHINES = {62: "x86_64", 183: "aarch64"}
"""EM_* of include/uapi/linux/elf-em.h, and the names of wheel tags."""


class LauncherHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles netkit.c."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the launcher into the wheel, or into the tree where the package is used in place."""
        if version == "editable":
            directory, output = "", Path(self.root, LAUNCHER)
        else:
            directory = tempfile.mkdtemp(prefix="netkit-")
            output = Path(directory, "netkit")
        self._directory = directory
        problem = self._compile(output)
        machine = None if problem else _machine(output)
        if machine is None:
            problem = problem or "it is for a machine that wheels have no name for"
            output.unlink(missing_ok=True)
            self.app.display_warning(f"The wheel comes without the launcher: {problem}")
            return
        build_data["pure_python"] = False
        # A static executable runs with any C library, and with any Python.
        build_data["tag"] = f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"
        if version != "editable":
            build_data["force_include"][str(output)] = LAUNCHER

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled for the wheel alone."""
        if self._directory:
            shutil.rmtree(self._directory)

    def _compile(self, output: Path) -> str | None:
        """Compile; returns what kept it from that, if anything."""
        preferred = "musl-gcc" if shutil.which("musl-gcc") else "cc"
        compiler = shlex.split(os.environ.get("CC") or preferred)
        if shutil.which(compiler[0]) is None:
            return f"there is no C compiler {compiler[0]}"
        release = f'-DNETKIT_VERSION="{self.metadata.version}"'
        source = str(Path(self.root, LAUNCHER + ".c"))
        compiled = subprocess.run(
            [*compiler, *FLAGS, release, "-o", str(output), source],
            check=False,
            capture_output=True,
            text=True,
        )
        if compiled.returncode != 0:
            return f"{shlex.join(compiler)} cannot compile it:\n{compiled.stderr}"
        return None


def _machine(executable: Path) -> str | None:
    """The machine an ELF executable is for: the compiler may be one for another than this."""
    with executable.open("rb") as file:
        header = file.read(20)
    return MACHINES.get(struct.unpack("<H", header[18:20])[0]) if len(header) == 20 else None
