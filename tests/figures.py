"""What long tests tell beside that they passed: lines that a conftest prints when all has ended."""

import pytest

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed when all has ended: what was done, how often, what was found."""
    return request.config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if told := config.stash.get(FIGURES, []):
        terminalreporter.section("what was done")
        for line in told:
            terminalreporter.write_line(line)
