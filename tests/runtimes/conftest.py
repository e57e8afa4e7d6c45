"""One runtime after the other, each on a node of its own; a line of the table for each test."""

import itertools
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import judge
from tests.kernel.conftest import own_node
from tests.runtimes.cnitool import Cnitool
from tests.runtimes.containerd import ContainerdPods
from tests.runtimes.podman import Podman
from tests.runtimes.runtime import JSON, Place, Runtime
from tests.runtimes.site import Agent, Site, install
from tests.runtimes.table import FAILED, OK
from tests.selection import leave_out

RUNTIMES: dict[str, Callable[[Place], Runtime]] = {
    "containerd-1.6": lambda place: _containerd(place, "1.6"),
    "containerd-1.7": lambda place: _containerd(place, "1.7"),
    "containerd-2": lambda place: _containerd(place, "2"),
    "podman": Podman,
    "cnitool": Cnitool,
}
KINDS: dict[str, type[Runtime]] = {"podman": Podman, "cnitool": Cnitool}
IN_PROCESS_IN_FULL = ("containerd-2", "cnitool")
"""A Python for each request takes seconds on the lab kernel; what is asked for is the same."""

IN_PROCESS = ("l3_pair", "pair_with_leased_queues", "stopped_twice")
"""In-process, the tests for the other runtimes."""

HANDLER = "leasing"

numbers = itertools.count(1)

outcomes: dict[tuple[str, str], str] = {}
"""By runtime and test: ok, FAILED, or why there is none."""


def _containerd(place: Place, series: str) -> ContainerdPods:
    """One with a handler that a RuntimeClass may stand for."""
    return ContainerdPods(place, series, {HANDLER: place.folder / HANDLER})


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("runtimes")
    group.addoption("--runtime", action="append", choices=RUNTIMES, help="which; may be repeated")
    group.addoption("--table", type=Path, help="write what each test ended with there, as JSON")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test on each runtime."""
    if "site" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--runtime") or list(RUNTIMES)
        metafunc.parametrize("site", chosen, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not concern a runtime, and say why in the table."""
    out = []
    for item in items:
        key = _key(item)
        if key and (why := _why_not(*key, config.getoption("--through"))):
            outcomes[key] = why
            out.append(item)
    leave_out(config, items, out)


def _why_not(runtime: str, test: str, through: str) -> str:
    name = test.removeprefix("test_")
    lacks = KINDS.get(runtime, ContainerdPods).lacks
    if through == "process":
        lacks = {"agent_restarted": "there is no agent", **lacks}
        if name not in (*lacks, *IN_PROCESS) and runtime not in IN_PROCESS_IN_FULL:
            return f"left out: {' and '.join(IN_PROCESS_IN_FULL)} stand for all in-process"
    return f"not applicable: {lacks[name]}" if name in lacks else ""


def _key(item: pytest.Item) -> tuple[str, str] | None:
    """Runtime and test, of a test on a runtime."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    runtime = item.callspec.params.get("site")
    return (str(runtime), str(item.originalname)) if runtime else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note how it ended: the worst of set-up, test and tear-down."""
    report = yield
    if key := _key(item):
        if report.failed:
            outcomes[key] = FAILED
        elif report.skipped:
            outcomes[key] = f"skipped: {report.longrepr[2]}"
        else:
            outcomes.setdefault(key, OK)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table's lines."""
    file = session.config.getoption("--table")
    if file:
        through = session.config.getoption("--through")
        listed = [[runtime, through, test, end] for (runtime, test), end in outcomes.items()]
        file.write_text(json.dumps(listed))


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A node with one runtime."""
    folder = tmp_path_factory.mktemp(str(request.param))
    (folder / "networks").mkdir()
    (folder / "runtime").mkdir()
    with own_node() as node:
        judge.run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        Path("/run/containerd").mkdir(exist_ok=True)
        judge.run("mount", "-t", "tmpfs", "tmpfs", "/run/containerd")
        agent = Agent(folder)
        if through_agent := request.config.getoption("--through") == "agent":
            agent.start()
        place = Place(
            folder / "runtime",
            install(folder / "plugins"),
            folder / "networks",
            {"CNI_NETKIT_SOCKET": agent.socket},
        )
        runtime = RUNTIMES[request.param](place)
        try:
            runtime.start()
            yield Site(node, runtime, agent if through_agent else None)
        finally:
            runtime.end()
            agent.close()


@pytest.fixture(autouse=True)
def nothing_is_left(site: Site) -> Iterator[None]:
    """What a test has started it has removed, and no trace remains: links, addresses, records..."""
    before = site.world()
    yield
    # Of a test that failed.
    site.remove(*site.pods)
    site.node.clean_up()
    try:
        judge.wait_for(lambda: site.world() == before, "the world is as before")
    except AssertionError:
        after = site.world()
        # Item by item: pytest shows what differs.
        assert {key: after[key] for key in before if after[key] != before[key]} == {
            key: before[key] for key in before if after[key] != before[key]
        }


@pytest.fixture
def network(site: Site) -> Callable[..., JSON]:
    """Put a network into force: an l3 pair with one IPv4 address unless told otherwise."""

    def configure(*, dual: bool = False, chained: tuple[JSON, ...] = (), **keys: Any) -> JSON:
        number = next(numbers)
        ranges = [[{"subnet": f"10.{number}.0.0/24"}]]
        routes = [{"dst": "0.0.0.0/0"}]
        if dual:
            ranges.append([{"subnet": f"fd00:{number}::/64"}])
            routes.append({"dst": "::/0"})
        ours = {
            "type": "netkit",
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            **keys,
        }
        conflist = {
            "cniVersion": site.runtime.newest,
            "name": f"net{number}",
            "plugins": [ours, *chained],
        }
        site.configure(conflist)
        return conflist

    return configure


Network = Callable[..., JSON]
