"""The table, the figures that were promised, and the file for later comparison."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from cni_netkit import __version__
from tests.bench.contenders import AGENT, PTP, PYTHON, Cast, compiler
from tests.bench.figures import median, percentile, ratio
from tests.bench.node import ROOT
from tests.bench.parts import FEW, Row, Rows, Sizes

JSON = dict[str, Any]
COLUMNS = "{:24}  {:>5}  {:>9}  {:>9}  {:>7}  {}"


def surroundings(cast: Cast, sizes: Sizes) -> dict[str, str]:
    """What one must know to read the numbers."""
    device = "netkit" if cast.kind == "netkit" else 'veth ("fallback": "veth")'
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores, {_processor()}, load "
        + " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "devices": f"ours: {device}; ptp and bridge: veth",
        "cni-netkit": f"{__version__}, commit {_commit()}",
        "python": f"{platform.python_version()}, pyroute2 {version('pyroute2')}",
        "reference": _reference(cast.reference),
        "launcher": f"{cast.launcher.stat().st_size} bytes, {_compiler()}",
        "runs": f"{sizes.runs} a row (dual stack {sizes.dual_runs}), warm-up not counted",
    }


def table(rows: Rows) -> str:
    """The rows, group by group."""
    head = COLUMNS.format("", "runs", "median", "p99", "ratio", "middle half of the pairs")
    lines = []
    for (group, verb), members in groupby(rows, lambda row: (row.group, row.verb)):
        listed = list(members)
        unit = "" if verb == "kB" else ", ms"
        lines += ["", f"{group}: {verb}{unit}{_compared(listed)}", head]
        lines += [_line(row) for row in listed]
    return "\n".join(lines)


def promised(rows: Rows) -> str:
    """Each figure that was promised, where its parts were measured."""
    lines = [
        f"{figure:52}  {limit:>8g}  {measured:>8.3g}"
        for figure, limit, measured in _figures(rows)
        if measured is not None
    ]
    head = ["", f"{'figure':52}  {'at most':>8}  {'measured':>8}"]
    return "\n".join([*head, *lines] if lines else [])


def save(path: Path, facts: dict[str, str], rows: Rows) -> None:
    """Everything with every sample, as JSON."""
    listed: list[JSON] = [
        {
            "group": row.group,
            "verb": row.verb,
            "who": row.who,
            "median": median(row.samples),
            "p99": percentile(row.samples, 0.99),
            "ratio": _ratio_to(row),
            "samples": row.samples,
        }
        for row in rows
    ]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path.write_text(json.dumps({"time": now, **facts, "rows": listed}, indent=1) + "\n")


def _line(row: Row) -> str:
    compared, spread = "", ""
    if row.against:
        found = ratio(row.samples, row.against.samples)
        compared, spread = f"{found.medians:.3g}", f"{found.low:.3g} - {found.high:.3g}"
    return COLUMNS.format(
        row.who,
        len(row.samples),
        f"{median(row.samples):.2f}",
        f"{percentile(row.samples, 0.99):.2f}",
        compared,
        spread,
    ).rstrip()


def _compared(rows: Rows) -> str:
    """With what the ratios of these rows compare."""
    others = {
        row.against.group if row.against.who == row.who else row.against.who
        for row in rows
        if row.against
    }
    return f" (ratio to: {', '.join(sorted(others))})" if others else ""


def _ratio_to(row: Row) -> JSON | None:
    if row.against is None:
        return None
    found = ratio(row.samples, row.against.samples)
    other = {"group": row.against.group, "who": row.against.who}
    return {"against": other, **vars(found)}


def _figures(rows: Rows) -> list[tuple[str, float, float | None]]:
    """Issue 3, "What it must show"."""
    found = {(row.group, row.verb, row.who): median(row.samples) for row in rows}

    def against_ptp(group: str, verb: str) -> float | None:
        ours, theirs = found.get((group, verb, AGENT)), found.get((group, verb, PTP))
        return ours / theirs if ours and theirs else None

    def own(group: str, verb: str, who: str = AGENT) -> float | None:
        return found.get((group, verb, who))

    crowds = [row for row in rows if row.group.endswith("on the node") and row.verb == "ADD"]
    crowd = [median(row.samples) for row in crowds if row.who == AGENT]
    kept = [median(row.samples) for row in rows if row.verb == "kB"]
    last = next((row.group.split()[0] for row in reversed(crowds)), "")
    cycles = rows[-1].who if kept else ""
    in_process = own("one address", "ADD", PYTHON)
    return [
        ("ADD / ADD of ptp + host-local", 0.25, against_ptp("one address", "ADD")),
        ("the same, dual stack", 0.01, against_ptp("dual stack", "ADD")),
        ("100 ADDs at once, until the last, / ptp", 0.4, against_ptp("100 at once", "ADD")),
        ("DEL / DEL of ptp + host-local", 0.75, against_ptp("one address", "DEL")),
        ("100 DELs at once, until the last, / ptp", 0.2, against_ptp("100 at once", "DEL")),
        ("STATUS through the agent, ms", 2, own("one address", "STATUS")),
        (f"ADD with {last} containers / with {FEW}", 1.2, crowd[1] / crowd[0] if crowd else None),
        (f"memory {cycles} / after 100", 1.1, kept[-1] / kept[0] if kept else None),
        ("in-process ADD, ms", 250, in_process),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "processor unknown"


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _reference(folder: Path) -> str:
    """The reference plugins name themselves when they are called without a verb."""
    done = subprocess.run([folder / "ptp"], env={}, capture_output=True, text=True)
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"{said[0] if said else 'nameless'}, in {folder}"


def _compiler() -> str:
    command = compiler()
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    first = done.stdout.splitlines()[0] if done.stdout else "version unknown"
    shown = ["python" if each == sys.executable else each for each in command]
    return f"{' '.join(shown)} ({first})"
