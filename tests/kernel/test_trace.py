"""A runtime's trace goes on: through the launcher, the agent and its steps, to a delegated plugin."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Answer, Conf, Node
from tests.unit.test_tracecontext import TRACE
from tests.unit.test_traces import PLUGIN, TRACEPARENT, Collector, collector, traced

__all__ = ["collector"]

pytestmark = [pytest.mark.any_kernel, pytest.mark.once]

ADDRESS = '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}]}'


def test_an_add_is_a_span_with_its_steps(
    node: Node, conf: Conf, launcher: Path, collector: Collector, tmp_path: Path
) -> None:
    """One after the other, in the order of DESIGN.md; and the DEL likewise."""
    path, plugin, told = str(tmp_path / "agent.sock"), tmp_path / "address", tmp_path / "told"
    plugin.write_text(PLUGIN.format(told) + f"echo '{ADDRESS}'\n")
    plugin.chmod(0o755)
    configuration = conf(fallback="veth", ipMasq=True, ipam={"type": "address"})

    def request(environment: dict[str, str], stdin: bytes) -> Answer:
        own = {"CNI_NETKIT_SOCKET": path, "TRACEPARENT": TRACEPARENT, "TRACESTATE": "a=1"}
        done = subprocess.run([launcher], input=stdin, env={**environment, **own}, check=True)
        return Answer(done.returncode, None)

    node.request = request
    c = node.container()
    with traced(path):
        node.call("ADD", configuration, c, path=str(tmp_path))
    found = collector.spans
    above = found.pop("CNI ADD")
    assert above.trace_id.hex() == TRACE
    assert list(found) == [
        *("turn", "read", "lock", "facts", "plan", "record", "reservation", "device"),
        *("container-addresses", "host-routes", "masquerade", "answer"),
    ]
    assert {span.parent_span_id for span in found.values()} == {above.span_id}
    lines = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert lines["TRACEPARENT"] == f"00-{TRACE}-{above.span_id.hex()}-01"
    assert lines["TRACESTATE"] == "a=1"
    collector.requests.clear()
    with traced(path):
        node.call("DEL", configuration, c, path=str(tmp_path))
    assert list(collector.spans) == [
        *("turn", "read", "lock", "masquerade", "host-routes", "container-addresses", "device"),
        *("reservation", "record", "CNI DEL"),
    ]
    assert os.listdir("/var/lib/cni/netkit/net") == []
