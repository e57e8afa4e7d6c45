"""What the tests start from: configurations, requests, IPAM contexts, records."""

import contextlib
import io
import json
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.ipam import Invocation
from cni_netkit.record import Record
from cni_netkit.spec import request as requests
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.request import Request
from cni_netkit.verbs import VERBS

ENVIRONMENT = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}


@contextlib.contextmanager
def refused(code: int, *words: str) -> Iterator[CNIError]:
    """Within: an error with this code is raised, whose text has each of the words."""
    with pytest.raises(CNIError) as caught:
        yield (error := CNIError(0, ""))
    error.code, error.message, error.details = (
        caught.value.code,
        caught.value.message,
        caught.value.details,
    )
    assert caught.value.code == code, caught.value.message
    for word in words:
        assert word in f"{caught.value.message} | {caught.value.details}"


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Within: this process can open so many files and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # what has a higher number than those that are left keeps it
    os.close(lowest)
    used = {int(each) for each in os.listdir("/proc/self/fd")} - {lowest}
    free = sorted(set(range(lowest, lowest + len(used) + count + 1)) - used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def conf(**more: Any) -> dict[str, Any]:
    """A network configuration as a runtime passes it."""
    return {"cniVersion": "1.1.0", "name": "net", "type": "netkit", **more}


def read_request(
    verb: str,
    config: object = None,
    stdin: Callable[[], bytes] | None = None,
    **environment: str | None,
) -> Request:
    """Read a request; a variable that is given as None is not in the environment."""
    variables = {"CNI_COMMAND": verb, **ENVIRONMENT, **environment}
    given = json.dumps(conf() if config is None else config).encode()
    return requests.read(
        VERBS,
        {name: value for name, value in variables.items() if value is not None},
        stdin or (lambda: given),
    )


def context(
    ipam: Mapping[str, Any],
    container: str = "c1",
    ifname: str = "eth0",
    *,
    version: str = "1.1.0",
    arguments: Mapping[str, str] | None = None,
    path: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    **config: Any,
) -> Invocation:
    """What an IPAM is told; further keys are the network configuration's."""
    return Invocation(
        config={**conf(cniVersion=version, **config), "ipam": dict(ipam)},
        version=version,
        network="net",
        container_id=container,
        ifname=ifname,
        netns="/run/netns/c1",
        arguments=arguments or {},
        path=path,
        environment=environment or {},
    )


def record(
    attachment: Attachment = Attachment("net", "c1", "eth0"),  # noqa: B008
    **more: Any,
) -> Record:
    """A record of an attachment."""
    fields: dict[str, Any] = {
        "cni_ifname": "eth0",
        "netns": "/run/netns/c1",
        "netns_identity": [4, 4026531840],
        "config": conf(),
        "arguments": "",
        "path": ["/opt/cni/bin"],
        "steps": [],
    }
    return Record(attachment, **fields | more)


class Terminal(io.StringIO):
    """Standard output that somebody looks at."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What is to be read there."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())
        return [line.rstrip() for line in plain.splitlines()]


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80, no_colour: str = "1") -> Terminal:
    """Have standard output be a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr(sys, "stdout", made := Terminal())
    return made


def content(folder: Path) -> dict[str, bytes]:
    """Files of an IPAM folder, but for the lock."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name != "lock"}
