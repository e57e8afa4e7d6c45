"""The conformance runner: who passes what, and that it sees what is broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS", "/usr/lib/cni"))

pytestmark = pytest.mark.any_kernel


def conformance(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does."""
    command = [Path(sys.executable).with_name("cni-netkit"), "conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_ptp(tmp_path: Path) -> None:
    """Every row is told of, in TAP."""
    conf = tmp_path / "ptp.json"
    ipam = {"type": "host-local", "subnet": "10.88.1.0/24"}
    conf.write_text(json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "ptp", "ipam": ipam}))
    done = conformance("--plugin", REFERENCE / "ptp", "--conf", conf, "--row", "del-again")
    assert done.stdout.startswith("TAP version 14\n1..1\nok 1 - del-again: ")
    assert done.returncode == 0
