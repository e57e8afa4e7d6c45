"""Spans as a collector gets them: OTLP over HTTP on loopback, decoded by OpenTelemetry's own messages."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cni_netkit import traces
from cni_netkit.agent import server
from cni_netkit.agent.watch import watching
from cni_netkit.agent.wire import WireAnswer, WireRequest
from cni_netkit.traces import Traces, Unavailable
from tests.unit.test_server import DEADLINE, ask, path, served, wait_for
from tests.unit.test_tracecontext import SPAN, TRACE

__all__ = ["path"]

TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
NAMES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass
class Collector:
    """What a collector was sent."""

    url: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> dict[str, Any]:
        """By name: no test has two of a name."""
        return {
            span.name: span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @property
    def resource(self) -> dict[str, str]:
        return attributes(self.requests[0].resource_spans[0].resource)


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that this process's environment names."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        made.url = f"http://127.0.0.1:{serving.server_port}"
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        named(monkeypatch, made.url)
        # It does answer, however busy this machine is.
        monkeypatch.setattr(traces, "CLOSING_SECONDS", DEADLINE)
        yield made
        serving.shutdown()
        thread.join()


def named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    # Whoever waits for a collector that does not answer waits for ever.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """One that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        named(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield listener


@contextmanager
def traced(path: str) -> Iterator[None]:
    """An agent whose requests are traced."""
    with (
        watching(with_metrics=False) as watch,
        server.listen(path) as listener,
        served(listener, watch=watch),
    ):
        yield


def call(path: str, verb: str, stdin: bytes = b"", **environment: str) -> WireAnswer:
    return ask(path, WireRequest({"CNI_COMMAND": verb, **environment}, stdin))


def test_a_request_is_a_span_of_the_callers_trace(path: str, collector: Collector) -> None:
    """With one below it for each phase, and what it was about."""
    with traced(path):
        about = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "TRACEPARENT": TRACEPARENT}
        stdin = b'{"cniVersion": "1.1.0", "name": "pods", "type": "netkit", "mtu": true}'
        answer = call(path, "CHECK", stdin, CNI_NETNS="/run/netns/c1", TRACESTATE="a=1", **about)
        error = json.loads(answer.output)
        found = wait_for(lambda: collector.spans, "it is exported")
    request = found.pop("CNI CHECK")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
    assert request.kind == request.SPAN_KIND_SERVER
    assert request.trace_state == "a=1"
    assert attributes(request) == {
        "cni.verb": "CHECK",
        "cni.container_id": "c1",
        "cni.network": "pods",
        "cni.ifname": "eth0",
        "cni.error.code": error["code"],
    }
    assert (request.status.code, request.status.message) == (2, error["msg"])
    assert list(found) == ["turn", "read"]
    for phase in found.values():
        assert (phase.trace_id, phase.parent_span_id) == (request.trace_id, request.span_id)
        assert phase.start_time_unix_nano <= phase.end_time_unix_nano
    first, last = found.values()
    assert request.start_time_unix_nano == first.start_time_unix_nano
    assert first.end_time_unix_nano == last.start_time_unix_nano
    assert last.end_time_unix_nano == request.end_time_unix_nano
    assert collector.resource["service.name"] == "cni-netkit"
    assert collector.resource["host.name"] == os.uname().nodename


@pytest.mark.parametrize("given", ["", "garbage", f"00-{'0' * 32}-{SPAN}-01"])
def test_without_a_caller_it_is_a_trace_of_its_own(
    path: str, collector: Collector, given: str
) -> None:
    """What belongs to a TRACEPARENT that is none is no state of ours."""
    with traced(path):
        assert call(path, "VERSION", TRACEPARENT=given, TRACESTATE="a=1").status == 0
        request = wait_for(lambda: collector.spans, "it is exported")["CNI VERSION"]
    assert request.parent_span_id == b""
    assert request.trace_id.hex() != TRACE
    assert request.trace_state == ""
    assert request.status.code == 0


def test_what_the_caller_does_not_record_is_not_exported(path: str, collector: Collector) -> None:
    with traced(path):
        call(path, "STATUS", TRACEPARENT=TRACEPARENT[:-1] + "0")
        call(path, "VERSION", TRACEPARENT=TRACEPARENT)
    assert "CNI VERSION" in collector.spans
    assert "CNI STATUS" not in collector.spans


def test_the_standard_variables_hold(
    path: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a sampler, and names."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pods")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=node7,deployment.environment=test")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    with traced(path):
        call(path, "STATUS")
        call(path, "VERSION", TRACEPARENT=TRACEPARENT)
    assert "CNI VERSION" in collector.spans
    assert "CNI STATUS" not in collector.spans
    expected = {"service.name": "pods", "host.name": "node7", "deployment.environment": "test"}
    assert collector.resource.items() >= expected.items()


GARBAGE = {
    "CNI_COMMAND": "\udcff\udcfe" * 50,
    "CNI_CONTAINERID": "\udc80" * 5000,
    "CNI_IFNAME": "\ud800",
    "TRACEPARENT": "\udcff",
    "TRACESTATE": "\udcff=\udcff",
    "BAGGAGE": "\udcff",
}


