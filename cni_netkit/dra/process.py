"""The process `cni-netkit dra`: publishes prepared NICs, and prepares claims for the pods' ADDs."""

import os
import random
import select
import signal
import sys
import time
from contextlib import ExitStack
from http import HTTPStatus

from cni_netkit import apiserver, log, pages
from cni_netkit.dra import api, kubelet
from cni_netkit.dra.keeper import Folders, Keeper
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.link.news import News
from cni_netkit.spec.errors import CNIError

LOOK_SECONDS = 0.5
"""How often it is looked whether anything on record has changed; of links the kernel tells."""

RELOOK_SECONDS = 10.0
"""How often all of it is looked at, though nothing is known to have changed."""

RESYNC_SECONDS = 300.0
"""How often the slice is compared with what the API server has, and the rows with their claims."""


SETTLE_SECONDS = 20.0
"""The same after something was found to be missing on one side."""


class DRAError(Exception):
    """It cannot begin; the text says why, and what to do."""


def run(metrics: pages.Address | None = None) -> int:
    """Serve the kubelet and keep the slice until a signal says to end.

    `metrics`: where to tell figures, and whether it is ready. Raises `DRAError`.
    """
    name = os.environ.get("NODE_NAME", "")
    if not name:
        raise DRAError("the variable NODE_NAME is not set: the DaemonSet sets it to spec.nodeName")
    try:
        apiserver.check()
    except ValueError as error:
        raise DRAError(f"find the API server: {error}; it runs in a pod of the DaemonSet") from None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    driver, health = kubelet.Driver(name), kubelet.Health(name)
    keeper = Keeper(name, driver.restore)
    with ExitStack() as stack:
        if metrics:
            from cni_netkit.dra.metrics import Figures  # prometheus-client

            made = {
                "/metrics": pages.plain(Figures(driver, keeper).text),
                "/readyz": lambda: _readiness(keeper),
            }
            stack.enter_context(pages.shown(metrics, "--metrics", made))
        try:
            stack.enter_context(kubelet.served(driver, health, keeper.registered))
        except (OSError, RuntimeError) as error:  # the latter is grpc's
            raise DRAError(f"serve the kubelet below {kubelet.KUBELET}: {error}") from None
        _keep(keeper, health, stack.enter_context(News()))
    return 0


def _keep(keeper: Keeper, health: kubelet.Health, news: News) -> None:
    """Look whenever something may have changed; for ever."""
    folders = Folders()
    ready = select.poll()
    ready.register(news, select.POLLIN)
    heard, attempt = True, 0
    look_due = resync_due = 0.0
    while True:
        now = time.monotonic()
        if keeper.must_resync():
            resync_due = now
        anew = now >= resync_due
        if folders.changed() or heard or anew or attempt or now >= look_due:
            try:
                devices = keeper.look()
                health.tell(devices)
                keeper.publish(devices, anew=anew)
                if anew:
                    mended = keeper.reconcile()
                    # What a process before this one has unprepared may still be reserved.
                    wait = SETTLE_SECONDS if mended else RESYNC_SECONDS
                    resync_due = now + wait * random.uniform(0.8, 1)  # noqa: S311
                keeper.tell(devices)
                attempt = 0
            except api.Unreachable as error:
                log.warning("the API server is asked again", problem=str(error))
                attempt += 1
            except (CNIError, OSError) as error:
                problem = as_cni_error(error)
                log.error(problem.message, remedy=problem.details)
                attempt += 1
            if attempt:
                time.sleep(apiserver.pause(attempt - 1))
            look_due = now + RELOOK_SECONDS
        if heard := bool(ready.poll(LOOK_SECONDS * 1000)):
            news.heard()


def _readiness(keeper: Keeper) -> pages.Answer:
    """Ready is the driver that the kubelet asks, and whose NICs the API server knows."""
    published = keeper.published
    if published is not None and keeper.is_registered:
        line = f"ok: the kubelet knows this driver, the API server {len(published)} NICs\n"
        return pages.Answer(HTTPStatus.OK, line.encode())
    lacks = (
        "the API server is not told of NICs"
        if keeper.is_registered
        else ("the kubelet has not registered this driver")
    )
    return pages.Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"failed: {lacks} yet\n".encode())
