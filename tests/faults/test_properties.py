"""Properties that hold for whatever comes in: any JSON in any field, any bytes in any variable.

Where one does not hold, the smallest example is told. And what is too large for a fuzzer: ten
megabytes, nests of a hundred thousand, each given to the plugin itself as a runtime does.
"""

import copy
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cni_netkit.agent import wire
from cni_netkit.attachment import Attachment, parse_alias
from cni_netkit.spec import result as results
from cni_netkit.spec.config import validate
from cni_netkit.spec.request import check_ifname, read
from cni_netkit.spec.version import SUPPORTED, at_least
from cni_netkit.verbs import VERBS
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
