"""A fake NIC that processes share: what one of them changed there stays when it is killed.

A thread of this process keeps it; everybody else asks through a socket, one request at a time, as a
driver is asked. Who asks later sees what was asked for earlier, also by who has died since.
"""

import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ethtool.fake import FakeNic

ROOM = 1 << 17


class SharedNic:
    """A FakeNic's methods and attributes, wherever it is kept."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address

    def ioctl(self, request: bytes) -> bytes:
        """As FakeNic's."""
        return bytes(self._ask("ioctl", request))

    def switch_ntuple(self, on: bool) -> None:
        """As FakeNic's."""
        self._ask("switch_ntuple", on)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask(name)

    def _ask(self, name: str, *arguments: Any) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(self._address)
            asking.send(pickle.dumps((name, arguments)))
            answer = pickle.loads(asking.recv(ROOM))
        if isinstance(answer, OSError):
            raise answer
        return answer


@contextmanager
def shared(nic: FakeNic, folder: Path) -> Iterator[SharedNic]:
    """Keep a NIC for others, while the context lasts."""
    path = str(folder / f"{nic.name}.nic")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        keeper = threading.Thread(target=_keep, args=(nic, listener))
        keeper.start()
        made = SharedNic(nic.name, path)
        try:
            yield made
        finally:
            made._ask("")
            keeper.join()


def _keep(nic: FakeNic, listener: socket.socket) -> None:
    while True:
        served, _ = listener.accept()
        with served:
            data = served.recv(ROOM)
            if not data:
                continue  # it was killed before it asked
            name, arguments = pickle.loads(data)
            answer = _answer(nic, name, arguments)
            try:
                served.send(pickle.dumps(answer))
            except BrokenPipeError:
                continue  # it was killed while it waited
            if not name:
                return


def _answer(nic: FakeNic, name: str, arguments: Any) -> Any:
    if not name:
        return None
    found = getattr(nic, name)
    if not callable(found):
        return found
    try:
        return found(*arguments)
    except OSError as error:
        return error
