"""The examples in conf/, ready to be used by cnitool: fixtures of conftest.py."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ethtool.fake import FakeNic
from tests.kernel.chain import PLUGINS
from tests.kernel.cnitool import Cnitool
from tests.kernel.conftest import JSON, Node, own_agent

CONF = Path(__file__).parents[2] / "conf"
EXAMPLES = sorted(CONF.glob("*.conflist"))
"""Those in conf/meta are for other programs, see test_meta.py.

What is in conf/kubernetes is a template, which `cni-netkit node` completes: see tests/cluster.
"""


@pytest.fixture
def cnitool(tmp_path: Path) -> Cnitool:
    """cnitool; its cache lies under /var/lib/cni, which is this test's own."""
    return Cnitool(tmp_path)


@pytest.fixture
def with_nic(
    node: Node, cnitool: Cnitool, fake_nic: Callable[..., FakeNic], launcher: Path
) -> Iterator[Callable[[JSON], JSON]]:
    """Name a NIC of the lab where an example names eth0, and give it rules for flows.

    Skips what other plugins are missing for.
    """
    with ExitStack() as stack:

        def exchange(conflist: JSON) -> JSON:
            missing = [kind for kind in others(conflist) if not (PLUGINS / kind).is_file()]
            if missing:
                names = ", ".join(missing)
                pytest.skip(f"CNI_NETKIT_REFERENCE_PLUGINS: there is no {names} in {PLUGINS}")
            leasing = [plugin for plugin in conflist["plugins"] if "lease" in plugin]
            if leasing:
                nic = node.nic()
                fake_nic(nic)
                cnitool.calls(launcher, stack.enter_context(own_agent()))
            for plugin in leasing:
                plugin["lease"]["device"] = nic
                if role := plugin["lease"].get("workload"):
                    node.prepare(nic, role, "4-7")
            return conflist

        yield exchange


def others(conflist: JSON) -> list[str]:
    """The plugins of a list that are not ours."""
    return [plugin["type"] for plugin in conflist["plugins"] if plugin["type"] != "netkit"]


def without_cache(world: JSON) -> JSON:
    """cnitool keeps what it was answered under /var/lib/cni/results."""
    world["files"] = {
        name: content for name, content in world["files"].items() if "/results/" not in name
    }
    return world
