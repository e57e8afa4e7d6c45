"""What the node has and what the API server says of it, made to agree: NICs, claims, status."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cni_netkit import log, state
from cni_netkit.claims import Claim, Claims
from cni_netkit.dra import api, claims, inventory, status
from cni_netkit.dra.inventory import JSON, Device
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.state import Store

TICK = 0.02
"""Seconds: a folder that changed within them may change again with the same time."""


class Folders:
    """Whether anything on record has changed: a file there is replaced or removed, never edited."""

    def __init__(self, root: Path = state.ROOT) -> None:
        self._root = root
        self._seen: Mapping[str, int] | None = None

    def changed(self) -> bool:
        """Whether something may have, since this was asked before."""
        now = time.time_ns()
        found = {str(self._root): 0}
        with suppress(FileNotFoundError):
            found[str(self._root)] = self._root.stat().st_mtime_ns
            with os.scandir(self._root) as entries:
                for each in entries:
                    with suppress(FileNotFoundError):
                        found[each.path] = each.stat(follow_symlinks=False).st_mtime_ns
        changed = found != self._seen
        # Of tomorrow is what was written before the clock was put back.
        settled = all(abs(now - each) > TICK * 1e9 for each in found.values())
        self._seen = found if settled else None
        return changed


class Keeper:
    """The node's side of it; one thread's."""

    def __init__(self, node: str, restore: Callable[[Claim], bool]) -> None:
        """`restore` writes a row, if that is right by what a kubelet has asked."""
        self._node, self._host, self._write = node, Namespace.current(), restore
        self._told: dict[str, list[JSON]] = {}
        self.published: list[JSON] | None = None
        """What the API server knows of; None before it does."""

        self.is_registered = False
        """Whether the kubelet asks this driver."""

        self._restored = False
        self._resync = threading.Event()
        self.counted: Counter[str] = Counter()
        """How often something was written, and what was found to be missing on one side."""

    def registered(self, taken: bool) -> None:
        """Whether a kubelet takes the driver. One that was away for long has removed the slice."""
        self.is_registered = taken
        if taken:
            self._resync.set()

    def must_resync(self) -> bool:
        """Whether all is to be compared, since this was asked before."""
        if not self._resync.is_set():
            return False
        self._resync.clear()
        return True

    def look(self) -> Sequence[Device]:
        """What has become of the NICs that were prepared."""
        return inventory.devices(self._host)

    def publish(self, devices: Sequence[Device], *, anew: bool) -> None:
        """Tell the API server what is news of NICs, or, `anew`, compare. Raises `Unreachable`."""
        offered = [each.as_dict() for each in devices if each.offered]
        if anew or offered != self.published:
            self.published = None
            self.counted["slices"] += api.publish(self._node, offered)
            self.published = offered

    def reconcile(self) -> bool:
        """Write rows that are missing, remove those without a claim; whether there were such.

        Raises `Unreachable`.

        In the first turn, and where a row is damaged, every claim of the cluster is listed; else
        those that are on record are asked for. Rows come first: what the kubelet prepares meanwhile
        is none of them.
        """
        before = self.counted["without row"] + self.counted["without claim"]
        rows = Claims()
        known = {key: rows.find(*key) for key in rows.uids()}
        if not self._restored or None in known.values():
            self._restore([row for row in known.values() if row])
            self._restored = True
        for (pod, uid), row in known.items():
            if row and self._stands(row):
                continue
            if row is None and rows.find(pod, uid):
                continue  # it was damaged, and has been written anew
            rows.remove(uid, pod)
            self.counted["without claim"] += 1
            log.warning("row removed: there is no such claim of this pod", claim=str(row or uid))
        return self.counted["without row"] + self.counted["without claim"] > before

    def tell(self, devices: Sequence[Device]) -> None:
        """Tell the API server what is news of claims. Raises `Unreachable`."""
        rows = list(Claims().all())
        records = list(Store().all()) if rows else []
        self._told = {row.uid: self._told.get(row.uid, []) for row in rows}
        for row in rows:
            found = status.of(row, self._node, rows, records, devices)
            if found == self._told[row.uid]:
                continue
            try:
                self.counted["statuses"] += api.tell(row, found)
            except api.NotAllowed as error:
                log.error("a claim's status is not told", problem=str(error))
            self._told[row.uid] = found

    def _restore(self, known: Sequence[Claim]) -> None:
        for found in api.allocated(self._node):
            try:
                row = claims.read(found)
            except claims.Refused as error:
                # Nobody's yet, or one that the kubelet is told of when it asks.
                log.info("claim passed over", problem=str(error))
                continue
            if row not in known and self._write(row):
                self.counted["without row"] += 1
                log.warning("row written anew: there was none that says this", claim=str(row))

    def _stands(self, row: Claim) -> bool:
        found = api.claim(row.namespace, row.name)
        if found is None or found["metadata"]["uid"] != row.uid:
            return False
        reserved = (found.get("status") or {}).get("reservedFor") or ()
        return bool(api.shares(found, self._node)) and row.pod in {each["uid"] for each in reserved}
