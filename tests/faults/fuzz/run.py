"""Run targets in their cell, from outside: what tests/faults/test_fuzz.py does, and a command."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.faults.fuzz import cell

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
TARGETS = sorted(path.stem for path in HERE.glob("targets/[a-z]*.py"))
ARTIFACTS = ("crash-*", "timeout-*", "oom-*", "leak-*", "slow-unit-*")
DONE = re.compile(r"^#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
AT_ONCE_SECONDS = 20
"""For one execution; a request has its own deadline of a minute, but waits for nobody here."""

MEGABYTES = 1024
GRACE_SECONDS = 120
"""For the start, beyond the time that is given."""

NO_ATHERIS = (
    "there is no atheris for this Python or this machine (on PyPI: CPython 3.11 to 3.14 for x86_64): "
    "the corpus is tried, and nothing new is looked for"
)


def can_fuzz() -> bool:
    """Whether the fuzzer is installed."""
    return find_spec("atheris") is not None


@dataclass(frozen=True)
class Report:
    """What fuzzing a target brought. `finding` has all that is to be known of a failure."""

    target: str
    executions: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    finding: str = ""

    def __str__(self) -> str:
        return (
            f"fuzz {self.target}: {self.executions} executions, {self.edges} edges, "
            f"{self.features} features, {self.corpus} inputs in the corpus, "
            f"{1 if self.finding else 0} findings"
        )


def seeds(target: str) -> list[Path]:
    """The corpus of a target, as it is in the tree."""
    return sorted(path for path in (CORPUS / target).glob("*") if path.is_file())


def replay(target: str, files: Sequence[Path], work: Path) -> str:
    """Try files once; what went wrong, or nothing."""
    done = _in_the_cell(target, work, "replay", *map(str, files), seconds=GRACE_SECONDS)
    return "" if done.returncode == 0 else _told(done)


def fuzz(
    target: str,
    work: Path,
    *,
    runs: int = -1,
    seconds: int = 0,
    seed: int = 0,
    kept: Path | None = None,
) -> Report:
    """Fuzz for so many executions, or so many seconds. `kept`: where what is new is put."""
    found = kept or work / "found"
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed}",
        f"-timeout={AT_ONCE_SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-artifact_prefix={work}/",
    ]  # fmt: skip
    folders = [str(found), str(CORPUS / target)]
    most = (seconds or 3600) + GRACE_SECONDS
    done = _in_the_cell(target, work, "fuzz", *options, *folders, seconds=most)
    counted = DONE.search(done.stderr)
    executions, edges, features, corpus = map(int, counted.groups() if counted else "0000")
    finding = ""
    if done.returncode != 0 or not counted:
        left = [str(path) for pattern in ARTIFACTS for path in work.glob(pattern)]
        finding = f"{_told(done)}\n{left}"
    return Report(target, executions, edges, features, corpus, finding)


def minimise(target: str, found: Path, work: Path) -> None:
    """Replace a corpus by as few of its files, and of those found, as reach what all of them reach."""
    least = work / "least"
    least.mkdir()
    options = ["-merge=1", f"-timeout={AT_ONCE_SECONDS}"]
    folders = map(str, (least, CORPUS / target, found))
    done = _in_the_cell(target, work, "fuzz", *options, *folders, seconds=3600)
    if done.returncode != 0:
        raise RuntimeError(_told(done))
    for path in seeds(target):
        if re.fullmatch("[0-9a-f]{40}", path.name):
            path.unlink()
    for path in least.iterdir():
        shutil.copy(path, CORPUS / target / path.name)


def _in_the_cell(
    target: str, work: Path, *words: str, seconds: float
) -> "subprocess.CompletedProcess[str]":
    command = [*cell.COMMAND, sys.executable, "-m", "tests.faults.fuzz", target, str(work), *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=seconds
    )


def _told(done: "subprocess.CompletedProcess[str]") -> str:
    """What the fuzzer said, without what it always says."""
    passed_over = ("INFO: ", "WARNING: Failed to find", "#")
    said = (done.stderr + done.stdout).splitlines()
    lines = [line for line in said if not line.startswith(passed_over)]
    return "\n".join(line[:2000] for line in lines[-60:])


def main() -> int:
    """Fuzz one target, or all, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--minimise", action="store_true", help="put what is new into the corpus")
    options = parser.parse_args()
    worst = 0
    for target in options.targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            report = fuzz(target, work, seconds=options.seconds)
            print(report, report.finding, sep="\n", flush=True)
            for pattern in ARTIFACTS:
                for path in work.glob(pattern):
                    shutil.copy(path, Path.cwd() / f"{target}-{path.name}")
                    worst = 1
            if options.minimise and not report.finding:
                minimise(target, work / "found", work)
    return worst


if __name__ == "__main__":
    sys.exit(main())
