"""The process `cni-netkit dra`: publishes prepared NICs, and prepares claims for the pods' ADDs."""

import os
import select
import signal
import sys
import time
from datetime import UTC, datetime

from cni_netkit import apiserver, log
from cni_netkit.claims import Claims
from cni_netkit.dra import api, inventory, kubelet, status
from cni_netkit.kernel.link.news import News
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.state import Store

LOOK_SECONDS = 0.5
"""How often it is looked whether a NIC was prepared, restored, or has lost its link."""

RESYNC_SECONDS = 30.0
"""How often the slice is compared, though nothing changed: a kubelet removes those of a driver that
was away for long."""


Told = dict[str, list[inventory.JSON]]
"""Of each claim, by its UID, what its status says."""


class DRAError(Exception):
    """It cannot begin; the text says why, and what to do."""


def run() -> int:
    """Serve the kubelet and keep the slice until a signal says to end. Raises `DRAError`."""
    name = os.environ.get("NODE_NAME", "")
    if not name:
        raise DRAError("the variable NODE_NAME is not set: the DaemonSet sets it to spec.nodeName")
    try:
        apiserver.check()
    except ValueError as error:
        raise DRAError(f"find the API server: {error}; it runs in a pod of the DaemonSet") from None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with kubelet.served(kubelet.Driver(name)), News() as news:
        host = Namespace.current()
        ready = select.poll()
        ready.register(news, select.POLLIN)
        published: list[inventory.Device] | None = None
        told: Told = {}
        due, attempt = 0.0, 0
        while True:
            found = inventory.devices(host)
            try:
                if published is None:
                    _reconcile()
                if found != published or time.monotonic() >= due:
                    api.publish(name, found)
                    published = found
                    due = time.monotonic() + RESYNC_SECONDS
                told = _tell(name, told)
                attempt = 0
            except api.Unreachable as error:
                log.warning("the API server is asked again", problem=str(error))
                time.sleep(apiserver.pause(attempt))
                attempt += 1
            if ready.poll(LOOK_SECONDS * 1000):
                news.heard()


def _tell(node: str, before: Told) -> Told:
    """Tell of each claim what is news; what has been told now. Raises `Unreachable`."""
    rows = list(Claims().all())
    if not rows:
        return {}
    records = list(Store().all())
    told = {}
    for row in rows:
        found = status.of(row, node, rows, records)
        if found != before.get(row.uid):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            try:
                api.tell(row, status.dated(found, now))
            except api.NotAllowed as error:
                log.error("a claim's status is not told", problem=str(error))
        told[row.uid] = found
    return told


def _reconcile() -> None:
    """Forget rows whose claims went while nobody was here. Raises `Unreachable`."""
    rows = Claims()
    for row in rows.all():
        found = api.claim(row.namespace, row.name)
        if found is None or found["metadata"]["uid"] != row.uid:
            rows.remove(row.uid)
            log.info("forgotten, since it is gone", claim=str(row))
