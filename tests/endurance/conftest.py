"""The same node as in the kernel tests."""

from tests.kernel.conftest import conf, launcher, node

__all__ = ["conf", "launcher", "node"]
