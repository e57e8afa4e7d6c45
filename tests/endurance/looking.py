"""What there is in a container, many times over: by /proc alone, since a process a look is too slow."""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kernel.conftest import CLONE_NEWNET, libc


def in_namespace(name: str, function: Callable[[], Any]) -> Any:
    """Call in a container's namespace, in a thread that is thrown away."""
    found: list[Any] = []

    def enter() -> None:
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            assert libc.setns(descriptor, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        finally:
            os.close(descriptor)
        found.append(function())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


def inside() -> tuple[set[str], set[str], int]:
    """Devices, addresses and IPv4 routes of this thread's namespace, as /proc/net tells."""
    proc = Path("/proc/thread-self/net")
    devices = {line.partition(":")[0].strip() for line in _lines(proc / "dev", skip=2)} - {"lo"}
    addresses = {
        line.split()[0]
        for line in _lines(proc / "if_inet6")
        if line.split()[5] != "lo" and not line.startswith("fe80")
    }
    leaf = ""
    for line in _lines(proc / "fib_trie"):
        if line.strip().startswith("|--"):
            leaf = line.split()[1]
        elif "/32 host LOCAL" in line and not leaf.startswith("127."):
            addresses.add(leaf)
    return devices, addresses, len(_lines(proc / "route", skip=1))


def _lines(path: Path, skip: int = 0) -> list[str]:
    return path.read_text().splitlines()[skip:]
