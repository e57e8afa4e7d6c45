"""`cni-netkit schema`: the JSON Schemas of the plugin's configuration, of nics.json, of claims.

Types, values, defaults and descriptions come from the models that the plugin itself checks with;
which keys exclude each other is said here once more, in the schema's words: not to be expressed are
ranges that run backwards, and pools that are too small.
"""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from cni_netkit.admin import descriptions
from cni_netkit.spec import ipam
from cni_netkit.spec.claims import Parameters
from cni_netkit.spec.config import FOREIGN_KEYS, NetConf
from cni_netkit.spec.nics import Nics

JSON = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
A_MAC = {"type": "string", "minLength": 1}

SAYS_NOTHING: dict[str, list[Any]] = {"RuntimeConfig": [None, "", []], "Limits": [None, []]}
"""Values that count as no key at all; elsewhere null alone."""


def _has(key: str, value: JSON) -> JSON:
    # "required" and "properties" alone are true of what is no object.
    return {"type": "object", "required": [key], "properties": {key: value}}


def _given(key: str, value: object) -> JSON:
    return _has(key, {"const": value})


WITHOUT_UDP = {
    "properties": {"flows": {"not": {"type": "array", "contains": _given("proto", "udp")}}}
}

COMBINATIONS: list[JSON] = [
    {
        "if": _given("pairing", "single"),
        "then": {
            "properties": {
                **{key: {"enum": ["forward", None]} for key in ("policy", "peerPolicy")},
                **{key: {"enum": ["default", None]} for key in ("scrub", "peerScrub")},
                "fallback": {"enum": ["none", None]},
                "ipMasq": {"enum": [False, None]},
            }
        },
    },
    {"if": _given("fallback", "veth"), "then": {"properties": {"lease": {"type": "null"}}}},
    {
        "if": _given("claims", True),
        "then": {
            "allOf": [_given("pairing", "single")],
            "properties": {"lease": {"type": "null"}, "ipam": {"type": "null"}},
        },
    },
    {
        "if": _has("lease", _given("workload", "af_xdp")),
        "then": _given("pairing", "single"),
    },
    {
        "if": _has("lease", _given("workload", "io_uring")),
        "then": {"properties": {"lease": WITHOUT_UDP}},
    },
    {
        "if": _has("nonMasqueradeCIDRs", {"type": "array", "minItems": 1}),
        "then": _given("ipMasq", True),
    },
    {
        "if": _given("ipMasq", True),
        "then": _has("ipam", {"type": "object"}),
    },
    {
        "if": {
            "anyOf": [
                _has("runtimeConfig", _has("mac", A_MAC)),
                _has("args", _has("cni", _has("mac", A_MAC))),
            ]
        },
        "then": _given("mode", "l2"),
    },
]
"""What excludes each other (spec.config)."""


def schema() -> JSON:
    """The schema of what the plugin is given on standard input (draft 2020-12)."""
    definitions: dict[str, JSON] = {}
    root = _described(NetConf, definitions)
    for kind in ipam.BUILT_IN:
        _described(ipam.model_of(kind), definitions, kind)
    known = root["properties"]
    known["ipam"] = {
        "description": known["ipam"]["description"],
        "type": ["object", "null"],
        "required": ["type"],
        "properties": {"type": {"type": "string"}},
        "allOf": [
            {"if": _given("type", kind), "then": {"$ref": f"#/$defs/{kind}"}}
            for kind in ipam.BUILT_IN
        ],
    }
    known |= {key: {} for key in sorted(FOREIGN_KEYS)} | {"type": {"const": "netkit"}}
    return {
        "$schema": DIALECT,
        **root,
        "patternProperties": {r"^cni\.dev/": {}},
        "required": ["name", "type"],
        "allOf": COMBINATIONS,
        "$defs": definitions,
    }


def nics_schema() -> JSON:
    """The schema of /etc/cni-netkit/nics.json (draft 2020-12)."""
    definitions: dict[str, JSON] = {}
    root = _described(Nics, definitions)
    definitions["Preparation"]["allOf"] = [
        {"if": _given("copy", True), "then": _given("role", "af_xdp")}
    ]
    return {"$schema": DIALECT, **root, "$defs": definitions}


def claim_schema() -> JSON:
    """The schema of a claim's opaque parameters for driver `queues.cni-netkit` (draft 2020-12)."""
    definitions: dict[str, JSON] = {}
    root = _described(Parameters, definitions)
    condition = {"if": _given("workload", "io_uring"), "then": WITHOUT_UDP}
    return {"$schema": DIALECT, **root, "allOf": [condition], "$defs": definitions}


SCHEMAS = {"configuration": schema, "nics": nics_schema, "claim": claim_schema}


def main(of: str) -> int:
    """Print one of `SCHEMAS`; the exit status."""
    print(json.dumps(SCHEMAS[of](), indent=2))
    return 0


class Described(GenerateJsonSchema):
    """With the descriptions of the keys."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JSON:
        """The schema of one model."""
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, description in descriptions.of(model).items():
            key = model.model_fields[name].alias or name
            made["properties"][key]["description"] = str(description)
        return made


def _described(model: type[BaseModel], definitions: dict[str, JSON], name: str = "") -> JSON:
    """The schema of a model; into `definitions` go those within, and with a name its own."""
    made = model.model_json_schema(by_alias=True, schema_generator=Described)
    found = made.pop("$defs", {})
    for each, definition in {**found, name or model.__name__: made}.items():
        _refine(each, definition)
    definitions |= found | ({name: made} if name else {})
    return made


def _refine(name: str, definition: JSON) -> None:
    """Leave out titles, and say that null is the same as no key."""
    definition.pop("title", None)
    properties: dict[str, JSON] = definition["properties"]
    nothing = {"enum": SAYS_NOTHING.get(name, [None])}
    for key, value in properties.items():
        value.pop("title", None)
        notes = {note: value.pop(note) for note in ("default", "description") if note in value}
        refined = _not_null(value)
        if refined and key not in definition.get("required", ()):
            refined = {"anyOf": [refined, nothing]}
        properties[key] = refined | {note: each for note, each in notes.items() if each is not None}


def _not_null(value: JSON) -> JSON:
    """A value's schema without the alternative null."""
    null = {"type": "null"}
    if null not in value.get("anyOf", ()):
        return value
    kept = [each for each in value["anyOf"] if each != null]
    return {**value, "anyOf": kept} if len(kept) > 1 else dict(kept[0])
