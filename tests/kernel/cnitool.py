"""cnitool (libcni), with configurations and plugins of a test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kernel.chain import PLUGINS
from tests.kernel.conftest import JSON

CNITOOL = os.environ.get("CNI_NETKIT_CNITOOL") or shutil.which("cnitool")
NO_CNITOOL = "no cnitool: name one in CNI_NETKIT_CNITOOL (containernetworking/cni)"


class Cnitool:
    """cnitool with one folder of configurations and one of plugins."""

    def __init__(self, folder: Path) -> None:
        self.confs = folder / "net.d"
        self.plugins = folder / "bin"
        self.confs.mkdir()
        self.plugins.mkdir()
        netkit = self.plugins / "netkit"
        netkit.write_text(f'#!/bin/sh\nexec {sys.executable} -m cni_netkit "$@"\n')
        netkit.chmod(0o755)

    def calls(self, launcher: Path, agent: str) -> None:
        """From now on the plugin is this launcher of this agent."""
        netkit = self.plugins / "netkit"
        netkit.write_text(f'#!/bin/sh\nCNI_NETKIT_SOCKET={agent} exec {launcher} "$@"\n')

    def configure(self, conflist: JSON) -> str:
        """Write a configuration list; its network's name."""
        name = str(conflist["name"])
        (self.confs / f"{name}.conflist").write_text(json.dumps(conflist))
        return name

    def __call__(self, verb: str, network: str, netns: str, **capabilities: object) -> str:
        """Run one verb; its standard output. Raises AssertionError with everything if it fails."""
        done = subprocess.run(
            [str(CNITOOL), verb, network, f"/run/netns/{netns}"],
            env={
                **os.environ,
                "NETCONFPATH": str(self.confs),
                "CNI_PATH": f"{self.plugins}:{PLUGINS}",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "CAP_ARGS": json.dumps(capabilities),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{verb}: {done.stdout}{done.stderr}"
        return done.stdout
