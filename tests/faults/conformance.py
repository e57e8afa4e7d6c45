"""Who is examined for docs/conformance.md, and its tables.

    python -m tests.faults.conformance [COLUMN ...]

writes the table of rows, and the columns that this kernel can have (or those named) of who passes
what, into the page. Once on a kernel with netkit and once on any other makes all of it.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cni_netkit.admin.launcher import path as launcher_path
from cni_netkit.conformance import rows
from cni_netkit.conformance.row import ROWS
from tests.bench.contenders import reference_plugins
from tests.kernel.features import kernel_has_netkit

assert rows  # importing it registers the rows
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"
POINT = re.compile(
    r"^(not )?ok \d+ - ([\w-]+)(?:@([\d.]+))?: .*?(?: # (SKIP|TODO) .*)?$", re.MULTILINE
)
YES, NO, FAILED, SKIPPED = "yes", "no", "**no**", "–"

Verdicts = dict[str, dict[str, str]]
"""Row -> version, or "" where it has but one -> one of the first three above."""


@dataclass(frozen=True)
class Column:
    """A plugin with a configuration; ours are called through launcher and agent."""

    name: str
    conf: Mapping[str, object] | Path
    options: Sequence[str] = ()
    needs_netkit: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is of this checkout."""
        return isinstance(self.conf, Path)


def _reference(kind: str, number: int, **keys: object) -> Mapping[str, object]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.88.{number}.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "1.1.0", "name": f"{kind}-net", "type": kind, **keys, "ipam": ipam}


COLUMNS = (
    Column("netkit", ROOT / "conf" / "10-l3-pair.conflist", needs_netkit=True),
    Column("netkit, veth", ROOT / "conf" / "40-veth-fallback.conflist"),
    Column("ptp", _reference("ptp", 1, ipMasq=True)),
    Column("bridge", _reference("bridge", 2, bridge="cni0", isGateway=True, ipMasq=True)),
    Column(
        "host-device",
        _reference("host-device", 3, device="dev0"),
        ("--exclusive", "--setup", "ip link add dev0 type veth peer name dev0-peer"),
    ),
)


def command(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """`cni-netkit conformance`, as a user types it."""
    program = Path(sys.executable).with_name("cni-netkit")
    return subprocess.run([program, "conformance", *arguments], capture_output=True, text=True)


def examine(column: Column, *options: str) -> Verdicts:
    """Examine who is in a column."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(column.conf, Path):
            plugin, conf = launcher_path(), column.conf
            options = ("--setup", _agent(plugin), *options)
        else:
            plugin, conf = reference_plugins() / column.name, Path(folder, "conf")
            conf.write_text(json.dumps(column.conf))
        done = command("--plugin", plugin, "--conf", conf, *column.options, *options)
    assert done.stdout.startswith("TAP version 14\n"), done.stdout + done.stderr
    return verdicts(done.stdout)


def _agent(launcher: Path) -> str:
    """Start an agent on the row's host, and wait until it answers."""
    program = Path(sys.executable).with_name("cni-netkit")
    asked = f"echo {{}} | CNI_COMMAND=VERSION {launcher}"
    # Without an agent and the Python entry point beside it, the launcher fails.
    wait = f"until {asked}; do :; done"
    return f"exec 2>/run/agent.log; {program} agent & timeout 60 sh -c '{wait}'"


def verdicts(tap: str) -> Verdicts:
    """What a report in TAP says; not of versions to which a row does not apply."""
    found: Verdicts = {}
    for failed, name, version, directive in POINT.findall(tap):
        verdict = (NO if directive == "TODO" else FAILED) if failed else YES
        if directive != "SKIP":
            found.setdefault(name, {})[version] = verdict
    return found


def cell(of_versions: Mapping[str, str]) -> str:
    """What stands in the table: where versions differ, those in which it is not met."""
    kinds = {*of_versions.values()} or {SKIPPED}
    worst = next(each for each in (FAILED, NO, SKIPPED, YES) if each in kinds)
    if len(kinds) == 1:
        return worst
    return f"{worst}: {', '.join(key for key, value in of_versions.items() if value == worst)}"


def told(text: str, version: str) -> str:
    """What a cell says of a version."""
    verdict, _, versions = text.partition(": ")
    return YES if versions and version not in versions.split(", ") else verdict


def table_of_rows() -> str:
    """Every row: what is demanded, how strongly, where that stands."""
    lines = ["| row | | level | section |", "|---|---|---|---|"]
    lines += [f"| `{e.name}` | {e.title} | {e.level.value} | {e.section} |" for e in ROWS]
    return "\n".join(lines)


def cells(page: str) -> dict[str, dict[str, str]]:
    """Who passes what, as the page has it: column -> row -> cell."""
    lines = [re.split(r" *\| *", line)[1:-1] for line in part(page, "results").splitlines()]
    heading = lines[0] if lines else []
    return {
        name: {line[0].strip("`"): line[index] for line in lines[2:]}
        for index, name in enumerate(heading)
        if name in [each.name for each in COLUMNS]
    }


def table_of_results(found: Mapping[str, Mapping[str, str]]) -> str:
    """Who passes what."""
    names = [each.name for each in COLUMNS]
    lines = [f"| row | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in ROWS:
        values = [found.get(name, {}).get(row.name, "") for name in names]
        lines.append(f"| `{row.name}` | {' | '.join(values)} |")
    return "\n".join(lines)


def part(page: str, name: str) -> str:
    """What stands between the marks of a table."""
    return _split(page, name)[1].strip("\n")


def with_part(page: str, name: str, table: str) -> str:
    """The page with another table between the marks."""
    before, _, after = _split(page, name)
    return f"{before}\n\n{table}\n\n{after}"


def _split(page: str, name: str) -> tuple[str, str, str]:
    found = re.fullmatch(rf"(.*<!-- {name} -->)(.*?)(<!-- end -->.*)", page, re.DOTALL)
    assert found, f"{PAGE} has no marks for {name}"
    before, table, after = found.groups()
    return before, table, after


def main(names: Sequence[str]) -> None:
    """Write the tables."""
    page = PAGE.read_text()
    results = cells(page)
    for column in COLUMNS:
        if column.name in names or (not names and column.needs_netkit == kernel_has_netkit()):
            print(column.name)
            found = examine(column)
            results[column.name] = {each.name: cell(found.get(each.name, {})) for each in ROWS}
    page = with_part(page, "rows", table_of_rows())
    PAGE.write_text(with_part(page, "results", table_of_results(results)))


if __name__ == "__main__":
    main(sys.argv[1:])
