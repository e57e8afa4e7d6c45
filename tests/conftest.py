"""What holds for all tests: on the lab kernel only kernel tests, in CI no skipping."""

import os
import re

import pytest

from tests.selection import leave_out

collect_ignore = ["cluster", "endurance", "faults", "install", "kubernetes", "runtimes"]
"""They take minutes: only commands of their own run them (CONTRIBUTING.md)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--through",
        choices=["process", "agent"],
        default="process",
        help="kernel tests: the plugin in the tests' own process, or through launcher and agent",
    )
    parser.addoption(
        "--rounds", type=int, default=50, help="tests/endurance: how often the agent is killed"
    )
    parser.addoption("--long", action="store_true", help="tests/faults: go on for hours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The lab is for what needs its kernel; the rest has run on the machine's own."""
    if not os.environ.get("CNI_NETKIT_IN_LAB"):
        return
    ours = re.compile("tests/(cluster|faults|kernel|kubernetes|runtimes)/")
    out = [item for item in items if not ours.search(str(item.path))]
    leave_out(config, items, out)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In continuous integration a test that is skipped is a tool that was not installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if reporter and os.environ.get("CI") and skipped:
        reporter.write_line(f"{len(skipped)} skipped, and with CI set nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
