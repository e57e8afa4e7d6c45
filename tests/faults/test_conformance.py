"""The conformance runner: who passes what is as the page has it, and what is broken is seen."""

import gzip
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cni_netkit.conformance.row import ROWS
from tests.bench.contenders import reference_plugins
from tests.faults import conformance
from tests.faults.conformance import COLUMNS, PAGE, Column, Verdicts

ON_ANY_KERNEL = [
    pytest.param(each, id=each.name, marks=[] if each.needs_netkit else pytest.mark.any_kernel)
    for each in COLUMNS
]
SPECIFICATION = (
    Path(os.environ.get("CNI_NETKIT_CNITOOL", "/nowhere/tools/cnitool")).parents[1]
    / "usr/share/doc/golang-github-appc-cni-dev/SPEC.md.gz"
)
"""That comes with cnitool in Debian's package."""
MADE = "where this fails, look who is right, then: python -m tests.faults.conformance"


@pytest.mark.any_kernel
def test_the_page_has_every_row() -> None:
    """As the rows say of themselves."""
    page = PAGE.read_text()
    assert conformance.part(page, "rows") == conformance.table_of_rows(), MADE
    found = conformance.cells(page)
    assert conformance.part(page, "results") == conformance.table_of_results(found), MADE
    assert {name: [*rows] for name, rows in found.items()} == {
        column.name: [each.name for each in ROWS] for column in COLUMNS
    }
    assert all(cell for rows in found.values() for cell in rows.values())


@pytest.mark.any_kernel
@pytest.mark.skipif(
    not SPECIFICATION.exists(), reason="no cnitool of Debian: tests/lab/fetch cnitool"
)
def test_sentences_are_the_specifications() -> None:
    """To the letter, but for line breaks; a section that is no number is another document."""

    def plain(text: str) -> str:
        return " ".join(text.split())

    specification = plain(gzip.decompress(SPECIFICATION.read_bytes()).decode())
    assert "This is CNI **spec** version **1.1.0**" in specification
    quoted = [each for each in ROWS if each.section[0].isdigit() and ":" not in each.section]
    assert [e.name for e in quoted if plain(e.sentence) not in specification] == []
    assert {each.section for each in ROWS} - {each.section for each in quoted} == {
        *("0.4.0: Parameters", "contract", "libcni", "skel")
    }


@pytest.mark.parametrize("column", ON_ANY_KERNEL)
def test_who_passes_what(column: Column, long: bool, figures: list[str]) -> None:
    """Examined again; ours, which take longer, in the newest version only unless there is time."""
    options = ["--versions", "1.1.0"] if column.ours and not long else []
    found = conformance.examine(column, *options)
    told = conformance.cells(PAGE.read_text())[column.name]
    differing = {
        f"{row}@{version}": f"{verdict}, the page has {told[row]}"
        for row, versions in found.items()
        for version, verdict in versions.items()
        if conformance.told(told[row], version) != verdict
    }
    assert differing == {}, MADE
    applicable = {row for row, cell in told.items() if cell != conformance.SKIPPED}
    assert {*found} | {"later-verbs"} == applicable
    figures.append(f"conformance of {column.name}: {_counted(found)}")


def _counted(found: Verdicts) -> str:
    every = [verdict for versions in found.values() for verdict in versions.values()]
    words = {"yes": "met", "**no**": "failed", "no": "not as recommended"}
    return ", ".join(f"{every.count(verdict)} {word}" for verdict, word in words.items())


BROKEN = f"""#!{Path(sys.executable).resolve()} -IS
import json, os, subprocess, sys, time

verb, container = (os.environ.get(f"CNI_{{name}}", "") for name in ("COMMAND", "CONTAINERID"))
stdin = sys.stdin.read()
mark = f"/run/netns/{{container.replace('/', '_')}}-seen"

def real():
    done = subprocess.run(["PTP"], input=stdin, stdout=-1, text=True)
    return done.returncode, done.stdout

def answer(status, output=""):
    print(output, end="")
    sys.exit(status)

def fail(code, text="broken"):
    answer(1, json.dumps({{"code": code, "msg": text}}))

"""
"""A plugin around ptp; what it does otherwise comes behind this."""

CHECKS = "check-interface-gone check-address-gone check-route-gone check-container-gone"
CHECKED = "check check-later-route del-others-stay delegate-check gc-other-network gc-valid silent"
"""Where CHECK has to succeed."""

