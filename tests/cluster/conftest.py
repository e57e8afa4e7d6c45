"""One cluster for all tests: what makes it takes longer than most of them."""

import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import OWN_NUMBER, READY, Cluster, wait_for
from tests.cluster.control_plane import ControlPlane
from tests.cluster.left import nothing_left, what_is_left
from tests.cluster.machine import Machine, addresses
from tests.figures import figures, pytest_terminal_summary
from tests.kernel import judge

__all__ = ["figures", "pytest_terminal_summary"]

ROOT = Path(__file__).parents[2]
NAMES = ("node-1", "node-2", "node-3")

CLUSTER = pytest.StashKey[Cluster]()


def given(name: str) -> Path:
    """What tests/cluster/run has prepared."""
    return Path(os.environ[name])


def teller(config: pytest.Config) -> Callable[[str], None]:
    """Tells how far it is, with the seconds since now."""
    began = time.monotonic()
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    assert reporter
    assert capture

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"cluster: {time.monotonic() - began:5.1f} s: {text}")
            reporter.flush()

    return say


@pytest.fixture(scope="session")
def made(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes that have joined, and no network yet."""
    assert os.readlink("/proc/self/ns/net") != os.readlink("/proc/1/ns/net"), (
        "use tests/cluster/run"
    )
    judge.run("ip", "link", "set", "lo", "up")
    # Not below /run, where each node has its own.
    folder = Path("/mnt")
    judge.run("mount", "-t", "tmpfs", "tmpfs", str(folder))
    programs = given("CNI_NETKIT_KUBERNETES")
    plane = ControlPlane(folder / "plane", programs, addresses(OWN_NUMBER)[0], NAMES)
    machines = {
        name: Machine(name, number, folder / name, programs, plane)
        for number, name in enumerate(NAMES, 1)
    }
    plugins = given("CNI_NETKIT_REFERENCE_PLUGINS")
    cluster = Cluster(plane, machines, given("CNI_NETKIT_IMAGES"), plugins, teller(request.config))
    request.session.stash[CLUSTER] = cluster
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def installed(made: Cluster) -> Cluster:
    """With conf/kubernetes applied as a user would, and all nodes ready."""
    made.plane.kubectl("apply", "-k", str(ROOT / "conf/kubernetes/dra"))
    made.wait_for(lambda: made.ready() == set(made.machines), "all nodes are ready", READY)
    made.say("all nodes are ready")
    return made


@pytest.fixture
def cluster(installed: Cluster) -> Iterator[Cluster]:
    """The cluster; a test's pods go with it, and all that they had on the nodes."""
    yield installed
    installed.delete_pods(installed.pods())
    machines = installed.machines.values()
    try:
        wait_for(lambda: nothing_left(machines), "nothing is left on the nodes")
    except AssertionError as error:
        raise AssertionError(f"{error}: {what_is_left(machines)}") from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """What all programs said, where a test failed; why it did, at once: the end is far away."""
    report = yield
    made = item.session.stash.get(CLUSTER, None)
    if report.failed and made:
        made.say(f"{item.name}: {call.excinfo and call.excinfo.value}")
        report.sections += [
            (f"end of the log of {name}", text) for name, text in made.logs().items()
        ]
    return report
