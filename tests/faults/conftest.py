"""The same node as in the kernel tests; what was done is told in figures at the end."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.endurance.agent import agent
from tests.faults.kernel_log import Log
from tests.figures import figures, pytest_terminal_summary
from tests.kernel.conftest import conf, fake_nic, host, launcher, node, xdp_program
from tests.kernel.features import kernel_has_netkit
from tests.selection import leave_out

__all__ = [
    "agent",
    "conf",
    "fake_nic",
    "figures",
    "host",
    "launcher",
    "node",
    "pytest_terminal_summary",
    "xdp_program",
]

KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
SHOWN = 4000


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "any_kernel: does not need netkit, nor mind it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs no netkit runs once, on the machine's own kernel and not in the lab."""
    here = Path(__file__).parent
    has = kernel_has_netkit()
    in_lab = bool(os.environ.get("CNI_NETKIT_IN_LAB"))

    def runs(item: pytest.Item) -> bool:
        return not in_lab if item.get_closest_marker("any_kernel") else has

    out = [item for item in items if item.path.is_relative_to(here) and not runs(item)]
    leave_out(config, items, out)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time: with --long."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session", autouse=True)
def kernel_memory() -> Iterator[None]:
    """On a kernel that looks for it: no memory that nobody has any more (kmemleak)."""
    if not KMEMLEAK.exists():
        yield
        return
    KMEMLEAK.write_text("clear")
    yield
    for _ in range(2):  # what was seen once may just be on its way
        KMEMLEAK.write_text("scan")
    found = KMEMLEAK.read_text()
    assert not found, found[:SHOWN]


@pytest.fixture(autouse=True)
def kernel_log() -> Iterator[None]:
    """On a lab kernel: it says nothing meanwhile that no kernel should say."""
    if not os.environ.get("CNI_NETKIT_IN_LAB"):
        yield
        return
    with closing(Log()) as log:
        yield
        alarms = log.alarms()
    assert not alarms, "the kernel's log has\n" + "\n".join(alarms)
