"""Each netkit plugin of each example in conf/, to be asked for one verb after the other."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.chain import PLUGINS, execute
from tests.kernel.conftest import JSON, Answer, Node
from tests.kernel.examples import EXAMPLES

NEWEST = "1.1.0"
LIMITS = {"ingressRate": 8_000_000, "egressRate": 8_000_000}
CAPABILITIES = {
    "bandwidth": {**LIMITS, "ingressBurst": 4294967295, "egressBurst": 4294967295},
}
"""What a runtime passes to a plugin that declares them."""


def _ours(example: Path) -> list[int]:
    plugins = json.loads(example.read_text())["plugins"]
    return [number for number, each in enumerate(plugins) if each["type"] == "netkit"]


CASES = [(example, number) for example in EXAMPLES for number in _ours(example)]
"""A list, and which of its plugins."""

NAMES = [f"{example.stem}-{number}" if number else example.stem for example, number in CASES]


@dataclass
class Attached:
    """The plugin, as it is called for one container behind those that come before it in its list."""

    node: Node
    plugins: list[JSON]
    netns: str
    results: list[JSON] = field(default_factory=list)

    def prepare(self) -> None:
        """Have other plugins that come before do their part, once for all."""
        for each in self._before:
            if each["type"] != "netkit":
                self.results.append(self._call("ADD", each).result)

    def add_before(self) -> None:
        """ADD of ours that come before, where they are not there."""
        for each in self._before:
            if each["type"] == "netkit":  # the first of its list, in each of the examples
                self.results = []
                self.results = [self._call("ADD", each).result]

    def delete_before(self) -> None:
        """The reverse."""
        for each in reversed(self._before):
            if each["type"] == "netkit":
                assert self._call("DEL", each).ok

    def call(self, verb: str, **keys: object) -> Answer:
        """A request of the plugin itself."""
        return self._call(verb, {**self.plugins[-1], **keys})

    @property
    def _before(self) -> list[JSON]:
        return self.plugins[:-1]

    def _call(self, verb: str, plugin: JSON) -> Answer:
        previous = {"prevResult": self.results[-1]} if self.results else {}
        conf = {**previous, **plugin}
        if plugin["type"] == "netkit":
            netns = "" if verb in ("GC", "STATUS") else self.netns
            return self.node.call(verb, conf, netns, cid=f"container-{self.netns}")
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"container-{self.netns}",
            "CNI_NETNS": f"/run/netns/{self.netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        return execute(PLUGINS / plugin["type"], environment, conf)


def plugins_of(example: Path, number: int, nic: str) -> list[JSON]:
    """Those of a list up to one, as libcni hands them out, with a NIC of the lab."""
    conflist = json.loads(example.read_text())
    found: list[JSON] = conflist["plugins"][: number + 1]
    for each in found:
        each.update(name=conflist["name"], cniVersion=NEWEST)
        if "lease" in each:
            each["lease"]["device"] = nic
        asked = {
            name: value
            for name, value in CAPABILITIES.items()
            if each.get("capabilities", {}).get(name)
        }
        if asked:
            each["runtimeConfig"] = asked
    return found
