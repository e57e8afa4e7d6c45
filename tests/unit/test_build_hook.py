"""hatch_build.py: what is compiled gets into the wheel or the tree, and what cannot be is told."""

import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHER = "cni_netkit/agent/launcher/netkit"
PROGRAM = "cni_netkit/kernel/bpf/xsk.bpf.o"
COMPILERS = ("cc", "gcc", "clang", "as", "ld")

needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="there is no clang")


class App:
    """Stands for hatchling's: it keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout, as far as the hook looks at it."""
    for source in (LAUNCHER + ".c", PROGRAM.removesuffix(".o") + ".c"):
        target = tmp_path / "root" / source
        target.parent.mkdir(parents=True)
        shutil.copy(ROOT / source, target)
    return tmp_path / "root"


@pytest.fixture
def hook(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook without hatchling, which builds have in an environment of their own."""
    interface = types.ModuleType("interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    name = "hatchling"
    for part in ("builders", "hooks", "plugin"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        name += f".{part}"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, name + ".interface", interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.CompiledHook()
    made.root = str(root)
    made.app = App()
    made.metadata = types.SimpleNamespace(version="1.2.3")
    monkeypatch.delenv("CC", raising=False)
    return made


def build(hook: Any, version: str = "standard") -> dict[str, Any]:
    data: dict[str, Any] = {"force_include": {}, "pure_python": True}
    hook.initialize(version, data)
    return data


def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """A PATH on which one of the compilers is not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in set(COMPILERS) - {missing}:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))


@needs_clang
def test_both_get_into_the_wheel(hook: Any, root: Path) -> None:
    """From a folder that is removed afterwards; the checkout stays as it is."""
    data = build(hook)
    assert sorted(data["force_include"].values()) == [LAUNCHER, PROGRAM]
    outputs = [Path(each) for each in data["force_include"]]
    assert all(each.exists() and not each.is_relative_to(root) for each in outputs)
    assert data["pure_python"] is False
    assert hook.app.warnings == []
    hook.finalize("standard", data, "")
    assert not any(each.parent.exists() for each in outputs)
    assert not (root / PROGRAM).exists()


@needs_clang
def test_both_get_into_the_tree_where_it_is_used(hook: Any, root: Path) -> None:
    data = build(hook, "editable")
    assert data["force_include"] == {}
    assert (root / LAUNCHER).exists()
    assert (root / PROGRAM).exists()
    hook.finalize("editable", data, "")
    assert (root / PROGRAM).exists()


def test_without_clang_there_is_no_program(
    hook: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning, as for the launcher; an old one does not stay, and the launcher is not affected."""
    without(tmp_path, monkeypatch, "clang")
    (root / PROGRAM).write_text("of yesterday")
    data = build(hook, "editable")
    (warning,) = hook.app.warnings
    assert warning == "The wheel comes without the XDP program: there is no C compiler clang"
    assert not (root / PROGRAM).exists()
    assert (root / LAUNCHER).exists()
    assert data["pure_python"] is False


@needs_clang
def test_without_cc_there_is_a_pure_wheel_with_the_program(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is for any machine."""
    monkeypatch.setenv("CC", "there-is-none")
    data = build(hook)
    (warning,) = hook.app.warnings
    assert warning.startswith("The wheel comes without the launcher: ")
    assert list(data["force_include"].values()) == [PROGRAM]
    assert (data["pure_python"], "tag" in data) == (True, False)


@needs_clang
def test_what_clang_says_is_told(hook: Any, root: Path) -> None:
    source = root / PROGRAM.replace(".o", ".c")
    source.write_text("no C at all")
    data = build(hook)
    (warning,) = hook.app.warnings
    assert "clang cannot compile it:\n" in warning
    assert "xsk.bpf.c:1:1" in warning
    assert list(data["force_include"].values()) == [LAUNCHER]


@needs_clang
def test_program_is_bpf_without_warnings(tmp_path: Path) -> None:
    """What libbpf looks for is in it, by its sections."""
    source, output = ROOT / PROGRAM.replace(".o", ".c"), tmp_path / "xsk.bpf.o"
    flags = ["-O2", "-g", "-target", "bpf", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["clang", *flags, "-c", "-o", output, source], check=True)
    read = ["readelf", "--wide", "--file-header", "--section-headers", str(output)]
    seen = subprocess.run(
        read, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    assert "Linux BPF" in seen
    for section in ("xdp.frags", ".maps", "license", ".BTF"):
        assert f" {section} " in seen
