"""Spans of requests, by OpenTelemetry: one a request, and below it one for each phase.

opentelemetry is imported where its own variables name a collector, and nowhere else. Spans leave in
the background, in batches: no request waits for it.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cni_netkit import __version__, log, tracecontext
from cni_netkit.phases import Course
from cni_netkit.tracecontext import TRACEPARENT, TRACESTATE

ENDPOINT = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""OpenTelemetry's specification of its exporter; what is for traces alone goes before."""

SPOKEN = "http/protobuf"
CLOSING_SECONDS = 1.0
"""For what is left at the end; then a collector that does not answer goes without it."""

LOGGER = logging.getLogger("opentelemetry")
TEXT = 1000
"""Characters of an attribute. A container's name has some dozen, an error some hundred."""


class Unavailable(Exception):
    """Traces are asked for and cannot be had; the text says why, and what to do."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables name a collector."""
    return bool(_first(environment, ENDPOINT))


@contextmanager
def traced(environment: Mapping[str, str]) -> Iterator[Course | None]:
    """For a process that has one request: its course, where a span of it is to be exported.

    That is where the runtime records a trace and has told of a collector. What cannot be exported
    is logged; nothing of it is an error.
    """
    caller = tracecontext.parent(environment)
    if not (wanted(environment) and caller and caller.sampled):
        yield None
        return
    course = Course(environment)
    try:
        traces = Traces()
    except Unavailable as error:
        log.warning("no trace is exported", problem=str(error))
        yield None
        return
    guarded(traces.begin, course)
    try:
        with course.noted("start"):
            yield course
    finally:
        guarded(traces.end, course)
        traces.close()


def guarded(tell: Callable[[Course], None], course: Course) -> None:
    """Tell of a request: whatever goes wrong with that, the request does not fail for it."""
    try:
        tell(course)
    except Exception as error:
        log.error("a request is missing in metrics or traces", problem=repr(error))


class Traces:
    """Makes spans of requests and exports them. Any thread may use it."""

    def __init__(self) -> None:
        """By the variables of this process. Raises `Unavailable`."""
        protocol = _first(os.environ, PROTOCOL) or SPOKEN
        if protocol != SPOKEN:
            raise Unavailable(f"{protocol} is asked for: set {PROTOCOL[1]}={SPOKEN}, or nothing")
        try:
            from opentelemetry import context, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise Unavailable(
                f"{error}: install the packages where cni-netkit is, pip install 'cni-netkit[otel]'"
            ) from None
        self._log = _ToOurLog()
        LOGGER.addHandler(self._log)
        LOGGER.propagate = False
        ours = {"service.name": "cni-netkit", "service.version": __version__}
        ours["host.name"] = os.uname().nodename
        given = OTELResourceDetector().detect().attributes
        # Not at the interpreter's exit: that would wait for a collector that does not answer.
        self._provider = TracerProvider(
            resource=Resource.create({**ours, **given}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("cni_netkit", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._api, self._nobodys = trace, context.Context()

    def begin(self, course: Course) -> None:
        """Begin the span of a request; what the request executes finds it in the environment."""
        environment = course.environment
        carrier = {}
        if tracecontext.parent(environment):
            names = (TRACEPARENT, TRACESTATE)
            carrier = {name.lower(): environment[name] for name in names if name in environment}
        course.span = span = self._tracer.start_span(
            f"CNI {course.verb}" if course.verb.isalpha() else "CNI",
            self._propagator.extract(carrier, self._nobodys),
            self._api.SpanKind.SERVER,
            start_time=course.began + course.epoch,
        )
        # Of a trace that nobody records the caller's span is all there is.
        if span.is_recording():
            own: dict[str, str] = {}
            self._propagator.inject(own, self._api.set_span_in_context(span))
            kept = {name: value for name, value in environment.items() if name != TRACESTATE}
            course.environment = kept | {name.upper(): value for name, value in own.items()}

    def end(self, course: Course) -> None:
        """The request has ended: its span goes on its way, with those of its phases."""
        span = course.span
        if span is None or not span.is_recording():
            return
        environment, epoch = course.environment, course.epoch
        about = {
            "cni.verb": course.verb,
            "cni.container_id": environment.get("CNI_CONTAINERID", ""),
            "cni.network": course.network,
            "cni.ifname": environment.get("CNI_IFNAME", ""),
        }
        span.set_attributes({name: _text(value) for name, value in about.items() if value})
        if course.error is not None:
            span.set_attribute("cni.error.code", course.error["code"])
            message = _text(course.error["msg"])
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, message))
        above = self._api.set_span_in_context(span)
        for name, began, ended in course.phases:
            phase = self._tracer.start_span(name, above, start_time=began + epoch)
            phase.end(ended + epoch)
        span.end(course.ended + epoch)

    def close(self) -> None:
        """Export what is left, as far as that takes no more than a moment."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSING_SECONDS)
        LOGGER.removeHandler(self._log)


class _ToOurLog(logging.Handler):
    """What opentelemetry says, of a collector that does not answer above all, is a line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Only what it warns of."""
        if record.levelno >= logging.WARNING:
            log.warning("traces", problem=record.getMessage())


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next(filter(None, (environment.get(name) for name in names)), "")


def _text(value: Any) -> str:
    """UTF-8, as the protocol wants it: an environment may have any bytes."""
    return str(value)[:TEXT].encode(errors="replace").decode()
