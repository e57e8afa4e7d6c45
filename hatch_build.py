"""Build hook: launcher, XDP program, gRPC's stubs, man page and completions into the wheel.

Each where there is what makes it: a compiler, grpcio-tools, for the shells' completions shtab. What
cannot be made is told, and the wheel comes without it.

The launcher makes it a wheel for one machine, without it it is a pure one. The XDP program is BPF,
the same for all machines, and takes clang.

CC names the compiler, with options if need be; a cross compiler makes a wheel for its machine:
`CC="python -m ziglang cc -target aarch64-linux-musl" python -m build --wheel`
Without it musl's is preferred: a static program of glibc asks the processor for its features when
it starts, and each such question leaves a virtual machine (0.53 ms instead of 0.19;
docs/decisions/D-14.md).
"""

import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LAUNCHER = "cni_netkit/agent/launcher/netkit"
FLAGS = ("-O2", "-static", "-s", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")
PROGRAM = "cni_netkit/kernel/bpf/xsk.bpf"
PROGRAM_FLAGS = ("-O2", "-g", "-target", "bpf", "-std=gnu11", "-Wall", "-Wextra")
"""Without -g there are no types (BTF), from which libbpf knows what the map is."""

PROTOCOLS = tuple(f"cni_netkit/dra/{name}.proto" for name in ("plugin", "registration", "health"))

MANUAL = "share/man/man8/cni-netkit.8"
COMPLETIONS = {
    "bash": "share/bash-completion/completions/cni-netkit",
    "zsh": "share/zsh/site-functions/_cni-netkit",
    "fish": "share/fish/vendor_completions.d/cni-netkit.fish",
}
"""Where the shells look below /usr and /usr/local."""

NICS = "ls /sys/class/net"
"""What a shell calls to complete a NIC."""

MACHINES = {62: "x86_64", 183: "aarch64"}
"""EM_* of include/uapi/linux/elf-em.h, and the names of wheel tags."""


class CompiledHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles netkit.c and xsk.bpf.c, and makes what is made from the parser."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put it all into the wheel, or what is compiled into the tree that is used in place."""
        self._directory = "" if version == "editable" else tempfile.mkdtemp(prefix="netkit-")
        launcher = self._output(LAUNCHER)
        problem = self._compile(launcher)
        machine = None if problem else _machine(launcher)
        if machine is None:
            problem = problem or "it is for a machine that wheels have no name for"
            self._go_without("launcher", launcher, problem)
        else:
            build_data["pure_python"] = False
            # A static executable runs with any C library, and with any Python.
            build_data["tag"] = f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"
            self._include(build_data, launcher, LAUNCHER)
        program = self._output(PROGRAM + ".o")
        if problem := self._compile_program(program):
            self._go_without("XDP program", program, problem)
        else:
            self._include(build_data, program, PROGRAM + ".o")
        self._generate(build_data)
        if self._directory:
            self._share(build_data)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled for the wheel alone."""
        if self._directory:
            shutil.rmtree(self._directory)

    def _output(self, path: str) -> Path:
        return Path(self._directory or self.root, Path(path).name if self._directory else path)

    def _include(self, build_data: dict[str, Any], output: Path, path: str) -> None:
        if self._directory:
            build_data["force_include"][str(output)] = path

    def _generate(self, build_data: dict[str, Any]) -> None:
        """Stubs of what a kubelet and the DRA driver say to each other."""
        if find_spec("grpc_tools") is None:
            self.app.display_warning(
                "The wheel comes without the DRA driver's stubs: there is no grpcio-tools"
            )
            return
        target = self._directory or self.root
        options = [
            f"--proto_path={self.root}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
        ]
        sources = [str(Path(self.root, each)) for each in PROTOCOLS]
        # As a process: imported, it would change sys.path.
        command = [sys.executable, "-m", "grpc_tools.protoc", *options, *sources]
        made = subprocess.run(command, check=False, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"protoc refuses one of {', '.join(PROTOCOLS)}:\n{made.stderr}")
        for protocol in PROTOCOLS:
            for kind in ("_pb2.py", "_pb2_grpc.py"):
                path = protocol.removesuffix(".proto") + kind
                self._include(build_data, Path(target, path), path)

    def _share(self, build_data: dict[str, Any]) -> None:
        """Man page and completions, for where the system looks for them."""
        # The package's own parser, which needs nothing that is not there when it is built.
        sys.path.insert(0, self.root)
        try:
            for path, text in self._texts():
                made = Path(self._directory, path)
                made.parent.mkdir(parents=True, exist_ok=True)
                made.write_text(text)
                build_data["shared_data"][str(made)] = path
        finally:
            sys.path.remove(self.root)

    def _texts(self) -> Iterator[tuple[str, str]]:
        from cni_netkit.admin.manual import page

        yield MANUAL, page()
        try:
            import shtab
        except ImportError:
            self.app.display_warning("The wheel comes without completions: there is no shtab")
            return
        for shell, path in COMPLETIONS.items():
            yield path, shtab.complete(_completed(shtab), shell=shell)

    def _go_without(self, what: str, output: Path, problem: str) -> None:
        output.unlink(missing_ok=True)
        self.app.display_warning(f"The wheel comes without the {what}: {problem}")

    def _compile(self, output: Path) -> str | None:
        """Compile the launcher; returns what kept it from that, if anything."""
        preferred = "musl-gcc" if shutil.which("musl-gcc") else "cc"
        compiler = shlex.split(os.environ.get("CC") or preferred)
        release = f'-DNETKIT_VERSION="{self.metadata.version}"'
        source = str(Path(self.root, LAUNCHER + ".c"))
        return _run(compiler, *FLAGS, release, "-o", str(output), source)

    def _compile_program(self, output: Path) -> str | None:
        """Compile the XDP program; returns what kept it from that, if anything."""
        source = str(Path(self.root, PROGRAM + ".c"))
        # Built elsewhere it is to be the same: without where it was built.
        nowhere = f"-ffile-prefix-map={self.root}=."
        return _run(["clang"], *PROGRAM_FLAGS, nowhere, "-c", "-o", str(output), source)


def _completed(shtab: ModuleType) -> ArgumentParser:
    """The parser, each argument with what a shell can propose for it."""
    from cni_netkit.admin.parser import commands_of, parser

    proposals = {
        **dict.fromkeys(("conflist", "valid", "socket"), shtab.FILE),
        "folder": shtab.DIRECTORY,
        "device": shtab.cmd(NICS),
    }
    made = parser()
    for command in commands_of(made):
        for action in command._actions:
            if action.dest in proposals:
                action.complete = proposals[action.dest]  # type: ignore[attr-defined]
    return made


def _run(compiler: list[str], *arguments: str) -> str | None:
    if shutil.which(compiler[0]) is None:
        return f"there is no C compiler {compiler[0]}"
    compiled = subprocess.run([*compiler, *arguments], check=False, capture_output=True, text=True)
    if compiled.returncode != 0:
        return f"{shlex.join(compiler)} cannot compile it:\n{compiled.stderr}"
    return None


def _machine(executable: Path) -> str | None:
    """The machine an ELF executable is for: the compiler may be one for another than this."""
    with executable.open("rb") as file:
        header = file.read(20)
    return MACHINES.get(struct.unpack("<H", header[18:20])[0]) if len(header) == 20 else None
