"""The command cni-netkit."""

import sys
from pathlib import Path

import pytest

from cni_netkit import __version__
from cni_netkit.admin import main as admin
from cni_netkit.agent import server


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cni-netkit", *arguments])
    return admin.main()


def test_launcher_prints_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a script that puts it where the runtime looks."""
    (tmp_path / "netkit").touch()
    monkeypatch.setattr(admin, "LAUNCHER", tmp_path / "netkit")
    assert call(monkeypatch, "launcher") == 0
    assert capsys.readouterr() == (f"{tmp_path}/netkit\n", "")


def test_launcher_that_was_not_built_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on standard output, which a script may use."""
    monkeypatch.setattr(admin, "LAUNCHER", tmp_path / "netkit")
    assert call(monkeypatch, "launcher") == 1
    output, said = capsys.readouterr()
    assert output == ""
    assert "no C compiler" in said


def test_launcher_is_looked_for_where_the_build_puts_it() -> None:
    """Beside its source."""
    assert admin.LAUNCHER.with_suffix(".c").exists()


@pytest.mark.parametrize(
    ("arguments", "path"),
    [((), "/run/cni-netkit/agent.sock"), (("--socket", "/x/y.sock"), "/x/y.sock")],
)
def test_agent_runs_where_it_shall(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], path: str
) -> None:
    """Its exit status is the command's."""
    seen = []

    def run(where: str) -> int:
        seen.append(where)
        return 7

    monkeypatch.setattr(server, "run", run)
    assert call(monkeypatch, "agent", *arguments) == 7
    assert seen == [path]


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


def test_without_a_command_it_says_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch)
    assert ended.value.code == 2
    assert "usage: cni-netkit" in capsys.readouterr().err
