"""The conformance command without a plugin: what it is told, and its reports."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cni_netkit.conformance import configuration, junit, rows, runner, tap
from cni_netkit.conformance.plugin import Answer, Unmet
from cni_netkit.conformance.row import ROWS, Level, Row
from cni_netkit.conformance.runner import Outcome
from cni_netkit.conformance.world import Subject
from tests.unit.test_admin import call

assert rows
ANSWER = Answer({"CNI_COMMAND": "DEL"}, '{"name": "net"}', 1, '{"code": 7, "msg": "no"}', "a # log")


def a_row(name: str) -> Row:
    (found,) = [each for each in ROWS if each.name == name]
    return found


def outcome(name: str, **keys: object) -> Outcome:
    return Outcome(a_row(name), "1.1.0", **keys)  # type: ignore[arg-type]


def subject(**keys: object) -> Subject:
    given = {"executable": Path("/x"), "configuration": {"ipam": {}}, "path": "/x", **keys}
    return Subject(**given)  # type: ignore[arg-type]


UNMET = {"expected": "DEL succeeds", "found": "exit status 1", "answers": [ANSWER]}
OUTCOMES = [
    outcome("version"),
    outcome("del-again", **UNMET),
    outcome("gc-stale", **UNMET),
    outcome("parallel", skipped="one at a time"),
    outcome("check", broken="no ip"),
]


def test_every_row_says_what_it_is_about() -> None:
    """A title, a sentence with its section, and each name once."""
    assert len({each.name for each in ROWS}) == len(ROWS) > 60
    assert all(each.title and each.section and each.sentence for each in ROWS)
    assert {each.level for each in ROWS} == {*Level}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "a", "cniVersion": "1.0.0", "name": "n", "x": 1}, {"type": "a", "x": 1}),
        ({"plugins": [{"type": "b"}, {"type": "a", "x": 1}]}, {"type": "a", "x": 1}),
        ({"plugins": [{"type": "b"}, {"type": "c"}]}, {"type": "b"}),
        ({"plugins": [{"type": "a", "capabilities": {}, "name": "own"}]}, {"type": "a"}),
    ],
)
def test_the_entry_is_the_plugins(tmp_path: Path, given: object, expected: object) -> None:
    """That of its type, else the first; with the network's name, and without capabilities."""
    (tmp_path / "conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": "n", **given}))  # type: ignore[dict-item]
    found = configuration.read(tmp_path / "conf", Path("/opt/cni/bin/a"))
    assert found == {"cniVersion": "1.0.0", "name": "n", **expected}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"plugins": 3}', '{"plugins": []}', '{"plugins": [1]}']
)
def test_what_is_no_configuration_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "conf").write_text(text)
    with pytest.raises(configuration.Unusable, match=r"/conf: "):
        configuration.read(tmp_path / "conf", Path("/a"))


def test_tap() -> None:
    """Only what must be is "not ok" without TODO; a "#" of a plugin's begins no directive."""
    points = [tap.line(number, each) for number, each in enumerate(OUTCOMES, 1)]
    heads = [each.splitlines()[0].partition(":")[0] for each in points]
    assert heads == [
        *("ok 1 - version", "not ok 2 - del-again", "not ok 3 - gc-stale", "ok 4 - parallel"),
        "not ok 5 - check@1.1.0",
    ]
    assert [each.splitlines()[0].partition(" # ")[2] for each in points] == [
        *("", "", "TODO should, not must", "SKIP one at a time", "")
    ]
    lines = points[1].splitlines()
    assert lines[1] == "  ---"
    assert lines[-1] == "  ..."
    assert '  expected: "DEL succeeds"' in lines
    assert '    stdout: "{\\"code\\": 7, \\"msg\\": \\"no\\"}"' in lines
    assert '    stderr: "a # log"' in lines
    assert tap.summary(OUTCOMES) == "# 1 met, 2 failed, 1 not as recommended, 1 not applicable"


