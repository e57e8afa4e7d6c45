"""Figures of the agent, as Prometheus collects them: docs/observability.md lists them.

What requests are told of is counted when they have their answer; what the disk and the kernel know
is read when somebody asks for it.
"""

import contextlib
import threading
from bisect import bisect_left
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from cni_netkit import __version__, facts, log
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.model import QUEUE_STATES
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.phases import Begun, Course, phases_of
from cni_netkit.record import Record
from cni_netkit.spec.errors import Code
from cni_netkit.state import Store
from cni_netkit.verbs import VERBS

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""In seconds. A STATUS takes one millisecond, most phases of an ADD less."""

LIMITS = [int(seconds * 1e9) for seconds in BUCKETS]

OTHER = "other"
"""In place of a verb that is none, or a code that a delegated plugin made up: labels are few."""

NOTED = 256
"""Requests that wait to be counted, at most. Many at a time take a quarter of what each takes."""

CODES = frozenset(map(int, Code))


class Ended(NamedTuple):
    """A request that has its answer, and nothing that is large; `times`: began, ended, epoch."""

    verb: str
    code: int
    times: tuple[int, int, int]
    begun: Begun
    released: int


class Workers(Protocol):
    """What an agent says of itself."""

    @property
    def at_work(self) -> int:
        """How many requests are being carried out."""

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""


class Metrics:
    """The figures of one agent. Any thread may use it."""

    def __init__(self) -> None:
        self._ended: deque[Ended] = deque()
        self._counting = threading.Lock()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cni_netkit_requests",
            "Requests answered; code 0 is success, others are those of CNI errors.",
            ("verb", "code"),
            registry=self._registry,
        )
        self._refused = Counter(
            "cni_netkit_requests_refused",
            "Callers turned away before their request was read, or who sent none.",
            registry=self._registry,
        )
        self._durations = Durations(
            "cni_netkit_request_duration_seconds",
            "From the launcher's connection to the answer.",
            ("verb",),
        )
        self._phases = Durations(
            "cni_netkit_phase_duration_seconds",
            "What the time of a request was spent on.",
            ("verb", "phase"),
        )
        self._collected = Counter(
            "cni_netkit_gc_released",
            "Attachments that GC released.",
            registry=self._registry,
        )
        self._collected_last = Gauge(
            "cni_netkit_gc_last_released",
            "Attachments that the last GC released; it may have failed at others.",
            registry=self._registry,
        )
        self._collected_at = Gauge(
            "cni_netkit_gc_last_timestamp_seconds",
            "When the last GC ended; 0 where there was none since the agent's start.",
            registry=self._registry,
        )
        # So that a rate is right from the first request on.
        for verb in VERBS:
            self._requests.labels(verb, "0")
        for each in (self._durations, self._phases, Node()):
            self._registry.register(each)
        ProcessCollector(registry=self._registry)
        build = Gauge("cni_netkit_build_info", "Always 1.", ("version",), registry=self._registry)
        build.labels(__version__).set(1)

    def watch(self, agent: Workers) -> None:
        """Tell how busy this agent is."""
        at_work = Gauge(
            "cni_netkit_requests_in_progress",
            "Requests that are being carried out.",
            registry=self._registry,
        )
        at_work.set_function(lambda: agent.at_work)
        waiting = Gauge(
            "cni_netkit_requests_waiting",
            "Requests that wait, since all workers are busy.",
            registry=self._registry,
        )
        waiting.set_function(lambda: agent.waiting)

    def end(self, course: Course) -> None:
        """A request has its answer. Here it is only noted, since others may be waiting."""
        code = course.error["code"] if course.error else 0
        verb, times = course.verb, (course.began, course.ended, course.epoch)
        self._ended.append(Ended(verb, code, times, course.begun, course.released))
        if len(self._ended) >= NOTED and self._counting.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._counting.release()

    def _count(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._count_one(self._ended.popleft())

    def _count_one(self, request: "Ended") -> None:
        began, ended, epoch = request.times
        verb = request.verb if request.verb in VERBS else OTHER
        known = request.code == 0 or request.code in CODES
        self._requests.labels(verb, str(int(request.code)) if known else OTHER).inc()
        self._durations.observe((verb,), ended - began)
        for name, at, end in phases_of(request.begun, ended):
            self._phases.observe((verb, name), end - at)
        if verb == "GC":
            self._collected.inc(request.released)
            self._collected_last.set(request.released)
            self._collected_at.set((ended + epoch) / 1e9)

    def refused(self) -> None:
        """Somebody was turned away."""
        self._refused.inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format (version 0.0.4)."""
        with self._counting:
            self._count()
            return generate_latest(self._registry)


