"""A configuration list, carried out as the specification's sections 3 and 4 want it from a runtime.

Our plugin gets its requests as in all kernel tests, in this process or through launcher and agent;
every other plugin is the reference one, executed.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import JSON, Answer, Node

PLUGINS = Path(os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS", "/nonexistent"))

needs_plugins = pytest.mark.skipif(
    not (PLUGINS / "portmap").is_file(),
    reason="no reference plugins: name their folder in CNI_NETKIT_REFERENCE_PLUGINS "
    "(tests/lab/fetch plugins)",
)


class PluginFailure(Exception):
    """An ADD that failed: which plugin, and its error."""

    def __init__(self, kind: str, error: JSON) -> None:
        super().__init__(f"{kind}: {error}")
        self.error = error


@dataclass
class Chain:
    """`capabilities` are the runtime's values for the next ADD; a plugin gets those it declares.

    `passed_on` has the result of each plugin of the last ADD; `attached` what is kept for later:
    the last result, and the capabilities. `programs` are plugins that are elsewhere.
    """

    node: Node
    conflist: JSON
    capabilities: JSON = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    programs: dict[str, Path] = field(default_factory=dict)
    passed_on: list[JSON] = field(default_factory=list)
    attached: dict[tuple[str, str], tuple[JSON, JSON]] = field(default_factory=dict)

    def add(self, netns: str, ifname: str = "eth0") -> JSON:
        """ADD of each plugin, its result passed on; the last one. Raises `PluginFailure`."""
        self.passed_on = []
        for plugin in self._plugins:
            more = self._asked(plugin, self.capabilities, *self.passed_on[-1:])
            answer = self._call("ADD", plugin, netns, ifname, more)
            if answer.status:
                raise PluginFailure(plugin["type"], answer.output or {})
            self.passed_on.append(answer.result)
        result = self.passed_on[-1]
        self.attached[netns, ifname] = result, self.capabilities
        return result

    def check(self, netns: str, ifname: str = "eth0") -> None:
        """CHECK of each plugin with the last result."""
        result, capabilities = self.attached[netns, ifname]
        for plugin in self._plugins:
            more = self._asked(plugin, capabilities, result)
            answer = self._call("CHECK", plugin, netns, ifname, more)
            assert answer.status == 0, f"{plugin['type']}: {answer.output}"

    def delete(self, netns: str, ifname: str = "eth0") -> None:
        """DEL of each plugin in reverse, with the last result if ADD worked."""
        kept = self.attached.pop((netns, ifname), None)
        for plugin in reversed(self._plugins):
            more = self._asked(plugin, kept[1], kept[0]) if kept else {}
            answer = self._call("DEL", plugin, netns, ifname, more)
            assert answer.status == 0, f"{plugin['type']}: {answer.output}"

    def collect(self, *valid: str) -> None:
        """GC of each plugin; eth0 of the containers in these namespaces is valid."""
        listed = [{"containerID": f"container-{netns}", "ifname": "eth0"} for netns in valid]
        for plugin in self._plugins:
            answer = self._call("GC", plugin, "", "", {"cni.dev/valid-attachments": listed})
            assert answer.status == 0, f"{plugin['type']}: {answer.output}"

    @property
    def _plugins(self) -> list[JSON]:
        shared = {name: self.conflist[name] for name in ("name", "cniVersion")}
        return [{**plugin, **shared} for plugin in self.conflist["plugins"]]

    def _asked(self, plugin: JSON, capabilities: JSON, *previous: JSON) -> JSON:
        """What a runtime puts into a plugin's configuration."""
        declared = plugin.get("capabilities", {})
        asked = {name: value for name, value in capabilities.items() if declared.get(name)}
        more: JSON = {"runtimeConfig": asked} if asked else {}
        return {**more, "prevResult": previous[0]} if previous else more

    def _call(self, verb: str, plugin: JSON, netns: str, ifname: str, more: JSON) -> Answer:
        conf = {**plugin, **more}
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"container-{netns}" if netns else "",
            "CNI_NETNS": f"/run/netns/{netns}" if netns else "",
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(PLUGINS),
            "PATH": os.environ["PATH"],
            **self.environment,
        }
        kind = plugin["type"]
        if kind == "netkit":
            return self.node.request(environment, json.dumps(conf).encode())
        return execute(self.programs.get(kind, PLUGINS / kind), environment, conf)


def execute(program: Path, environment: dict[str, str], conf: JSON) -> Answer:
    """Execute a plugin of others."""
    done = subprocess.run(
        [program], input=json.dumps(conf).encode(), env=environment, capture_output=True
    )
    try:
        output: Any = json.loads(done.stdout) if done.stdout else None
    except ValueError:
        output = {"msg": (done.stdout + done.stderr).decode()}
    return Answer(done.returncode, output)