def test_junit(tmp_path: Path) -> None:
    """The same, for programs that read XML."""
    strange = outcome("add", expected="\x00\x1b[31m", found="\udc80", answers=[ANSWER])
    junit.write(tmp_path / "report.xml", "/opt/cni/bin/x", [*OUTCOMES, strange])
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    counted = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": "6", "failures": "2", "errors": "1", "skipped": "2"}
    failure = suite[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "expected: DEL succeeds; found: exit status 1"
    assert "Plugins MUST accept multiple `DEL` calls" in str(failure.text)
    output = suite[1].find("system-out")
    assert output is not None
    assert "standard error: a # log" in str(output.text)


def test_what_applies() -> None:
    """By the versions that the plugin speaks, and by what the configuration is like."""
    names = ("add", "check", "gc-stale", "parallel", "delegate-del")
    chosen = [a_row(each) for each in names]
    found = runner.cases(chosen, ["0.3.1", "0.4.0"], subject(exclusive=True, configuration={}))
    assert [(each.row.name, each.version, each.skipped) for each in found] == [
        ("add", "0.3.1", ""),
        ("add", "0.4.0", ""),
        ("check", "0.4.0", ""),
        ("gc-stale", "1.1.0", "the configuration is for one attachment at a time"),
        ("parallel", "0.4.0", "the configuration is for one attachment at a time"),
        ("delegate-del", "0.4.0", "the configuration names no IPAM plugin"),
    ]
    (case,) = runner.cases([a_row("gc-stale")], ["1.0.0"], subject())
    assert case.skipped == "the plugin does not speak CNI 1.1.0"


@pytest.mark.parametrize(
    ("demand", "found"),
    [
        (lambda it: it.succeeds(), "exit status 1"),
        (lambda it: it.fails_with(4, 6), "code 7"),
        (lambda it: it.names("no", "CNI_IFNAME"), "no CNI_IFNAME"),
        (lambda it: it.prints_nothing(), repr(ANSWER.stdout)),
        (lambda it: Answer({}, "", 0, "{}{}", "").document(), "Extra data"),
        (lambda it: Answer({}, "", 0, "", "").fails(), "exit status 0"),
        (lambda it: Answer({}, "", None, "", "").fails(), "no end within 120 s"),
        (lambda it: Answer({}, "", -11, "", "").fails(), "ended by SIGSEGV"),
        (lambda it: Answer({}, "", 0, "[]", "").result(), "list"),
    ],
)
def test_demands(demand: object, found: str) -> None:
    """What is not as demanded is told."""
    with pytest.raises(Unmet) as unmet:
        demand(ANSWER)  # type: ignore[operator]
    assert found in unmet.value.found


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command prints on standard error where it cannot be meant."""
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "conformance", *words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_misuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is missing at once; names that are none."""
    said = told(monkeypatch, capsys)
    assert "--plugin is missing" in said
    assert "--conf is missing" in said
    assert "there is no x; --list" in told(monkeypatch, capsys, "--row", "x")
    assert "2.0.0 is none of 0.1.0" in told(monkeypatch, capsys, "--versions", "2.0.0")


def test_nothing_can_be_examined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """TAP has words for that."""
    (tmp_path / "conf").write_text("{}")
    given = ("--plugin", str(tmp_path / "x"), "--conf", str(tmp_path / "conf"))
    assert call(monkeypatch, "conformance", *given) == 1
    assert capsys.readouterr().out.startswith(f"Bail out! {tmp_path}/x: ")


def test_the_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row with its sentence; needs neither root nor a plugin."""
    assert call(monkeypatch, "conformance", "--list", "--row", "gc-silent") == 0
    assert capsys.readouterr().out == (
        "gc-silent (must): GC prints nothing on standard output.\n"
        '    2, GC: No output on success, ["error" result structure](#Error) on error.\n'
    )
