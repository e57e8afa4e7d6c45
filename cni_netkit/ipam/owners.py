"""Who owns which address in a host-local folder, without reading a file an address each time.

A process that lives on (the agent) remembers what it read, as long as the modification time of the
folder says that nobody else made or removed a file. It serves the one question that would need all
of them: has this owner an address already? Different addresses are the files' own doing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

Index = dict[str, set[str]]

_remembered: dict[str, tuple[int, Index]] = {}
_guard = threading.Lock()


class Owners:
    """The owners of one folder, by owner's line; to be used while the folder's lock is held."""

    def __init__(self, folder: str, index: Index) -> None:
        self._folder = folder
        self._index = index

    @classmethod
    def remembered(cls, folder: str) -> Owners | None:
        """What is known, if it still holds."""
        with _guard:
            seen = _remembered.get(folder)
        if seen is None or seen[0] != os.stat(folder).st_mtime_ns:
            return None
        return cls(folder, seen[1])

    @classmethod
    def read(cls, folder: str, reservations: Iterable[tuple[str, str]]) -> Owners:
        """What the files say: (owner, address) of each."""
        owners = cls(folder, {})
        for owner, address in reservations:
            owners.add(owner, address)
        return owners

    def of(self, owner: str) -> set[str]:
        """The addresses of one owner."""
        return self._index.get(owner, set())

    def add(self, owner: str, address: str) -> None:
        """Note a reservation."""
        self._index.setdefault(owner, set()).add(address)

    def remove(self, owner: str, address: str) -> None:
        """Note a release."""
        mine = self._index.get(owner, set())
        mine.discard(address)
        if not mine:
            self._index.pop(owner, None)

    def remember(self) -> None:
        """Keep all this until somebody else changes the folder."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
        except OSError:  # it is no more than a shortcut
            forget(self._folder)
            return
        with _guard:
            _remembered[self._folder] = (changed, self._index)


def forget(folder: str) -> None:
    """Read the files next time."""
    with _guard:
        _remembered.pop(folder, None)
