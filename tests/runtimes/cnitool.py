"""cnitool: libcni and nothing else. A pod is a network namespace."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from cni_netkit.spec.annotations import CAPABILITY
from tests.kernel import judge
from tests.runtimes.runtime import JSON, NOTHING, Asked, Place, Pod, Refused, Runtime


class Cnitool(Runtime):
    """Each call is a process."""

    lacks = {
        "killed_and_restarted": "nothing of it runs between two calls",
        "network_of_a_handler": "it has no handlers",
    }
    newest = "1.1.0"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        found = os.environ.get("CNI_NETKIT_CNITOOL") or shutil.which("cnitool")
        assert found, "no cnitool: name one in CNI_NETKIT_CNITOOL, or `tests/lab/fetch cnitool`"
        self.program = found

    def start(self) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Nothing runs."""

    def end(self) -> None:
        """Nothing runs."""

    def run(self, name: str, asked: Asked = NOTHING) -> Pod:
        """add, in a fresh namespace; what is asked for goes through capabilities."""
        judge.run("ip", "netns", "add", name)
        values: JSON = {"mac": asked.mac, "ips": asked.ips, CAPABILITY: asked.annotations}
        values["portMappings"] = [
            {"hostPort": host, "containerPort": inside, "protocol": "tcp"}
            for host, inside in asked.ports.items()
        ]
        capabilities = json.dumps({key: value for key, value in values.items() if value})
        try:
            result = json.loads(self._cnitool("add", name, capabilities))
        except Refused:
            judge.run("ip", "netns", "del", name)
            raise
        # containernetworking/cni, cnitool/cnitool.go
        digest = hashlib.sha512(f"/run/netns/{name}".encode()).hexdigest()
        addresses = tuple(each["address"].split("/")[0] for each in result["ips"])
        return Pod(name, f"cnitool-{digest[:20]}", name, addresses, {"asked": capabilities})

    def describe(self, pod: Pod) -> tuple[bool, tuple[str, ...]]:
        """check; where it fails, the pod does not run."""
        try:
            self._cnitool("check", pod.name, pod.more["asked"])
        except Refused:
            return False, ()
        return True, pod.addresses

    def stop(self, pod: Pod) -> None:
        """del."""
        self._cnitool("del", pod.name, pod.more["asked"])

    def remove(self, pod: Pod) -> None:
        """del, and the namespace with it."""
        self.stop(pod)
        if Path("/run/netns", pod.name).exists():
            judge.run("ip", "netns", "del", pod.name)

    def network_fault(self) -> str:
        """status."""
        try:
            self._cnitool("status", "", "")
        except Refused as error:
            return str(error)
        return ""

    def _cnitool(self, verb: str, name: str, capabilities: str) -> str:
        done = subprocess.run(
            [self.program, verb, self.network, f"/run/netns/{name}"],
            env={
                **self.place.env,
                "NETCONFPATH": str(self.place.networks),
                "CNI_PATH": str(self.place.plugins),
                "CAP_ARGS": capabilities,
            },
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Refused(f"cnitool {verb}: {done.stdout}{done.stderr}")
        return done.stdout
