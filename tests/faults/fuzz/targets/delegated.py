"""What an IPAM plugin prints: a byte for its exit status, then its standard output."""

import os
from pathlib import Path

from cni_netkit.ipam.base import Invocation
from cni_netkit.ipam.delegated import Delegated
from cni_netkit.spec.errors import CNIError
from tests.faults.fuzz import mutation, oracle

EXECUTES = True
FOLDER = Path("/run/plugins")
INVOCATION = Invocation(
    config={"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "plugin"}},
    version="1.1.0",
    network="net",
    container_id="c1",
    ifname="eth0",
    path=(str(FOLDER),),
)


def prepare(inside: int) -> None:
    """A plugin that prints what it finds."""
    FOLDER.mkdir()
    plugin = FOLDER / "plugin"
    plugin.write_text(
        f"#!/bin/sh\n/bin/cat {FOLDER}/output\nread -r status <{FOLDER}/status\nexit $status\n"
    )
    os.chmod(plugin, 0o755)


def one(data: bytes) -> None:
    """A result, or the plugin's own error, or that it printed none; always with a code."""
    (FOLDER / "status").write_text(f"{data[0] & 1 if data else 0}\n")
    (FOLDER / "output").write_bytes(data[1:])
    for ask in (Delegated(INVOCATION).add, Delegated(INVOCATION).check):
        with oracle.silent(), oracle.refusing():
            try:
                ask()
            except CNIError as error:
                # Of a plugin that fails and gives no code, nobody knows more (as libcni has it).
                if "failed with exit status 1" not in error.message:
                    raise


def mutate(data: bytes, seed: int) -> bytes | None:
    """Change the JSON, and leave the exit status as it is."""
    changed = mutation.mutate(data[1:], seed)
    return None if changed is None else data[:1] + changed
