"""Any other IPAM plugin: found in CNI_PATH and executed (specification section 4, "Delegation")."""

import json
import os
import subprocess
from collections.abc import Collection, Sequence
from typing import Any

from cni_netkit import deadline, turns
from cni_netkit.ipam.base import Invocation
from cni_netkit.spec import result as results
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.ipam import BUILT_IN
from cni_netkit.spec.result import Result
from cni_netkit.spec.words import meant, read_json, shown


class Delegated:
    """An IPAM plugin for one request: standard input and environment are passed on unchanged."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._type = str(invocation.config["ipam"]["type"])

    def add(self) -> Result:
        """ADD of the plugin; if that fails, its DEL, as the specification wants it."""
        self._find()  # one that is not there has nothing to undo
        try:
            return results.read(self._execute("ADD"), self._invocation.version)
        except CNIError as error:
            try:
                self._execute("DEL")
            except CNIError as second:
                error.also(f"undoing failed too: {second.message}")
            raise

    def delete(self, known: Sequence[str] = ()) -> None:
        """DEL of the plugin."""
        self._execute("DEL")

    def check(self, known: Sequence[str] = ()) -> None:
        """CHECK of the plugin."""
        self._execute("CHECK")

    def status(self) -> None:
        """STATUS of the plugin."""
        self._execute("STATUS")

    def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """GC of the plugin; its standard input names the valid attachments as ours did."""
        self._execute("GC")

    def _execute(self, verb: str) -> dict[str, Any]:
        program = self._find()
        invocation = self._invocation
        environment = dict(invocation.environment) | {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": invocation.container_id,
            "CNI_IFNAME": invocation.ifname,
            "CNI_NETNS": invocation.netns,
            "CNI_PATH": ":".join(invocation.path),
        }
        asked = f"{verb} of the IPAM plugin {self._type}"
        try:
            with turns.yielded():
                done = subprocess.run(
                    [program],
                    input=json.dumps(invocation.config).encode(),
                    stdout=subprocess.PIPE,
                    env=environment,
                    check=False,
                    timeout=deadline.left(asked),
                )
        except subprocess.TimeoutExpired:
            raise CNIError(
                Code.TRY_AGAIN_LATER, f"{asked}: it did not end in time and was stopped"
            ) from None
        except OSError as error:
            raise CNIError(
                Code.IO_FAILURE, f"{asked}: execute {program}: {error.strerror}"
            ) from None
        if done.returncode != 0:
            raise _failure(asked, done.stdout, done.returncode)
        if verb != "ADD":
            return {}
        answer = _object(done.stdout)
        if answer is None:
            text = done.stdout.decode(errors="replace").strip()
            raise CNIError(Code.UNDECODABLE, f"{asked} printed no result", f"it printed {text!r}")
        return answer

    def _find(self) -> str:
        if "/" not in self._type:
            for folder in self._invocation.path:
                program = os.path.join(folder, self._type)
                if os.path.isfile(program) and os.access(program, os.X_OK):
                    return program
        near = meant(self._type, BUILT_IN)
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"ipam.type: there is no plugin {shown(self._type)} in CNI_PATH "
            f"({':'.join(self._invocation.path) or 'empty'})"
            + (f", did you mean {shown(near)}?" if near else ""),
            "host-local and static are built in; any other plugin must be installed",
        )


def _failure(asked: str, output: bytes, status: int) -> CNIError:
    """The plugin's own error with its code, or what it printed."""
    answer = _object(output)
    code = answer.get("code") if answer is not None else None
    if answer is None or type(code) is not int or not 0 < code < 2**32:
        text = output.decode(errors="replace").strip()
        return CNIError(Code.INTERNAL, f"{asked} failed with exit status {status}", text)
    message = f"{asked} failed: {answer.get('msg', '')}"
    return CNIError(code, message, str(answer.get("details", "")))


def _object(output: bytes) -> dict[str, Any] | None:
    try:
        answer = read_json(output)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
