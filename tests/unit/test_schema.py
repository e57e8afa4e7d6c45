"""The schema of the configuration, by a validator that is not ours: it says what the program says."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cni_netkit.admin import schema as admin
from cni_netkit.dra.inventory import DRIVER
from cni_netkit.spec.claims import validate as validate_claim
from cni_netkit.spec.config import FOREIGN_KEYS, validate
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.nics import validate_nics
from tests.unit.given import conf
from tests.unit.test_config import BAD, GOOD, IMPOSSIBLE, LEASE, nested, rows

CONF = Path(__file__).parents[2] / "conf"

NOT_TO_BE_EXPRESSED: list[tuple[str, object]] = [
    # For JSON Schema a number without fraction is an integer however it is written.
    ("mtu", 1500.0),
    ("tailroom", 1.0),
    ("lease.queues", "11-8"),
    ("lease.queues", "65536"),
    ("lease.queues", "0-99999"),
    *(
        ("nonMasqueradeCIDRs", [each])
        for each in ("", "x", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "fd00::/129")
    ),
    ("nonMasqueradeCIDRs", ["10.0.0.0/8", "fd00::1/48"]),
    ("nonMasqueradeCIDRs", ["::ffff:10.0.0.0/104"]),
]
"""What only the program refuses, of `BAD`."""

IMPOSSIBLE_FOR_THE_PROGRAM_ONLY = [{"lease": {**LEASE, "count": 3, "queues": "1-2"}}]

MISSPELT = [
    {"foo": 1},
    {"pairng": "single"},
    {"MTU": 1500},
    {"peer_policy": "forward"},
    {"lease": {**LEASE, "foo": 17}},
    {"log": {"format": "json"}},
    {"netkit/mode": "l2"},
    {"cni.devil": 1},
    {"bpf": {"primary": "/sys/fs/bpf/x"}},
    {"lease": {**LEASE, "flows": [{"proto": "tcp", "dstPort": 1, "srcPort": 1}]}},
    {"runtimeConfig": {"bandwidth": {"unshapedSubnets": ["10.0.0.0/8"]}}},
    {"runtimeConfig": {"bandwidth": {"ingressRate": 7, "ingressBurst": 8}}},
    {"isGateway": True},
    {"name": None},
]


def validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(json.dumps(admin.schema())))


def refused_by_program(config: dict[str, Any]) -> bool:
    try:
        validate(copy.deepcopy(config))
    except CNIError as error:
        return error.code in (2, 7)
    return False


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every configuration of type netkit in conf/, with what libcni adds."""
    for path in sorted(CONF.rglob("*.conf*")):
        given = json.loads(path.read_text())
        for number, plugin in enumerate(given.get("plugins", [given])):
            common = {key: given[key] for key in ("cniVersion", "name")}
            for each in (plugin, plugin.get("delegate", {})):
                if each.get("type") == "netkit":
                    yield f"{path.name}-{number}", {**each, **common}


def test_it_is_a_schema() -> None:
    """Of the draft that it names."""
    assert admin.schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(admin.schema())


def test_what_is_printed_is_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main("configuration") == 0
    assert json.loads(capsys.readouterr().out) == admin.schema()
    assert admin.main("nics") == 0
    assert json.loads(capsys.readouterr().out) == admin.nics_schema()
    assert admin.main("claim") == 0
    assert json.loads(capsys.readouterr().out) == admin.claim_schema()


def test_there_are_examples() -> None:
    """None of conf/ is left out: twelve files have one entry, one has two."""
    names = [name for name, _ in entries()]
    assert len(names) == len(set(names))
    files = [path for path in CONF.rglob("*.conf*") if '"netkit"' in path.read_text()]
    assert {path.name for path in files} == {name.rpartition("-")[0] for name in names}


