"""Who is measured: the plugin in its two ways, the reference plugins, an empty process."""

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cni_netkit import __version__
from tests.bench import process
from tests.bench.node import ROOT, SOCKET, Container
from tests.bench.process import Call

JSON = dict[str, Any]

ENTRY_POINT = "import sys; from cni_netkit.__main__ import main; sys.exit(main())"
"""What the script does that is installed as `netkit`."""

AGENT, PYTHON, PTP, BRIDGE = "launcher + agent", "in-process", "ptp", "bridge"


class Contender(Protocol):
    """Somebody who is measured."""

    label: str
    verbs: Sequence[str]

    def measure(self, verb: str, container: Container) -> float:
        """Milliseconds for one verb."""


@dataclass
class Plugin:
    """An executable, called as a runtime calls it.

    `number` keeps its network apart from the others': name and addresses.
    """

    label: str
    command: Sequence[str]
    conf: JSON
    number: int
    reference: Path
    dual: bool = False
    verbs: Sequence[str] = ("ADD", "CHECK", "STATUS", "DEL")
    _results: dict[str, JSON] = field(default_factory=dict)

    def measure(self, verb: str, container: Container) -> float:
        """Milliseconds for one verb. CHECK is given what ADD printed."""
        took, output = process.one(self.call(verb, container))
        if verb == "ADD":
            self._results[container.name] = json.loads(output)
        return took

    def call(self, verb: str, container: Container) -> Call:
        """One verb, prepared."""
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container.name,
            "CNI_NETNS": container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.reference),
            "CNI_NETKIT_SOCKET": SOCKET,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
        }
        return Call(
            self.command, environment, json.dumps(self._configuration(verb, container)).encode()
        )

    def _configuration(self, verb: str, container: Container) -> JSON:
        ranges = [[{"subnet": f"10.{self.number}.0.0/16"}]]
        routes = [{"dst": "0.0.0.0/0"}]
        if self.dual:
            ranges.append([{"subnet": f"fd00:{self.number}::/64"}])
            routes.append({"dst": "::/0"})
        configuration = {
            "cniVersion": "1.1.0",
            "name": f"bench{self.number}",
            **self.conf,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
        }
        if verb in ("CHECK", "DEL") and container.name in self._results:
            configuration["prevResult"] = self._results[container.name]
        return configuration


@dataclass
class Empty:
    """A static process that does nothing: what a call costs whoever is called."""

    command: Sequence[str]
    label: str = "an empty static process"
    verbs: Sequence[str] = ("ADD",)

    def measure(self, verb: str, container: Container) -> float:
        """Milliseconds; the verb does not matter."""
        return process.one(self.call(verb, container))[0]

    def call(self, _verb: str, _container: Container) -> Call:
        """One execution, prepared."""
        return Call(self.command, {})


@dataclass(frozen=True)
class Cast:
    """What the contenders are made of: executables, and the kind of device."""

    launcher: Path
    empty: Path
    reference: Path
    kind: str

    def plugin(self, label: str, *, dual: bool = False) -> Plugin:
        """A plugin by its label."""
        # Without the warning that the fallback gives each time: on netkit there is none.
        ours: JSON = {"type": "netkit", "fallback": "veth", "log": {"level": "error"}}
        bridge: JSON = {"type": "bridge", "bridge": "bench0", "isGateway": True}
        command, conf = {
            AGENT: ([str(self.launcher)], ours),
            PYTHON: ([sys.executable, "-c", ENTRY_POINT], ours),
            PTP: ([str(self.reference / "ptp")], {"type": "ptp"}),
            BRIDGE: ([str(self.reference / "bridge")], bridge),
        }[label]
        number = 1 + [AGENT, PYTHON, PTP, BRIDGE].index(label)
        return Plugin(label, command, conf, number, self.reference, dual)

    def nobody(self) -> Empty:
        """The empty process."""
        return Empty([str(self.empty)])


def compiler() -> list[str]:
    """That of the wheel (hatch_build.py): CC, else musl's, which starts faster, else cc."""
    preferred = "musl-gcc" if shutil.which("musl-gcc") else "cc"
    return shlex.split(os.environ.get("CC") or preferred)


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the launcher, as the wheel has it, and a process that does nothing."""
    nothing = folder / "empty.c"
    nothing.write_text("int main(void) { return 0; }\n")
    source = ROOT / "cni_netkit" / "agent" / "launcher" / "netkit.c"
    release = f'-DNETKIT_VERSION="{__version__}"'
    made = folder / "netkit", folder / "empty"
    for target, file in zip(made, (source, nothing), strict=True):
        command = [*compiler(), *_flags(), release, "-o", str(target), str(file)]
        subprocess.run(command, check=True)
    return made


def reference_plugins() -> Path:
    """Where ptp, bridge and host-local are; fetched where they are not named."""
    named = os.environ.get("CNI_NETKIT_REFERENCE_PLUGINS")
    if named:
        return Path(named)
    fetched = subprocess.run(
        [ROOT / "tests" / "lab" / "fetch", "plugins"], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(fetched.stdout.strip())


def has_netkit() -> bool:
    """Whether the kernel makes netkit devices, asked of ip(8) in a namespace to throw away."""
    ip = shutil.which("ip") or "ip"
    probe = ["unshare", "--net", ip, "link", "add", "probe", "type", "netkit"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def _flags() -> list[str]:
    """Those of the build hook, read from its text: importing it would need hatchling."""
    for statement in ast.parse((ROOT / "hatch_build.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "FLAGS":
            return list(ast.literal_eval(statement.value))
    raise LookupError("hatch_build.py names no FLAGS")
