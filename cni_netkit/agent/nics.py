"""Keeping NICs prepared: at the agent's start, and when one comes back."""

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from cni_netkit import log
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.link.news import News
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics.prepare import prepare
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.nics import Preparation, validate_nics
from cni_netkit.spec.words import not_json

FILE = Path("/etc/cni-netkit/nics.json")


@contextlib.contextmanager
def kept(path: Path = FILE) -> Iterator[None]:
    """Keep the NICs of a file prepared, if there is one, as long as it is needed.

    What is wrong with the file, or with a NIC, is logged: containers that need none of it go on.
    """
    try:
        preparations = read(path)
    except CNIError as error:
        log.error(error.message, details=error.details)
        preparations = ()
    if not preparations:
        yield
        return
    keeper = Keeper(preparations)
    thread = threading.Thread(target=keeper.run, name="nics")
    thread.start()
    try:
        yield
    finally:
        keeper.stop()
        thread.join()


def read(path: Path) -> tuple[Preparation, ...]:
    """The NICs of a file; none where it does not exist. Raises error 5, 6 or 7."""
    try:
        return validate_nics(json.loads(path.read_bytes()), str(path))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise CNIError(Code.IO_FAILURE, f"read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CNIError(Code.UNDECODABLE, f"{path} is no JSON: {not_json(error)}") from None


class Keeper:
    """Prepares each NIC when it is there, and once more for each time that it appears anew.

    One that the driver refuses is tried again when it goes up or down.
    """

    def __init__(self, preparations: Sequence[Preparation]) -> None:
        self._preparations = preparations
        self._seen: dict[str, tuple[int, bool] | None] = {}
        self._stop, self._stopped = socket.socketpair()

    def stop(self) -> None:
        """Have `run` end."""
        self._stop.send(b"\0")

    def run(self) -> None:
        """Prepare what there is, then listen."""
        host = Namespace.current()
        with (
            News() as news,
            self._stop,
            self._stopped,
            contextlib.closing(host),
        ):
            ready = select.poll()
            ready.register(news, select.POLLIN)
            ready.register(self._stopped, select.POLLIN)
            while True:
                for each in self._preparations:
                    self._keep(host, each)
                if any(number == self._stopped.fileno() for number, _ in ready.poll()):
                    return
                # Every pod's start and end is heard here, too.
                news.heard()

    def _keep(self, host: Namespace, preparation: Preparation) -> None:
        name = preparation.device
        try:
            link = host.links.get(name=name)
            seen = None if link is None else (link.index, link.up)
            if seen == self._seen.get(name):
                return
            self._seen[name] = seen
            if link is not None:
                changes = prepare(host, preparation)
                # A link that goes up and down is no news.
                say = log.info if changes else log.debug
                say("NIC prepared", nic=name, role=preparation.role, changed=len(changes))
        except Exception as error:
            failure = as_cni_error(error)
            log.error(f"NIC {name}: {failure.message}", details=failure.details)
