"""Run each runtime, each way, in a guest of its own, and print the table: see tests/runtimes/run."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tests.runtimes.conftest import RUNTIMES
from tests.runtimes.runtime import ROOT
from tests.runtimes.table import FAILED, Key, table

WAYS = {"agent": "agent", "process": "in-process"}
GUESTS = 2
"""How many at the same time: so many cores has a small machine."""

SECONDS = 1200
NOTHING_CHOSEN = 5
"""pytest's exit status where no test was left to run."""


def main() -> int:
    """Parse the command line, run all, print the table; 1 if anything failed or is missing."""
    parser = argparse.ArgumentParser(prog="tests/runtimes/run", description=__doc__)
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="may be repeated")
    parser.add_argument("--through", action="append", choices=WAYS, help="may be repeated")
    arguments, others = parser.parse_known_args()
    in_lab = bool(os.environ.get("CNI_NETKIT_RUNTIMES_IN_LAB"))
    if len(os.sched_getaffinity(0)) < 2 * GUESTS:
        os.environ.setdefault("CNI_NETKIT_LAB_CPUS", "1")
    columns: list[tuple[str, str]]
    columns = list(product(arguments.runtime or RUNTIMES, arguments.through or WAYS))
    with (
        tempfile.TemporaryDirectory(prefix="cni-netkit-runtimes-", dir="/var/tmp") as folder,
        ThreadPoolExecutor(GUESTS if in_lab else 1) as executor,
    ):
        ran = list(
            executor.map(
                lambda each: run(each[0], each[1], Path(folder), others, in_lab=in_lab), columns
            )
        )
    outcomes = {key: end for part, _ in ran for key, end in part.items()}
    print()
    print(table(outcomes, [(runtime, WAYS[way]) for runtime, way in columns]))
    worked = all(status in (0, NOTHING_CHOSEN) for _, status in ran)
    return 0 if worked and outcomes and FAILED not in outcomes.values() else 1


def run(
    runtime: str, way: str, folder: Path, others: list[str], *, in_lab: bool
) -> tuple[dict[Key, str], int]:
    """One runtime, one way; what each test ended with, and pytest's exit status."""
    file = folder / f"{runtime}-{way}.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/runtimes"]
    command += ["--runtime", runtime, "--through", way, "--table", str(file), *others]
    if in_lab:
        command = [str(ROOT / "tests" / "lab" / "run"), "--seconds", str(SECONDS), *command]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    took = f"{time.monotonic() - began:.0f} s"
    if done.returncode in (0, NOTHING_CHOSEN):
        print(f"{runtime}, {WAYS[way]}: {took}", flush=True)
    else:
        print(f"{done.stdout}{runtime}, {WAYS[way]}: FAILED after {took}", flush=True)
    listed = json.loads(file.read_text()) if file.exists() else []
    ended = {(name, WAYS[through], test): end for name, through, test, end in listed}
    return ended, done.returncode


if __name__ == "__main__":
    sys.exit(main())
