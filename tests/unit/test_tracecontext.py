"""TRACEPARENT as W3C Trace Context has it, and what lines of the log say of it."""

import json

import pytest

from cni_netkit import tracecontext, verbs
from cni_netkit.agent import wire
from cni_netkit.agent.server import Agent
from tests.unit.test_server import Handler, agent, connect, handler, path, soon, wait_for

__all__ = ["agent", "handler", "path"]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("given", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        # Level 2: the trace id is random (bit 1); what other bits mean is not known.
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        # A version to come may have more, behind a hyphen.
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_what_is_one(given: str, sampled: bool) -> None:
    found = tracecontext.parent({"TRACEPARENT": given})
    assert found == tracecontext.Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        "\udcff" * 55,
        "٠٠-" + TRACE + "-" + SPAN + "-01",
    ],
)
def test_what_is_none(given: str) -> None:
    assert tracecontext.parent({"TRACEPARENT": given}) is None
    assert tracecontext.words({"TRACEPARENT": given}) == {}


@pytest.mark.parametrize("given", [f"00-{TRACE}-{SPAN}-00", "garbage", None])
def test_lines_of_a_request_say_which_trace(
    given: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is told with it; what is no TRACEPARENT changes nothing, neither line nor answer."""
    environment = {"CNI_COMMAND": "DEL"}
    without = verbs.handle(environment, lambda: b"")
    plain = json.loads(capsys.readouterr().err)
    answer = verbs.handle(
        environment | ({"TRACEPARENT": given} if given is not None else {}), lambda: b""
    )
    line = json.loads(capsys.readouterr().err)
    assert answer == without
    expected = {"trace_id": TRACE, "span_id": SPAN} if given and given != "garbage" else {}
    assert {key: line[key] for key in line.keys() - plain.keys()} == expected


def test_the_agents_own_line_does_too(
    path: str, agent: Agent, handler: Handler, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a request whose launcher went away meanwhile."""
    request = wire.WireRequest({"CNI_COMMAND": "ADD", "TRACEPARENT": f"00-{TRACE}-{SPAN}-01"}, b"")
    with connect(path) as connection:
        wire.send_request(connection, request, soon())
        wait_for(lambda: handler.begun, "it has begun")
    handler.go.set()
    line = json.loads(wait_for(lambda: capsys.readouterr().err, "it is told"))
    assert line["event"] == "nobody took the answer"
    assert (line["trace_id"], line["span_id"]) == (TRACE, SPAN)
