"""Properties that hold for whatever comes in: any JSON in any field, any bytes in any variable.

Where one does not hold, the smallest example is told. And what is too large for a fuzzer: ten
megabytes, nests of a hundred thousand, each given to the plugin itself as a runtime does.
"""

import copy
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from cni_netkit import pages, tracecontext
from cni_netkit.agent import wire
from cni_netkit.attachment import Attachment, parse_alias
from cni_netkit.phases import Course
from cni_netkit.spec import result as results
from cni_netkit.spec.config import validate
from cni_netkit.spec.request import check_ifname, read
from cni_netkit.spec.version import SUPPORTED, at_least
from cni_netkit.traces import Traces
from cni_netkit.verbs import VERBS, handle
from tests.faults.fuzz import mutation, oracle, seeds
from tests.faults.fuzz.targets.request import ENVIRONMENT

pytestmark = pytest.mark.any_kernel

TEXT = st.one_of(st.text(st.characters()), st.sampled_from(mutation.NAMES))
NUMBERS = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
LEAVES = st.one_of(st.none(), NUMBERS, TEXT, st.sampled_from([10**400, -(2**63), 2**64]))
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXT, inner)), max_leaves=8
)
CONFIGURATIONS = [config for _, config in (*seeds.configurations(), *seeds.variations())]
VARIABLE = st.binary(max_size=400).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
often = settings(max_examples=400, deadline=None, derandomize=True, database=None)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration with anything in one place."""
    config: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(CONFIGURATIONS)))
    inside, key = draw(st.sampled_from(list(mutation.places(config))))
    inside[key] = draw(ANYTHING)
    return config


@often
@given(changed())
def test_any_field(config: dict[str, Any]) -> None:
    """It is valid, or the error names every fault; the same each time, and in what it says."""
    with oracle.refusing(2, 7):
        assert validate(config) == validate(json.loads(json.dumps(config)))


@often
@given(changed(), st.sampled_from(list(VERBS)), st.lists(VARIABLE, min_size=4, max_size=4))
def test_any_request(config: dict[str, Any], verb: str, values: list[str]) -> None:
    """Names that are taken are names: they can stand in a path, an alias, and a rule's comment."""
    names = ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
    environment = {**ENVIRONMENT, **dict(zip(names, values, strict=True)), "CNI_COMMAND": verb}
    with oracle.refusing(1, 4, 6, 7):
        request = read(VERBS, environment, json.dumps(config).encode)
        if request.container_id:
            attachment = Attachment(request.network, request.container_id, request.ifname)
            assert check_ifname(attachment.host_device) is None
            if len(" ".join(vars(attachment).values())) < 200:
                assert parse_alias(attachment.alias) == attachment


@often
@given(st.dictionaries(VARIABLE, VARIABLE, max_size=8), st.binary(max_size=2000))
def test_any_environment_goes_through_the_wire(environment: dict[str, str], stdin: bytes) -> None:
    """What the launcher was given is what the agent reads."""
    assume(all("=" not in name for name in environment))
    ours, theirs = socket.socketpair()
    until = time.monotonic() + 30
    with ours, theirs:
        wire.send_request(ours, wire.WireRequest(environment, stdin), until)
        found = wire.receive_request(theirs, until)
    assert (found.environment, found.stdin) == (environment, stdin)


NEARLY = st.builds(
    lambda text, at, length, more: text[:at] + more + text[at + length :],
    st.from_regex(
        re.compile(r"(00|cc|ff)-([0-9a-f]{32}|0{32})-([0-9a-f]{16}|0{16})-[0-9a-f]{2}"),
        fullmatch=True,
    ),
    st.integers(0, 55),
    st.integers(0, 3),
    st.one_of(st.just(""), st.text(max_size=3)),
)
"""What may be a TRACEPARENT, or one once."""


@often
@given(st.one_of(NEARLY, VARIABLE), VARIABLE, VARIABLE)
def test_any_trace_context(traceparent: str, tracestate: str, baggage: str) -> None:
    """The answer is the same; what lines of the log say of it are ids, or nothing."""
    given = {"TRACEPARENT": traceparent, "TRACESTATE": tracestate, "BAGGAGE": baggage}
    words = tracecontext.words(given)
    if words:
        assert re.fullmatch("[0-9a-f]{32}", words["trace_id"])
        assert re.fullmatch("[0-9a-f]{16}", words["span_id"])
        assert int(words["trace_id"], 16)
        assert int(words["span_id"], 16)
        assert f"-{words['trace_id']}-{words['span_id']}-" in traceparent
    asked = {"CNI_COMMAND": "VERSION"}
    assert handle({**asked, **given}, lambda: b"{}") == handle(asked, lambda: b"{}")


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """Spans that are encoded as for a collector, and go nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        patch.setattr(OTLPSpanExporter, "export", _encoded)
        made = Traces()
        yield made
        made.close()


ENCODED: list[bytes] = []


def _encoded(_exporter: OTLPSpanExporter, spans: Sequence[ReadableSpan]) -> SpanExportResult:
    ENCODED.extend(encode_spans([span]).SerializeToString() for span in spans)
    return SpanExportResult.SUCCESS


@often
@given(st.lists(VARIABLE, min_size=5, max_size=5), st.one_of(NEARLY, VARIABLE), VARIABLE)
def test_any_request_is_a_span(
    traces: Traces, values: list[str], traceparent: str, message: str
) -> None:
    """Of the caller's trace where that is one; else of its own; and what is executed knows of it."""
    names = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "TRACESTATE", "BAGGAGE")
    environment = {**dict(zip(names, values, strict=True)), "TRACEPARENT": traceparent}
    caller = tracecontext.parent(environment)
    course = Course(environment, network=values[0], error={"code": 7, "msg": message})
    ENCODED.clear()
    traces.begin(course)
    with course.noted("turn"):
        own = tracecontext.parent(course.environment)
    traces.end(course)
    traces._provider.force_flush()
    if caller and not caller.sampled:
        assert (own, ENCODED) == (caller, [])
        return
    assert own
    assert own.sampled
    assert caller is None or (own.trace_id, own.span_id != caller.span_id) == (
        caller.trace_id,
        True,
    )
    assert len(ENCODED) == 2
    if caller is None:
        assert "TRACESTATE" not in course.environment
    assert course.environment["BAGGAGE"] == environment["BAGGAGE"]