@pytest.mark.parametrize("config", [config for _, config in entries()], ids=dict(entries()))
def test_examples_are_valid(config: dict[str, Any]) -> None:
    validator().validate(config)
    assert not refused_by_program(config)


@pytest.mark.parametrize(("path", "value"), rows(GOOD))
def test_good_values_are_valid(path: str, value: object) -> None:
    """As the program believes them."""
    validator().validate(nested(path, value))


@pytest.mark.parametrize(("path", "value"), rows(BAD))
def test_bad_values_are_not(path: str, value: object) -> None:
    """Save for the few that a schema cannot tell, each of which is named."""
    config = nested(path, value)
    assert refused_by_program(config)
    told = not any(path == p and repr(value) == repr(v) for p, v in NOT_TO_BE_EXPRESSED)
    assert validator().is_valid(config) != told


@pytest.mark.parametrize("more", MISSPELT, ids=str)
def test_other_keys_are_refused(more: dict[str, Any]) -> None:
    """Unknown and planned ones, on every level, by both."""
    assert refused_by_program(conf(**more))
    assert not validator().is_valid(conf(**more))


def test_flows_by_port_are_valid() -> None:
    """From the first to the last port."""
    flows = [{"proto": "tcp", "dstPort": 1}, {"proto": "udp", "dstPort": 65535}]
    config = conf(lease={**LEASE, "flows": flows})
    assert not refused_by_program(config)
    validator().validate(config)


@pytest.mark.parametrize("more", [more for more, _ in IMPOSSIBLE], ids=str)
def test_impossible_combinations_are_not_valid(more: dict[str, Any]) -> None:
    assert refused_by_program(conf(**more))
    assert validator().is_valid(conf(**more)) == (more in IMPOSSIBLE_FOR_THE_PROGRAM_ONLY)


@pytest.mark.parametrize(
    "more",
    [
        *({key: None} for key, _ in GOOD if "." not in key),
        *({key: "anything"} for key in sorted(FOREIGN_KEYS - {"type"})),
        {"cni.dev/valid-attachments": []},
        {"lease": {"device": None, "count": None, "queues": None, "flows": None}, "bpf": None},
        {"dns": {"nameservers": None, "other": 1}, "log": {"level": None}},
        {"runtimeConfig": {"mac": "", "ips": [], "dns": None, "portMappings": [{"hostPort": 80}]}},
        {"runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8, "egressRate": 0}}},
        {"deviceID": "0000:03:00.0", "pciBusID": ""},
        {"pairing": "single", "policy": "forward", "ipMasq": None},
    ],
    ids=str,
)
def test_what_says_nothing_is_valid(more: dict[str, Any]) -> None:
    """Keys of others, and null, which is as good as no key."""
    assert not refused_by_program(conf(**more))
    validator().validate(conf(**more))


@pytest.mark.parametrize(
    "ipam",
    [
        {"type": "host-local", "ranges": [{"subnet": "10.1.0.0/16"}]},
        {"type": "host-local", "ranges": [[{"rangeStart": "10.1.0.2"}]]},
        {"type": "host-local", "routes": {}},
        {"type": "static", "addresses": [{"gateway": "10.1.0.1"}]},
        {"type": "static", "addresses": [{"address": 5}]},
        {"type": 5},
        {},
    ],
    ids=str,
)
def test_faults_of_ipam(ipam: dict[str, Any]) -> None:
    """Of the two types that are built in; what another one has in it is its own."""
    assert not validator().is_valid(conf(ipam=ipam))
    assert validator().is_valid(conf(ipam={**ipam, "type": "another"}))


NIC = {"device": "eth0", "role": "af_xdp", "queues": "8-15"}


def nics_validator() -> Any:
    made = json.loads(json.dumps(admin.nics_schema()))
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize(
    "nics",
    [
        json.loads((CONF / "nics.json").read_text())["nics"],
        [],
        [{**NIC, "queues": [14, 15], "channels": 16, "ring": 64, "copy": True}],
        [{**NIC, "channels": None, "ring": None, "copy": None}],
    ],
    ids=["example", "none", "everything", "null"],
)
def test_nics_that_are_valid(nics: Any) -> None:
    """By schema and program alike."""
    nics_validator().validate({"nics": nics})
    assert len(validate_nics({"nics": nics}, "nics.json")) == len(nics)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, True),
        ({"nics": {}}, True),
        ({"nics": [{**NIC, "role": "dpdk"}]}, True),
        ({"nics": [{**NIC, "device": "a/b"}]}, True),
        ({"nics": [{**NIC, "queues": "8-"}]}, True),
        ({"nics": [{**NIC, "queues": []}]}, True),
        ({"nics": [{**NIC, "queues": None}]}, True),
        ({"nics": [{**NIC, "ring": 0}]}, True),
        ({"nics": [{**NIC, "channels": "16"}]}, True),
        ({"nics": [{**NIC, "role": "io_uring", "copy": True}]}, True),
        ({"nics": [{**NIC, "rings": 8}]}, True),
        ({"nics": [], "nic": []}, True),
        ({"nics": [{**NIC, "channels": 8}]}, False),
        ({"nics": [NIC, NIC]}, False),
    ],
    ids=str,
)
def test_nics_that_are_not(given: Any, told: bool) -> None:
    """The program refuses each; the schema but for what it cannot say."""
    with pytest.raises(CNIError):
        validate_nics(given, "nics.json")
    assert nics_validator().is_valid(given) != told


