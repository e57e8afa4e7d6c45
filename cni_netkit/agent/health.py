"""Whether the agent answers, and whether an ADD could work: for probes."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from http import HTTPStatus

from cni_netkit import pages
from cni_netkit.agent import wire
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.state import ROOT, Store

SECONDS = 5.0
"""For the agent to answer itself; in a burst of requests it waits as they do."""


class Unwell(Exception):
    """Something is not as it should be; the text says what."""


def of(path: str) -> Mapping[str, pages.Page]:
    """The pages /healthz and /readyz of the agent that listens at `path`."""
    alive = partial(_ask, path)
    return {
        "/healthz": partial(_page, [alive]),
        "/readyz": partial(_page, [alive, _write_records, _ask_kernel]),
    }


def _page(checks: Sequence[Callable[[], str]]) -> pages.Answer:
    """A line for each check, until one fails."""
    lines = []
    status = HTTPStatus.OK
    for check in checks:
        try:
            lines.append(f"ok: {check()}\n")
        except Exception as error:
            said = str(error) if isinstance(error, Unwell) else as_cni_error(error).message
            lines.append(f"failed: {said}\n")
            status = HTTPStatus.SERVICE_UNAVAILABLE
            break
    return pages.Answer(status, "".join(lines).encode())


def _ask(path: str) -> str:
    """A request of our own, on the way that the launcher's take."""
    deadline = time.monotonic() + SECONDS
    request = wire.WireRequest({"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.1.0"}')
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect(path)
            wire.send_request(connection, request, deadline)
            answer = wire.receive_answer(connection, deadline)
        except OSError as error:
            raise Unwell(f"nobody takes requests at {path}: {error.strerror or error}") from None
        except wire.WireError as error:
            raise Unwell(f"a request at {path}: {error}") from None
    if answer.status:
        raise Unwell(f"a request at {path} is answered {answer.output.decode().strip()}")
    return f"requests at {path} are answered"


def _write_records() -> str:
    with Store().lock("readyz"):
        return f"records can be written under {ROOT}"


def _ask_kernel() -> str:
    """As STATUS does; whether veth may take netkit's place each configuration says for itself."""
    with closing(Namespace.current()) as host:
        has = host.features(frozenset({"netkit"}))
    if has:
        return "this kernel has netkit"
    return 'this kernel has no netkit: configurations without "fallback": "veth" do not work'
