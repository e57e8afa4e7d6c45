"""Who is told of requests: metrics, traces, or nobody. Told after the answer has gone."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni_netkit import log, traces
from cni_netkit.phases import Course
from cni_netkit.traces import Traces, Unavailable, guarded
from cni_netkit.verbs import Answer

if TYPE_CHECKING:
    from cni_netkit.agent.metrics import Metrics, Workers


class Watch:
    """Metrics and traces of an agent. Whatever is wrong with them, no request fails for it."""

    def __init__(self, metrics: "Metrics | None" = None, traces: Traces | None = None) -> None:
        self._metrics, self._traces = metrics, traces

    def begin(self, environment: Mapping[str, str], accepted: float) -> Course:
        """A request is about to be carried out; it came then (`time.monotonic()`)."""
        course = Course(environment, int(accepted * 1e9))
        if self._traces:
            guarded(self._traces.begin, course)
        return course

    def end(self, course: Course, answer: Answer) -> None:
        """It has its answer."""
        course.error = answer.output if answer.status else None
        if self._metrics:
            guarded(self._metrics.end, course)
        if self._traces:
            guarded(self._traces.end, course)

    def figures(self, agent: "Workers") -> Callable[[], bytes]:
        """What gives the metrics, this agent's among them."""
        assert self._metrics
        self._metrics.watch(agent)
        return self._metrics.text

    def refused(self) -> None:
        """Somebody was turned away, or sent no request."""
        if self._metrics:
            self._metrics.refused()


@contextmanager
def watching(*, with_metrics: bool) -> Iterator[Watch]:
    """Metrics where they are asked for, traces where this process's environment names a collector.

    Raises `Unavailable` for metrics; traces that cannot be had are no reason not to start.
    """
    metrics = _metrics() if with_metrics else None
    exported = None
    if traces.wanted(os.environ):
        try:
            exported = Traces()
        except Unavailable as error:
            log.error("no traces are exported", problem=str(error))
    try:
        yield Watch(metrics, exported)
    finally:
        if exported:
            exported.close()


def _metrics() -> "Metrics":
    try:
        from cni_netkit.agent.metrics import Metrics
    except ImportError as error:
        raise Unavailable(
            f"{error}: install the package where cni-netkit is, pip install 'cni-netkit[metrics]'"
        ) from None
    return Metrics()
