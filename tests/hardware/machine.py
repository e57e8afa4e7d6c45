"""The machine: commands, kept with all they said; and what it is like, before and after."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hardware.runner import Failed
from tests.kernel import judge

JSON = dict[str, Any]
NETWORK = "cni-netkit-hardware"
OPTIONS = ("-g", "-l", "-k", "-x", "-n")
RECORDS = Path("/var/lib/cni/netkit")


@dataclass
class Machine:
    """`commands` grows by one entry for each command."""

    commands: list[JSON] = field(default_factory=list)

    def run(self, *command: str, netns: str = "", check: bool = True, **more: Any) -> str:
        """Execute; standard output. Raises `Failed` with standard error."""
        prefix = ("ip", "netns", "exec", netns) if netns else ()
        # In a session of its own: who interrupts the run does not interrupt what puts things back.
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*prefix, *command], capture_output=True, text=True, start_new_session=True, **more
        )
        self.commands.append(
            {
                "command": [*prefix, *command],
                "stdin": more.get("input", ""),
                "status": done.returncode,
                "stdout": done.stdout,
                "stderr": done.stderr,
            }
        )
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise Failed(f"{' '.join(command)}: exit status {done.returncode}: {said}")
        return done.stdout

    def cni_netkit(self, *words: str) -> Any:
        """`cni-netkit ... --json` of the active environment, as objects."""
        return json.loads(self.run(executable("cni-netkit"), *words, "--json"))

    def plugin(self, verb: str, conf: JSON, netns: str) -> JSON:
        """One request to `netkit` as a runtime makes it; its result. Raises `Failed`."""
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": netns,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": os.path.dirname(executable("netkit")),
        }
        out = self.run(
            executable("netkit"),
            input=json.dumps(conf),
            env={**os.environ, **environment},
            check=False,
        )
        answer: JSON = json.loads(out) if out.strip() else {}
        if self.commands[-1]["status"]:
            said = answer.get("msg") or self.commands[-1]["stderr"].strip()
            raise Failed(f"{verb}: error {answer.get('code')}: {said}; {answer.get('details')}")
        return answer

    def ethtool(self, option: str, device: str) -> str:
        """What ethtool(8) says, errors included."""
        out = self.run("ethtool", option, device, check=False)
        return f"{out}{self.commands[-1]['stderr']}"

    def settings(self, device: str) -> dict[str, list[str]]:
        """All of a NIC that preparing may change."""
        found = {f"ethtool {each}": self.ethtool(each, device).splitlines() for each in OPTIONS}
        found["ethtool rings, by netlink"] = [str(judge.rings(device))]
        link = json.loads(self.run("ip", "-j", "-d", "link", "show", "dev", device))[0]
        # Another namespace may give another index; flags say whether it is up.
        for name in ("ifindex", "operstate"):
            link.pop(name)
        link["flags"] = sorted(set(link["flags"]))
        found["ip -d link"] = [f"{key}: {value}" for key, value in sorted(link.items())]
        return {f"{device}, {name}": lines for name, lines in found.items()}

    def state(self, *devices: str) -> dict[str, list[str]]:
        """All that a run may change, in lines to be compared."""
        found: dict[str, list[str]] = {}
        for device in devices:
            found |= self.settings(device)
            for words in (("addr", "show"), ("route", "show", "table", "all")):
                lines = self.run("ip", "-o", *words, "dev", device).splitlines()
                # Without the index, and without what counts down.
                found[f"{device}, ip {words[0]}"] = sorted(
                    re.sub(r"^\d+: |\w+ \d+sec", "", line) for line in lines if "fe80:" not in line
                )
            found[f"{device}, leases"] = [str(sorted(judge.leases(device).items()))]
        found["sysctl"] = [f"{path}: {value}" for path, value in sysctls(*devices).items()]
        found["files"] = sorted(
            str(each) for each in RECORDS.rglob("*") if each.is_file() and each.name != "lock"
        )
        return found


def executable(name: str) -> str:
    """A command of the active environment."""
    return str(Path(sys.executable).parent / name)


def sysctls(*devices: str) -> dict[str, str]:
    """Settings that are lost when a device moves to another namespace; by path."""
    found = {}
    for device in devices:
        for path in sorted(Path("/proc/sys/net").glob(f"ipv?/conf/{device}/*")):
            with suppress(OSError):  # there is no secret, for example
                found[str(path)] = path.read_text().strip()
    return found


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """In words: the lines that were expected and are gone, and those that came."""
    found = []
    for name in {**before, **after}:
        was, now = before.get(name, []), after.get(name, [])
        gone = [line.strip() for line in was if line not in now]
        new = [line.strip() for line in now if line not in was]
        if was != now:
            # The same lines in another order: all of them.
            expected, seen = (gone, new) if gone or new else (was, now)
            found.append(f"{name}: expected {expected}, found {seen}")
    return found


def expect_same(before: dict[str, list[str]], look: Callable[[], dict[str, list[str]]]) -> None:
    """Wait until all is as before, for a link takes a while to come up. Raises `Failed`."""
    last: list[str] = []

    def same() -> bool:
        last[:] = differences(before, look())
        return not last

    try:
        judge.wait_for(same, "", 20)
    except AssertionError:
        raise Failed("; ".join(last)) from None