def test_an_environment_may_have_any_bytes(path: str, collector: Collector) -> None:
    """The answer is the same as without traces, and the spans of others get through."""
    environment = {key: value.replace("\ud800", "\udcaa") for key, value in GARBAGE.items()}
    with traced(path):
        answer = ask(path, WireRequest(environment, b""))
        assert json.loads(answer.output)["code"] == 4
        call(path, "VERSION")
    assert attributes(collector.spans["CNI"])["cni.error.code"] == 4
    assert "CNI VERSION" in collector.spans


PLUGIN = "#!/bin/sh\nenv >{}\n"


@pytest.mark.parametrize("exported", [True, False])
def test_delegated_plugins_are_part_of_it(
    path: str, collector: Collector, tmp_path: Path, exported: bool
) -> None:
    """Below our span where there is one, else as we were called; state and baggage as they were."""
    plugin, told = tmp_path / "address", tmp_path / "told"
    plugin.write_text(PLUGIN.format(told))
    plugin.chmod(0o755)
    conf = {
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "netkit",
        "fallback": "veth",
        "ipam": {"type": "address"},
    }
    environment = {"TRACEPARENT": TRACEPARENT, "TRACESTATE": "a=1,b=2", "BAGGAGE": "c=3"}
    with contextlib.ExitStack() as stack:
        if exported:
            stack.enter_context(traced(path))
        else:
            listener = stack.enter_context(server.listen(path))
            stack.enter_context(served(listener))
        answer = call(
            path, "STATUS", json.dumps(conf).encode(), CNI_PATH=str(tmp_path), **environment
        )
        assert (answer.status, answer.output) == (0, b"")
    found = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert (found["TRACESTATE"], found["BAGGAGE"]) == ("a=1,b=2", "c=3")
    span = collector.spans["CNI STATUS"].span_id.hex() if exported else SPAN
    assert found["TRACEPARENT"] == f"00-{TRACE}-{span}-01"


def test_the_log_names_the_span(
    path: str, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that one finds the other."""
    with traced(path):
        call(path, "ADD", TRACEPARENT=TRACEPARENT)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["trace_id"] == TRACE
    assert line["span_id"] == collector.spans["CNI ADD"].span_id.hex()


@pytest.mark.usefixtures("silent")
def test_nobody_waits_for_a_collector(path: str) -> None:
    """Neither a request, nor the end of the agent."""
    with traced(path):
        for _ in range(20):
            assert call(path, "VERSION").status == 0


def test_a_collector_that_is_not_there(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log tells, in lines like all others."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        named(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    said: list[str] = []

    def told() -> bool:
        said.extend(capsys.readouterr().err.splitlines())
        return bool(said)

    with traced(path):
        assert call(path, "VERSION").status == 0
        wait_for(told, "it is told")
    for line in said:
        assert json.loads(line)["event"] == "traces"


def test_another_protocol(
    path: str,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Which would not be understood: it is said once, and the agent answers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with traced(path):
        assert call(path, "VERSION").status == 0
    assert "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in capsys.readouterr().err
    assert not collector.requests


def test_a_package_that_is_missing(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Unavailable, match="pip install 'cni-netkit\\[otel\\]'"):
        Traces()


def test_whatever_is_wrong_with_them_the_request_is_answered(
    path: str,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("out of spans")

    for name in ("begin", "end"):
        with monkeypatch.context() as patch, traced(path):
            patch.setattr(Traces, name, fail)
            assert call(path, "VERSION").status == 0
        assert "out of spans" in capsys.readouterr().err


# --- Without an agent -----------------------------------------------------------------------------


def plugin(**environment: str) -> "subprocess.CompletedProcess[str]":
    """The plugin in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cni_netkit"],
        env={**os.environ, "CNI_COMMAND": "VERSION", **environment},
        input="{}",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=Path(__file__).parents[2],
    )


def test_a_process_of_its_own(collector: Collector) -> None:
    """Where the runtime records a trace; what it prints is the same."""

    def exported(verb: str) -> "subprocess.CompletedProcess[str] | None":
        """A process has a second for it, which may be too little on a busy machine."""
        done = plugin(TRACEPARENT=TRACEPARENT, CNI_COMMAND=verb)
        return done if f"CNI {verb}" in collector.spans else None

    done = wait_for(lambda: exported("VERSION"), "it is exported")
    assert done
    assert done.returncode == 0
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
    assert done.stderr == ""
    request = collector.spans["CNI VERSION"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
    failed = wait_for(lambda: exported("ADD"), "an error is")
    assert failed
    error = json.loads(failed.stdout)
    assert failed.returncode == 1
    assert attributes(collector.spans["CNI ADD"])["cni.error.code"] == error["code"] == 4


@pytest.mark.parametrize("given", ["", TRACEPARENT[:-1] + "0", "garbage"])
def test_nothing_without_a_trace(collector: Collector, given: str) -> None:
    """It is slow enough without: no package is even loaded."""
    done = plugin(TRACEPARENT=given, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "opentelemetry" not in done.stderr
    assert not collector.requests


@pytest.mark.usefixtures("silent")
def test_it_ends_without_its_collector() -> None:
    done = plugin(TRACEPARENT=TRACEPARENT)
    assert done.returncode == 0
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