class Durations(Collector):
    """A histogram. For the twelve phases of an ADD the library's own takes 37 µs, this one 2."""

    def __init__(self, name: str, what: str, labels: tuple[str, ...]) -> None:
        self._name, self._what, self._labels = name, what, labels
        # By labels: how many there are in each bucket, and behind those the sum in nanoseconds.
        self._cells: dict[tuple[str, ...], list[int]] = {}

    def observe(self, labels: tuple[str, ...], nanoseconds: int) -> None:
        """How long something took; one thread at a time."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = [0] * (len(BUCKETS) + 2)
        cell[bisect_left(LIMITS, nanoseconds)] += 1
        cell[-1] += nanoseconds

    def describe(self) -> Iterable[Metric]:
        """Its name, for the registry to see that no other has it."""
        return [HistogramMetricFamily(self._name, self._what)]

    def collect(self) -> Iterable[Metric]:
        """As it is now."""
        made = HistogramMetricFamily(self._name, self._what, labels=self._labels)
        for labels, (*counts, total) in list(self._cells.items()):
            limits = [*map(floatToGoString, BUCKETS), "+Inf"]
            buckets = [*zip(limits, accumulate(counts), strict=True)]
            made.add_metric(labels, buckets, total / 1e9)
        yield made


class Node(Collector):
    """What the records and the kernel say, when they are asked."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: whoever registers it must not have to read all records for it."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read it now. What cannot be read is left out, and said to be."""
        failed = GaugeMetricFamily(
            "cni_netkit_collector_failed",
            "1 where figures are missing, since what they are of could not be read.",
            labels=("of",),
        )
        sources: dict[str, Callable[[], list[Metric]]] = {"records": _records, "queues": _queues}
        for name, read in sources.items():
            problem = ""
            try:
                yield from read()
            except Exception as error:
                problem = as_cni_error(error).message
                log.warning("figures are missing", of=name, problem=problem)
            failed.add_metric((name,), bool(problem))
        yield failed


def _records() -> list[Metric]:
    attachments, incomplete, unreadable = Counts[str](), 0, 0
    for found in Store().scan():
        if not isinstance(found, Record):
            unreadable += 1
        elif found.complete:
            attachments[found.attachment.network] += 1
        else:
            incomplete += 1
    return [
        _gauge(
            "cni_netkit_attachments",
            "Attachments on record, complete, by network.",
            ("network",),
            {(network,): number for network, number in attachments.items()},
        ),
        _gauge(
            "cni_netkit_records_incomplete",
            "Attachments that are being made, or whose ADD died.",
            (),
            {(): incomplete},
        ),
        _gauge(
            "cni_netkit_records_unreadable",
            "Records that are damaged, or of a newer release.",
            (),
            {(): unreadable},
        ),
    ]


def _queues() -> list[Metric]:
    with contextlib.closing(Namespace.current()) as host:
        nics = facts.nics(host)
    states: dict[tuple[str, ...], int] = {
        (nic.link.name, state): 0 for nic in nics if nic.queues for state in QUEUE_STATES
    }
    for nic in nics:
        for queue in nic.queues:
            states[nic.link.name, queue.state] += 1
    return [
        _gauge(
            "cni_netkit_nic_queues",
            "Receive queues of each NIC that is up, by what they are used for.",
            ("nic", "state"),
            states,
        )
    ]


def _gauge(
    name: str, what: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], int]
) -> Metric:
    made = GaugeMetricFamily(name, what, labels=labels)
    for each, value in values.items():
        made.add_metric(each, value)
    return made
