"""Requests as real runtimes sent them: understood, with the right exit status.

What cnitool, a program on libcni, containerd 1.6, 1.7, 2.1 and podman sent to the reference plugins
(and to one that fails on purpose) is sent to ours, in the same order. Exchanged are: the plugin's
type and own keys, the namespaces, and prevResult where our own ADD gave one. The calls of ptp to
host-local are left out: they are one plugin's to another, ours has it built in.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import JSON, Node

FOLDER = Path(os.environ.get("CNI_NETKIT_CAPTURES", "/nonexistent"))
CAPTURES = sorted(FOLDER.glob("*.jsonl"))

OWN_KEYS: dict[str, JSON] = {
    "ptp": {"mode": "l2"},
    "faulty": {"mode": "l2"},
    # Chained plugins, and the loopback that containerd calls beside ours: devices of another name.
    "tuning": {"pairing": "single", "mode": "l2", "ifName": "tuned0"},
    "loopback": {"pairing": "single", "mode": "l2", "ifName": "loop0"},
}


@pytest.mark.skipif(
    not CAPTURES, reason="no captured requests: name their folder in CNI_NETKIT_CAPTURES"
)
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_requests_of_a_runtime(node: Node, tmp_path: Path, capture: Path) -> None:
    """Every call ends with the exit status that the reference plugin's had."""
    namespaces: dict[str, str] = {}
    results: dict[tuple[str, str], Any] = {}
    seen = 0
    for line in capture.read_text().splitlines():
        call = json.loads(line)
        kind, command = call["plugin"], call["command"]
        if kind == "host-local":
            continue
        environment = dict(call["env"])
        if path := environment.get("CNI_NETNS", ""):
            if command != "VERSION" and path not in namespaces:
                namespaces[path] = f"/run/netns/{node.container()}"
            environment["CNI_NETNS"] = namespaces.get(path, path)
        key = (kind, environment["CNI_CONTAINERID"])
        stdin = exchanged(call["stdin"], kind, tmp_path, results.get(key))
        answer = node.request(environment, json.dumps(stdin).encode())
        failed = kind == "ptp" and not call["result"].startswith("rc=0")
        assert answer.status == int(failed), f"{kind} {command}: {answer.output}"
        if command in ("ADD", "VERSION") or failed:
            assert answer.output is not None
            json.dumps(answer.output)
        else:
            assert answer.output is None
        if command == "ADD" and not failed:
            assert answer.output is not None
            assert answer.output["cniVersion"] == stdin["cniVersion"]
            results[key] = answer.output
        seen += 1
    assert seen > 5


def exchanged(stdin: JSON, kind: str, tmp_path: Path, result: Any) -> JSON:
    """The captured configuration as it would have been for our plugin."""
    mine: JSON = {key: value for key, value in stdin.items() if key != "sysctl"}
    if "name" in mine:
        mine |= {"type": "netkit", **OWN_KEYS[kind]}
    if "ipam" in mine:
        mine["ipam"] = {**mine["ipam"], "dataDir": str(tmp_path)}
    if "prevResult" in mine and result is not None:
        mine["prevResult"] = result
    return mine