@pytest.fixture(scope="module")
def pages_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("pages") / "pages.sock")
    with pages.served(pages.Address(path), {"/metrics": pages.plain(lambda: b"figures")}):
        yield path


@often
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda method, target, rest: method + b" " + target + b" " + rest + b"\r\n\r\n",
            st.sampled_from([b"GET", b"HEAD", b"POST", b""]),
            st.one_of(st.just(b"/metrics"), st.binary(max_size=20)),
            st.one_of(st.just(b"HTTP/1.1"), st.binary(max_size=20)),
        ),
    )
)
def test_anything_sent_to_the_pages(pages_at: str, said: bytes) -> None:
    """It is one answer of HTTP, which a client of the standard library understands; and the next."""
    for each in (said, b"GET /metrics HTTP/1.1\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(pages_at)
            connection.sendall(each)
            connection.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(
                connection, method="HEAD" if each[:4] == b"HEAD" else "GET"
            )
            response.begin()
            body = response.read()
    assert (response.status, body) == (200, b"figures")


@often
@given(st.data())
def test_any_result(data: st.DataObject) -> None:
    """What is read of another plugin can be told in every version, and read again as the same."""
    result = copy.deepcopy(seeds.PREVIOUS)
    inside, key = data.draw(st.sampled_from(list(mutation.places(result))))
    inside[key] = data.draw(ANYTHING)
    with oracle.refusing(1, 6):
        found = results.read(result, "1.1.0")
        for version in SUPPORTED:
            with oracle.refusing(1):
                rendered = json.loads(json.dumps(results.render(found, version)))
                if at_least(version, "1.0.0"):
                    assert results.read(rendered, version) == found


def of(text: str) -> bytes:
    """A configuration with a key that is written by hand."""
    return b'{"cniVersion": "1.1.0", "name": "net", "type": "netkit", ' + text.encode() + b"}"


ALONE = (
    "unshare",
    "--net",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs none /var/lib && exec "$@"',
    "sh",
)
"""With nothing there that a GC could take for left over."""

LARGE = {
    "ten megabytes": of(f'"args": {{"a": "{"a" * 10_000_000}"}}'),
    "ten megabytes of a name": of(f'"name": "{"a" * 10_000_000}"'),
    "twenty thousand keys": of(", ".join(f'"k{number}": 1' for number in range(20_000))),
    "a deep list": of(f'"args": {"[" * 100_000}{"]" * 100_000}'),
    "a deep object": of('"args": ' + '{"a": ' * 100_000 + "1" + "}" * 100_000),
    "a deep list without end": b"[" * 1_000_000,
    "a nest that can just be read": of(f'"ipam": {"[" * 900}{"]" * 900}'),
    "a huge integer": of(f'"mtu": {"9" * 100_000}'),
    "a number": of('"mtu": NaN'),
    "a key twice": of('"mtu": 1500, "mtu": "a", "name": 5, "name": "net2"'),
    "half a pair": of(r'"ipam": {"type": "\ud800"}'),
    "no UTF-8": of('"ipam": 1').replace(b"1}", b'"\xff\xfe"}'),
    "two documents": of('"mtu": 0') * 2,
    "nothing": b"",
    "zeroes": bytes(1000),
}


@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC"])
@pytest.mark.parametrize("what", LARGE)
def test_one_document(what: str, verb: str) -> None:
    """The plugin itself, in a namespace that is not there: at most one document, and no traceback."""
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "cni_netkit"],
        input=LARGE[what],
        env={**ENVIRONMENT, "CNI_COMMAND": verb, "CNI_NETNS": "/nonexistent", "PATH": "/usr/bin"},
        capture_output=True,
    )
    assert done.returncode in (0, 1)
    assert b"Traceback" not in done.stderr
    document = oracle.strict(done.stdout) if done.stdout else {}
    if done.returncode:
        oracle.judge_error(document)
        assert len(done.stdout) < 100_000, "an error that nobody can read"
