"""The man page and --help: made from one parser, nothing left out, examples that work."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cni_netkit.admin import parser as command_line
from cni_netkit.admin.manual import page
from cni_netkit.admin.parser import EXAMPLES, commands_of, parser
from tests.unit.test_admin import call

ROOT = Path(__file__).parents[2]
COMMANDS = {each.prog: each for each in commands_of(parser())}


def examples() -> list[str]:
    """All that --help proposes to type."""
    of_commands = [each.epilog or "" for each in COMMANDS.values()]
    lines = [line.strip() for text in of_commands for line in text.splitlines()[1:]]
    return [*EXAMPLES, *lines]


def test_every_command_has_examples() -> None:
    assert [prog for prog, each in COMMANDS.items() if not re.search(prog, each.epilog or "")] == []


@pytest.mark.parametrize("example", [each for each in examples() if "COMMAND" not in each])
def test_examples_are_understood(example: str) -> None:
    """As a shell passes them on, to the last word."""
    (own,) = [part for part in re.split(r"[|>]", example) if "cni-netkit" in part]
    words = shlex.split(own)
    assert words.pop(0) == "cni-netkit"
    assert parser().parse_args(words).name.startswith("cni-netkit")


def test_help_says_where_to_read_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Examples, exit statuses, the man page, and a folder that is there; in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        call(monkeypatch, "--help")
    said = capsys.readouterr().out
    for each in ("\nexamples:\n", "\nexit status:\n", "  man cni-netkit\n"):
        assert each in said
    for prog in COMMANDS:
        assert re.search(rf"\n    {prog.split()[1]}\s", said)
    folder = Path(said.split()[-1])
    assert (folder / "admin.md").exists()
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("prog", COMMANDS)
def test_help_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prog: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *prog.split()[1:], "--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {prog}")
    assert "\nexamples:\n" in said


def test_documents_of_an_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the name that stays, where install.sh has given it one; another version by its own."""
    assert Path(command_line.documents()) == ROOT / "docs"
    (tmp_path / "current").symlink_to("versions/two")
    for name, shown in (("one", "versions/one"), ("two", "current")):
        prefix = tmp_path / "versions" / name
        package = prefix / "lib" / "python3" / "site-packages" / "cni_netkit"
        package.mkdir(parents=True)
        monkeypatch.setattr(command_line, "__file__", str(package / "admin" / "parser.py"))
        monkeypatch.setattr(sys, "prefix", str(prefix))
        assert command_line.documents() == f"{tmp_path}/{shown}/share/cni-netkit/docs"


def rendered() -> str:
    """The page as man shows it, in one very long line a paragraph."""
    command = ["groff", "-man", "-Tutf8", "-P-cbou", "-rLL=2000n", "-ww"]
    done = subprocess.run(
        command,
        input=page(),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not shutil.which("groff"), reason="there is no groff")
def test_page_is_sound_and_has_everything() -> None:
    """Every command with all that it takes, in words, as it is typed; no warning of groff's."""
    text = rendered()
    for prog, command in COMMANDS.items():
        assert re.search(rf"^ +{prog}\b", text, re.MULTILINE)
        for action in command._actions:
            for option in action.option_strings[-1:]:
                assert option in text or option == "--help", option
            if action.dest != "help":
                assert str(action.help) in text, action
    for example in examples():
        assert example in text, example
    for section in ("NAME", "SYNOPSIS", "EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO"):
        assert re.search(rf"^{section}$", text, re.MULTILINE), section
    assert "cni-netkit - what there is on this node" in text


def test_page_needs_no_package() -> None:
    """Where a wheel is built there is nothing but the standard library and the build tools."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cni_netkit.admin.manual as it"
    command = [sys.executable, "-I", "-S", "-c", f"{program}; print(it.page(), end='')"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", page())


def test_page_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package can be built again: no width of a terminal, no path of this machine."""
    made = []
    for columns in ("30", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        made.append(page())
    assert made[0] == made[1]
    assert str(ROOT) not in page()
    assert "%(" not in page()
