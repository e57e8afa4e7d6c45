"""The same node as in the kernel tests; what was done is told in figures at the end."""

import os
from pathlib import Path

import pytest

from tests.endurance.agent import agent
from tests.kernel.conftest import conf, fake_nic, host, launcher, node, xdp_program
from tests.kernel.features import kernel_has_netkit

__all__ = ["agent", "conf", "fake_nic", "host", "launcher", "node", "xdp_program"]

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []
    config.addinivalue_line("markers", "any_kernel: does not need netkit, nor mind it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs no netkit runs once, on the machine's own kernel and not in the lab."""
    here = Path(__file__).parent
    has = kernel_has_netkit()
    in_lab = bool(os.environ.get("CNI_NETKIT_IN_LAB"))

    def runs(item: pytest.Item) -> bool:
        return not in_lab if item.get_closest_marker("any_kernel") else has

    out = [item for item in items if item.path.is_relative_to(here) and not runs(item)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time: with --long."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed when all has ended: what was done, how often, what was found."""
    return request.config.stash[FIGURES]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("what was done")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)