LEFT = "del-leaves-nothing parallel add-failed-then-del del-without-result"
INVALID = "invalid-container invalid-interface invalid-network undecodable unknown-command"
MUTANTS = {
    "VERSION wants CNI_PATH": (
        'if verb == "VERSION" and not os.environ.get("CNI_PATH"): fail(4)',
        "version-alone",
    ),
    "a result in another version": (
        'if verb == "ADD":\n    status, output = real()\n'
        '    answer(status, output.replace("1.1.0", "1.0.0"))',
        "result-version",
    ),
    "no MAC address is right": (
        'status, output = real()\nresult = json.loads(output or "{}")\n'
        'for each in result.get("interfaces", ()): each["mac"] = "02:00:00:00:00:01"\n'
        'if verb == "ADD" and status == 0: answer(0, json.dumps(result))\nanswer(status, output)',
        f"result-interfaces {CHECKED}",
    ),
    "an address that nobody has": (
        'status, output = real()\nanswer(status, output.replace("10.88.1.2/24", "10.88.1.99/24"))',
        f"result-addresses check-address-gone {CHECKED.replace('delegate-check', '')}",
    ),
    "ADD of a name that is taken succeeds": (
        'if verb == "ADD":\n    status, output = real()\n'
        '    answer(0 if "already exists" in output else status, output)',
        "add-name-taken add-all-or-nothing add-failed-then-del error-object",
    ),
    "standard input is cut off": (
        "stdin = stdin[:65536]",
        "add-large-configuration",
    ),
    "the runtime's keys are refused": (
        'if verb == "ADD" and "runtimeConfig" in stdin: fail(7)',
        "add-runtime-keys",
    ),
    "arguments are refused": (
        'if os.environ.get("CNI_ARGS"): fail(4)',
        "add-arguments delegate-environment",
    ),
    "a second DEL fails": (
        'if verb == "DEL" and os.path.exists(mark): fail(999)\n'
        'if verb == "DEL": open(mark, "w").close()',
        "del-again del-without-namespace del-never-added",
    ),
    "a first DEL without ADD fails": (
        'if verb == "ADD": open(mark, "w").close()\n'
        'if verb == "DEL" and not os.path.exists(mark): fail(999)',
        "del-never-added",
    ),
    "DEL needs CNI_NETNS": (
        'if verb == "DEL" and not os.environ.get("CNI_NETNS"): fail(4)',
        "del-without-namespace del-never-added",
    ),
    "a file is left": (
        'if verb == "DEL": open(f"/run/left-{container}", "w").close()',
        LEFT,
    ),
    "a process is left": (
        'if verb == "ADD": subprocess.Popen(["sleep", "1000"], stdin=-3, stdout=-3, stderr=-3, '
        "start_new_session=True)",
        f"{LEFT} add-all-or-nothing delegate-missing-leaves-nothing",
    ),
    "CHECK sees nothing": (
        'if verb == "CHECK": answer(0)',
        f"{CHECKS} check-without-result delegate-check delegate-check-fails",
    ),
    "CHECK prints": ('if verb == "CHECK": status, _ = real(); answer(status, "ok")', "silent"),
    "GC prints": ('if verb == "GC": answer(0, "ok")', "gc-silent"),
    "GC takes everything": (
        'if verb == "GC": subprocess.run("rm -rf /var/lib/cni/networks/*/[0-9]*", shell=True)',
        "gc-valid gc-other-network gc-stale",
    ),
    "STATUS fails": (
        'if verb == "STATUS": fail(50)',
        "status empty-parameters silent delegate-status",
    ),
    "errors have no words": (
        'status, output = real()\nanswer(status, "{}" if status else output)',
        f"error-object missing-variable missing-variables unknown-version {INVALID}",
    ),
    "missing variables are not named": (
        'status, output = real()\nanswer(status, output.replace("CNI_IFNAME", "something"))',
        "missing-variable missing-variables",
    ),
    "what is no verb succeeds": ('if verb == "CONFORMANCE": answer(0)', "unknown-command"),
}
SHORT = ("a second DEL fails", "a file is left", "CHECK sees nothing", "GC takes everything")
ROUND = ("add", "add-name-taken", "del-again", "check", "gc-valid", "gc-silent", "status", "silent")


def not_met(plugin: Path, conf: Path, rows: Sequence[str]) -> set[str]:
    """The rows that a plugin does not meet."""
    chosen = [word for row in rows for word in ("--row", row)]
    path = str(reference_plugins())
    given = ("--plugin", plugin, "--conf", conf, "--cni-path", path, "--versions", "1.1.0")
    done = conformance.command(*given, *chosen)
    found = conformance.verdicts(done.stdout)
    assert found, done.stdout + done.stderr
    return {
        row for row, of in found.items() if {*of.values()} & {conformance.NO, conformance.FAILED}
    }


@pytest.fixture(scope="module")
def ptp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The unbroken plugin and its configuration."""
    (column,) = [each for each in COLUMNS if each.name == "ptp"]
    conf = tmp_path_factory.mktemp("ptp") / "conf"
    conf.write_text(json.dumps(column.conf))
    return reference_plugins() / "ptp", conf


@pytest.mark.any_kernel
def test_what_is_broken_is_seen(
    ptp: tuple[Path, Path], tmp_path: Path, long: bool, figures: list[str]
) -> None:
    """By exactly the rows that are about it; without --long a part of the rows, of some mutants."""
    plugin, conf = ptp
    sound = not_met(plugin, conf, [])
    seen, expected = {}, {}
    for mutant in MUTANTS if long else SHORT:
        change, rows = MUTANTS[mutant]
        broken = tmp_path / "ptp"
        broken.write_text(BROKEN.replace("PTP", str(plugin)) + f"{change}\nanswer(*real())\n")
        broken.chmod(0o755)
        expected[mutant] = set(rows.split()) - sound
        examined = [] if long else [*expected[mutant], *ROUND]
        seen[mutant] = not_met(broken, conf, examined) - sound
    assert seen == expected
    figures.append(
        f"conformance: {len(seen)} plugins that were broken on purpose, seen by their rows"
    )
