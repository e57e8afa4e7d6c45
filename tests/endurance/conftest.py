"""The same node as in the kernel tests, and an agent beside it."""

from tests.endurance.agent import agent
from tests.kernel.conftest import conf, launcher, node

__all__ = ["agent", "conf", "launcher", "node"]
