"""Installing: on Debian roots that debootstrap made, without network, from wheels of this checkout."""

import os
import shutil
from pathlib import Path

import pytest

from tests.install import roots
from tests.install.machine import Machine

TOOLS = {"debootstrap": "debootstrap", "buildah": "buildah", "cc": "gcc", "clang": "clang"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root, or without a tool, it says so."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    reason = "needs root" if os.geteuid() else f"needs {', '.join(missing)}" if missing else ""
    for item in items:
        if reason and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an operator brings along: install.sh, and a folder of wheels for each of two versions."""
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(roots.ROOT / "install.sh", folder)
    for name, version in (("one", roots.OLD), ("two", roots.NEW), ("three", roots.OTHER_FORMAT)):
        shutil.copytree(roots.locked_wheels(), folder / name)
        roots.wheel(folder / name, version)
    return folder


@pytest.fixture
def machine(media: Path, tmp_path: Path) -> Machine:
    """A machine on which nothing of ours is installed."""
    return Machine(tmp_path / "machine", str(roots.node_root()), media)


@pytest.fixture(scope="session")
def _installed(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("installed")
    machine = Machine(folder, str(roots.node_root()), media)
    machine.install("--wheels", "/media/one")
    return machine


@pytest.fixture
def installed(_installed: Machine, tmp_path: Path) -> Machine:
    """A machine that has the older version."""
    return _installed.copy(tmp_path / "installed")


@pytest.fixture(scope="session")
def _upgraded(_installed: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = _installed.copy(tmp_path_factory.mktemp("upgraded"))
    machine.install("--wheels", "/media/two")
    return machine


@pytest.fixture
def upgraded(_upgraded: Machine, tmp_path: Path) -> Machine:
    """A machine that was upgraded from the older version to the newer one."""
    return _upgraded.copy(tmp_path / "upgraded")
