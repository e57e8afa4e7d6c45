"""The configuration reference is what the models say, and says all of it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import descriptions, reference, schema
from cni_netkit.plan import LACKING
from cni_netkit.spec import config, dns, ipam, lease, nics, ranges, routes, runtime, static
from cni_netkit.spec.config import FOREIGN_KEYS, NetConf
from cni_netkit.spec.lease import Lease

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
ROW = re.compile(r"^\| `([^`]+)` \| (.*) \|$", re.MULTILINE)


def test_the_page_is_what_the_models_make() -> None:
    """Where this fails: python -m cni_netkit.admin.reference >docs/reference.md"""
    assert PAGE.read_text() == reference.text()


def rows() -> dict[str, list[str]]:
    """The cells of each row of the page, by key."""
    return {key: re.split(r"(?<!\\) \| ", cells) for key, cells in ROW.findall(PAGE.read_text())}


def paths(given: dict[str, Any], definitions: dict[str, Any], at: str) -> Iterator[str]:
    """Every path that a JSON Schema has."""
    if name := given.get("$ref", "").removeprefix("#/$defs/"):
        given = definitions[name]
    for key, value in given.get("properties", {}).items():
        path = f"{at}.{key}".removeprefix(".")
        yield path
        yield from paths(value, definitions, path)
    for word in ("anyOf", "oneOf", "allOf"):
        for each in given.get(word, ()):
            yield from paths(each, definitions, at)
    if "items" in given:
        yield from paths(given["items"], definitions, f"{at}[]")


def test_every_key_of_the_schemas_is_in_it() -> None:
    """And none besides: the schemas are tested against the program."""
    configuration, nics_json = schema.schema(), schema.nics_schema()
    definitions = configuration["$defs"]
    told = {*paths(configuration, definitions, ""), *paths(nics_json, nics_json["$defs"], "")}
    claim = schema.claim_schema()
    told |= {*paths(claim, claim["$defs"], "opaque.parameters")}
    for kind in ipam.BUILT_IN:
        told |= {*paths(definitions[kind], definitions, "ipam")}
    assert set(rows()) == told - FOREIGN_KEYS
    text = PAGE.read_text()
    assert all(f"`{key}`" in text for key in FOREIGN_KEYS)


def test_every_key_says_what_it_means() -> None:
    """In each row, and in the schemas."""
    assert all(cells[-1].endswith(".") for cells in rows().values())
    for made in (schema.schema(), schema.nics_schema(), schema.claim_schema()):
        for definition in (made, *made["$defs"].values()):
            for key, value in definition["properties"].items():
                assert value.get("description") or key in FOREIGN_KEYS, key


@pytest.mark.parametrize(
    ("key", "cells"),
    [
        ("mode", ["string", '"l3" or "l2"', '`"l3"`', "6.7"]),
        ("mtu", ["number", "0 (automatic) or from 68 to 65535", "`0`", ""]),
        ("ipMasq", ["true or false", "", "`false`", ""]),
        ("lease.count", ["number", "a whole number from 1 to 1023", "`1`", ""]),
        (
            "lease.queues",
            ["list or string", 'a list of queues [14, 15] or ranges "8-11,14"', "", ""],
        ),
        ("ipam.ranges[][].subnet", ["string", "a subnet of the form 10.1.0.0/16", "required", ""]),
        ("ipam.dataDir", ["string", "", '`"/var/lib/cni/networks"`', ""]),
        ("nics[].role", ["string", '"io_uring" or "af_xdp"', "required", ""]),
    ],
)
def test_a_row(key: str, cells: list[str]) -> None:
    """Type, values, default, and since which Linux."""
    assert rows()[key][:4] == cells


def test_what_else_is_needed() -> None:
    """At the end of the meaning."""
    assert rows()["ipMasq"][-1].endswith("**Needs** `ipam`, and `pairing: pair`.")


@pytest.mark.parametrize(
    ("model", "key", "feature"),
    [
        *((NetConf, key, "netkit") for key in ("mode", "policy", "peer_policy")),
        *((NetConf, key, "scrub") for key in ("scrub", "peer_scrub")),
        (NetConf, "lease", "queue-create"),
        (Lease, "workload", "queue-create"),
    ],
)
def test_releases_are_those_of_the_features(model: Any, key: str, feature: str) -> None:
    """What an error says that the kernel lacks, and since when it has it."""
    assert descriptions.of(model)[key].linux.partition(",")[0] == LACKING[feature][2]
    netkit, single = LACKING["netkit"][2], LACKING["single"][2]
    assert descriptions.of(NetConf)["pairing"].linux == f"{netkit}, `single` {single}"


def test_a_field_without_description_is_an_error() -> None:
    """So none is forgotten."""
    with pytest.raises(KeyError, match="forgotten"):
        descriptions.of(Forgetful)


class Forgetful(config.Log):
    """A model for the test above."""

    forgotten: int = 0


def test_descriptions_cost_a_request_nothing() -> None:
    """They stand in the source alone: a request imports neither what reads them, nor difflib."""
    for module in (config, dns, ipam, lease, nics, ranges, routes, runtime, static):
        for value in vars(module).values():
            fields = getattr(value, "model_fields", {})
            assert not any(field.description for field in fields.values())
    unwanted = ("difflib", "cni_netkit.admin", "cni_netkit.spec.accepted", "jsonschema")
    code = f"import sys, cni_netkit.verbs; print([n for n in {unwanted!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
