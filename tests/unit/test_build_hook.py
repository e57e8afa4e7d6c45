"""hatch_build.py: what is compiled gets into the wheel or the tree, and what cannot be is told."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHER = "cni_netkit/agent/launcher/netkit"
PROGRAM = "cni_netkit/kernel/bpf/xsk.bpf.o"
PROTOCOLS = tuple(f"cni_netkit/dra/{each}.proto" for each in ("plugin", "registration", "health"))
STUBS = {
    each.removesuffix(".proto") + kind for each in PROTOCOLS for kind in ("_pb2.py", "_pb2_grpc.py")
}
COMPILERS = ("cc", "gcc", "clang", "as", "ld")
COMPLETIONS = {
    "share/bash-completion/completions/cni-netkit",
    "share/zsh/site-functions/_cni-netkit",
    "share/fish/vendor_completions.d/cni-netkit.fish",
}
MANUAL = "share/man/man8/cni-netkit.8"

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
    for source in (LAUNCHER + ".c", PROGRAM.removesuffix(".o") + ".c", *PROTOCOLS):
        target = tmp_path / "root" / source
        target.parent.mkdir(parents=True, exist_ok=True)
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
    data: dict[str, Any] = {"force_include": {}, "shared_data": {}, "pure_python": True}
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
    assert set(data["force_include"].values()) == {LAUNCHER, PROGRAM, *STUBS}
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
    assert (data["force_include"], data["shared_data"]) == ({}, {})
    assert all((root / each).exists() for each in (LAUNCHER, PROGRAM, *STUBS))
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
    assert set(data["force_include"].values()) == {PROGRAM, *STUBS}
    assert (data["pure_python"], "tag" in data) == (True, False)


@needs_clang
def test_what_clang_says_is_told(hook: Any, root: Path) -> None:
    source = root / PROGRAM.replace(".o", ".c")
    source.write_text("no C at all")
    data = build(hook)
    (warning,) = hook.app.warnings
    assert "clang cannot compile it:\n" in warning
    assert "xsk.bpf.c:1:1" in warning
    assert set(data["force_include"].values()) == {LAUNCHER, *STUBS}


def test_without_grpcio_tools_there_are_no_stubs(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the DRA driver alone needs."""
    monkeypatch.setitem(sys.modules, "grpc_tools", None)
    data = build(hook)
    (warning,) = hook.app.warnings
    assert warning.startswith("The wheel comes without the DRA driver's stubs: ")
    assert not STUBS & set(data["force_include"].values())


def shared(data: dict[str, Any]) -> dict[str, str]:
    """What goes into the wheel for the system to find: path and text."""
    return {path: Path(made).read_text() for made, path in data["shared_data"].items()}


def test_man_page_and_completions_get_into_the_wheel(hook: Any, root: Path) -> None:
    """Made from the parser; the shells propose files and NICs where those are wanted."""
    path = list(sys.path)
    data = build(hook)
    assert sys.path == path
    made = shared(data)
    assert set(made) == {MANUAL, *COMPLETIONS}
    for each in COMPLETIONS:
        assert "prepare" in made[each], each
        assert "ls /sys/class/net" in made[each], each
    assert made[MANUAL].startswith(".TH CNI-NETKIT 8")
    assert not any(Path(each).is_relative_to(root) for each in data["shared_data"])
    hook.finalize("standard", data, "")
    assert not any(Path(each).exists() for each in data["shared_data"])


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        (["nic", "pre"], {"prepare"}),
        (["lease", ""], {"add", "remove"}),
        (["gc", "--d"], {"--dry-run"}),
        (["nic", "restore", ""], set(os.listdir("/sys/class/net"))),
        (["doctor", "/etc/hos"], {"/etc/hostname", "/etc/hosts"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(hook: Any, words: list[str], proposed: set[str]) -> None:
    """With the file alone, as for who has no bash-completion."""
    (path,) = [each for each, to in build(hook)["shared_data"].items() if "bash" in to]
    script = (
        f"source {path}; COMP_WORDS=(cni-netkit {shlex.join(words)}); COMP_CWORD={len(words)}; "
        "$(complete -p cni-netkit | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert proposed <= set(done.stdout.split())


def test_without_shtab_there_is_a_wheel_without_completions(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; the man page needs nothing."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    made = shared(build(hook))
    assert set(made) == {MANUAL}
    assert "The wheel comes without completions: there is no shtab" in hook.app.warnings


def test_what_the_wheel_shares_is_there() -> None:
    """A file that was renamed would end every build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shares = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert "docs" in shares
    assert [each for each in shares if not (ROOT / each).exists()] == []
    assert {path for path in shares if shares[path] != f"share/cni-netkit/{path}"} == set()
    # What the documents link to is there, too: every document is, with its folder.
    assert {path.name for path in ROOT.glob("*.md")} <= set(shares)


@needs_clang
def test_built_elsewhere_both_are_the_same(
    hook: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: a release can be built again by whoever doubts it."""
    elsewhere = shutil.copytree(root, tmp_path / "else" / "where")
    made = []
    for each in (root, elsewhere):
        monkeypatch.chdir(each)
        hook.root = str(each)
        build(hook, "editable")
        made.append([(each / output).read_bytes() for output in (LAUNCHER, PROGRAM)])
    assert made[0] == made[1]


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
