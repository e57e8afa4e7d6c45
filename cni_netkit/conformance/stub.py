"""An IPAM plugin of our own: it writes down how it is called, and fails where it is to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cni_netkit.conformance.plugin import JSON, Answer
from cni_netkit.conformance.world import World

FOLDER = Path("/run/conformance")
TYPE = "conformance-ipam"
SCRIPT = """#!/bin/sh
call={folder}/calls/$(ls {folder}/calls | wc -l)
mkdir "$call"
env -0 >"$call/environment"
cat >"$call/stdin"
echo "{says}" >&2
case $CNI_COMMAND in
VERSION) echo '{version}' ;;
{fails}) echo '{error}'; exit 1 ;;
ADD) echo '{result}' ;;
esac
"""


@dataclass(frozen=True)
class Call:
    """How it was called."""

    environment: Mapping[str, str]
    configuration: JSON


class Stub:
    """The stub in the place of the configured IPAM plugin; `fails` is the verb that does."""

    SAYS: ClassVar[str] = "conformance-ipam was called"

    def __init__(self, world: World, fails: str = "nothing") -> None:
        (FOLDER / "calls").mkdir(parents=True)
        executable = FOLDER / TYPE
        executable.write_text(_script(world.version, fails))
        executable.chmod(0o755)
        world.path = f"{FOLDER}:{world.path}"
        self.keys: dict[str, Any] = {"ipam": {"type": TYPE}}

    @classmethod
    def calls(cls, verb: str, answer: Answer) -> list[Call]:
        """How it was called with a verb; that it was is demanded."""
        every = [_read(each) for each in sorted((FOLDER / "calls").iterdir())]
        found = [each for each in every if each.environment.get("CNI_COMMAND") == verb]
        if not found:
            verbs = ", ".join(each.environment.get("CNI_COMMAND", "") for each in every)
            raise answer.unmet(f"{verb} of the delegated plugin", verbs or "it was never called")
        return found


def _script(version: str, fails: str) -> str:
    family = {"version": "4"} if version < "1.0.0" else {}
    address = {**family, "address": "203.0.113.2/24", "gateway": "203.0.113.1"}
    result = {"cniVersion": version, "ips": [address], "routes": [{"dst": "0.0.0.0/0"}]}
    return SCRIPT.format(
        folder=FOLDER,
        says=Stub.SAYS,
        fails=fails,
        version=json.dumps({"cniVersion": version, "supportedVersions": [version]}),
        error=json.dumps({"cniVersion": version, "code": 111, "msg": "it fails on purpose"}),
        result=json.dumps(result),
    )


def _read(folder: Path) -> Call:
    lines = (folder / "environment").read_text().split("\0")
    pairs = (each.partition("=") for each in lines if each)
    return Call(
        {name: value for name, _, value in pairs},
        json.loads((folder / "stdin").read_text() or "{}"),
    )
