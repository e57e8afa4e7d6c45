"""The table of tests/runtimes: nothing that did not work may look as if it did."""

from tests.runtimes.table import table

COLUMNS = [("podman", "agent"), ("cnitool", "agent")]


def test_each_outcome_has_its_cell_and_reasons_stand_below() -> None:
    outcomes = {
        ("podman", "agent", "test_l3_pair"): "ok",
        ("cnitool", "agent", "test_l3_pair"): "FAILED",
        ("podman", "agent", "test_killed"): "ok",
        ("cnitool", "agent", "test_killed"): "not applicable: nothing runs",
        ("podman", "agent", "test_mac"): "skipped: no tool",
        ("cnitool", "agent", "test_mac"): "not applicable: nothing runs",
    }
    assert table(outcomes, COLUMNS).splitlines() == [
        "         podman       cnitool",
        "         agent        agent",
        "killed   ok           n/a (1)",
        "l3 pair  ok           FAILED",
        "mac      skipped (2)  n/a (1)",
        "(1) nothing runs",
        "(2) no tool",
    ]


def test_a_test_that_did_not_end_is_no_success() -> None:
    """A guest that crashed has told nothing."""
    outcomes = {("podman", "agent", "test_mac"): "ok"}
    assert table(outcomes, COLUMNS).splitlines()[-1].split() == ["mac", "ok", "no", "result"]
