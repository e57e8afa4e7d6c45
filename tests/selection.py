"""Which of the collected tests run."""

from collections.abc import Collection

import pytest


def leave_out(
    config: pytest.Config, items: list[pytest.Item], out: Collection[pytest.Item]
) -> None:
    """Deselect some of the items, as -k does."""
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]
