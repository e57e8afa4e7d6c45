"""The same node as in the kernel tests, and an agent beside it."""

from pathlib import Path

import pytest

from tests.endurance.agent import agent
from tests.kernel.conftest import compiled_launcher, conf, node

__all__ = ["agent", "conf", "node"]


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that waits for no agent: here a new one comes when all have been answered."""
    return compiled_launcher(tmp_path_factory.mktemp("launcher"), "-DABSENT_MS=0")
