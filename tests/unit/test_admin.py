"""The command cni-netkit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni_netkit import __version__
from cni_netkit.admin import launcher
from cni_netkit.admin import main as admin
from cni_netkit.admin.parser import commands_of, parser
from cni_netkit.agent import server
from cni_netkit.pages import Address


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
    return admin.main()


def test_every_command_is_carried_out() -> None:
    """What the parser knows the table of functions has, and nothing else."""
    known = [each.prog.removeprefix("cni-netkit ") for each in commands_of(parser())]
    assert sorted(known) == sorted(admin.COMMANDS)
    assert {"list", "nic prepare", "lease add"} <= set(known)


def test_launcher_prints_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a script that puts it where the runtime looks."""
    (tmp_path / "netkit").touch()
    monkeypatch.setattr(launcher, "LAUNCHER", tmp_path / "netkit")
    assert call(monkeypatch, "launcher") == 0
    assert capsys.readouterr() == (f"{tmp_path}/netkit\n", "")


def test_launcher_that_was_not_built_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on standard output, which a script may use."""
    monkeypatch.setattr(launcher, "LAUNCHER", tmp_path / "netkit")
    assert call(monkeypatch, "launcher") == 1
    output, said = capsys.readouterr()
    assert output == ""
    assert "no C compiler" in said


def test_launcher_is_looked_for_where_the_build_puts_it() -> None:
    """Beside its source."""
    assert launcher.LAUNCHER.with_suffix(".c").exists()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to install into, and a launcher to put there."""
    (tmp_path / "launcher").write_bytes(launcher.OURS[0] + b", new")
    monkeypatch.setattr(launcher, "LAUNCHER", tmp_path / "launcher")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_install_puts_the_launcher_in_place(
    monkeypatch: pytest.MonkeyPatch, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Executable, a file of its own, and nothing beside it; a second time nothing changes."""
    assert call(monkeypatch, "install", str(built)) == 0
    assert capsys.readouterr().out == f"{built}/netkit is in place\n"
    assert (built / "netkit").read_bytes() == launcher.OURS[0] + b", new"
    assert (built / "netkit").stat().st_mode & 0o777 == 0o755
    before = (built / "netkit").stat()
    assert call(monkeypatch, "install", str(built)) == 0
    assert capsys.readouterr().out == f"{built}/netkit was in place already\n"
    assert (built / "netkit").stat() == before
    assert list(built.iterdir()) == [built / "netkit"]


@pytest.mark.parametrize("old", launcher.OURS)
def test_install_replaces_an_older_one_by_renaming(
    monkeypatch: pytest.MonkeyPatch, built: Path, old: bytes
) -> None:
    """Who has the old one open keeps it whole."""
    (built / "netkit").write_bytes(old + b", old")
    with (built / "netkit").open("rb") as running:
        assert call(monkeypatch, "install", str(built)) == 0
        assert running.read() == old + b", old"
    assert (built / "netkit").read_bytes().endswith(b", new")


def test_install_makes_a_file_of_a_link(monkeypatch: pytest.MonkeyPatch, built: Path) -> None:
    """A link leads nowhere where the folder is mounted without what it points to."""
    (built / "netkit").symlink_to(launcher.LAUNCHER)
    assert call(monkeypatch, "install", str(built)) == 0
    assert not (built / "netkit").is_symlink()
    assert launcher.LAUNCHER.exists()


def test_install_leaves_alone_what_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (built / "netkit").write_text("something else")
    assert call(monkeypatch, "install", str(built)) == 1
    assert "is something else than netkit: move it away first" in capsys.readouterr().err
    assert (built / "netkit").read_text() == "something else"


def test_install_without_the_mount_says_so(
    monkeypatch: pytest.MonkeyPatch, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It makes no folder, in which nobody would find the launcher."""
    assert call(monkeypatch, "install", f"{built}/none") == 1
    assert f"there is no folder {built}/none: mount the host's" in capsys.readouterr().err
    assert not (built / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "path", "metrics"),
    [
        ((), "/run/cni-netkit/agent.sock", None),
        (("--socket", "/x/y.sock"), "/x/y.sock", None),
        (
            ("--metrics", "127.0.0.1:9100"),
            "/run/cni-netkit/agent.sock",
            Address("127.0.0.1", 9100),
        ),
    ],
)
def test_agent_runs_where_it_shall(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], path: str, metrics: Address | None
) -> None:
    """Its exit status is the command's."""
    seen = []

    def run(*where: object) -> int:
        seen.append(where)
        return 7

    monkeypatch.setattr(server, "run", run)
    assert call(monkeypatch, "agent", *arguments) == 7
    assert seen == [(path, metrics)]


def test_agent_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit status 1."""
    (tmp_path / "file").touch()
    assert call(monkeypatch, "agent", "--socket", f"{tmp_path}/file") == 1
    assert capsys.readouterr().err == (
        f"cni-netkit agent: listen on {tmp_path}/file: there is something that is no socket\n"
    )


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cni-netkit {__version__}\n"


def test_who_reads_need_not_read_to_the_end() -> None:
    """As `cni-netkit schema | head`: no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        command = [sys.executable, "-m", "cni_netkit.admin.main", "schema"]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_agent_needs_no_tables() -> None:
    """Its start is not to wait for rich, nor its memory to hold it."""
    program = (
        "import sys, cni_netkit.admin.main, cni_netkit.agent.server; print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_without_a_command_it_says_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch)
    assert ended.value.code == 2
    assert "usage: cni-netkit" in capsys.readouterr().err