CLAIM = {"apiVersion": "cni-netkit/v1", "kind": "Queues"}


def claim_validator() -> Any:
    made = json.loads(json.dumps(admin.claim_schema()))
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def parameters(given: object) -> Iterator[dict[str, Any]]:
    """Whatever is said to our driver, anywhere in a manifest."""
    if isinstance(given, dict):
        if given.get("driver") == DRIVER and "parameters" in given:
            yield given["parameters"]
        given = list(given.values())
    for each in given if isinstance(given, list) else ():
        yield from parameters(each)


def test_examples_of_claims_are_valid() -> None:
    """Of all manifests; by schema and program alike."""
    manifests = [*CONF.rglob("*.yaml")]
    documents = [each for path in manifests for each in yaml.safe_load_all(path.read_text())]
    found = [*parameters(documents)]
    assert found
    for each in found:
        claim_validator().validate(each)
        validate_claim(each)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"workload": None, "flows": None, "ifName": None},
        {"workload": "af_xdp", "flows": [{"proto": "udp", "dstPort": 1}], "ifName": "fast0"},
        {"workload": "io_uring", "flows": [{"proto": "tcp", "dstPort": 65535}]},
        {"workload": "io_uring", "flows": "none"},
    ],
    ids=str,
)
def test_claims_that_are_valid(more: dict[str, Any]) -> None:
    claim_validator().validate({**CLAIM, **more})
    validate_claim({**CLAIM, **more})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"kind": "Queues"},
        {"apiVersion": "cni-netkit/v1"},
        {**CLAIM, "apiVersion": "cni-netkit/v2"},
        {**CLAIM, "kind": "Queue"},
        {**CLAIM, "count": 2},
        {**CLAIM, "ifname": "zc0"},
        {**CLAIM, "ifName": "a/b"},
        {**CLAIM, "workload": "dpdk"},
        {**CLAIM, "flows": []},
        {**CLAIM, "flows": "all"},
        {**CLAIM, "flows": [{"proto": "tcp", "dstPort": 0}]},
        {**CLAIM, "workload": "io_uring", "flows": [{"proto": "udp", "dstPort": 1}]},
    ],
    ids=str,
)
def test_claims_that_are_not(given: dict[str, Any]) -> None:
    """By schema and program alike."""
    assert not claim_validator().is_valid(given)
    with pytest.raises(CNIError):
        validate_claim(given)
