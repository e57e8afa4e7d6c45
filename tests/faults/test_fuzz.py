"""Hostile input of every kind, guided by coverage: `tests.faults.fuzz` says what a target is.

The corpus, with what was found before, is tried each time. Then the fuzzer goes on from there: for
so many executions and always the same ones, or with --long for minutes and each time others.
"""

from pathlib import Path

import pytest

from tests.faults.fuzz import run

pytestmark = pytest.mark.any_kernel

EXECUTIONS = 1500
SECONDS_OF_A_LONG_RUN = 1200
SEED = 4711


@pytest.mark.parametrize("target", run.TARGETS)
def test_what_is_in_the_corpus_does_no_harm(target: str, tmp_path: Path) -> None:
    """Seeds, what reached further, and what once was a finding."""
    files = run.seeds(target)
    assert files, f"no corpus of {target}"
    assert run.replay(target, files, tmp_path) == ""


@pytest.mark.skipif(not run.can_fuzz(), reason=run.NO_ATHERIS)
@pytest.mark.parametrize("target", run.TARGETS)
def test_nothing_new_does_any_harm(
    target: str, tmp_path: Path, long: bool, figures: list[str]
) -> None:
    """In continuous integration the same inputs each time, so that it says the same each time."""
    if long:
        report = run.fuzz(target, tmp_path, seconds=SECONDS_OF_A_LONG_RUN)
    else:
        report = run.fuzz(target, tmp_path, runs=EXECUTIONS, seed=SEED)
    figures.append(str(report))
    assert report.finding == ""
