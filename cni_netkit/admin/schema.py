"""`cni-netkit schema`: the JSON Schemas of the plugin's configuration and of nics.json.

Types, values, defaults and descriptions come from the models that the plugin itself checks with;
what those check in code is said here once more, in the schema's words.
"""

import json
from typing import Any

from pydantic import BaseModel

from cni_netkit.ipam import ranges, static
from cni_netkit.spec.config import (
    BURST_MAX,
    DEVICE_ID_FORM,
    FOREIGN_KEYS,
    MTU_MAX,
    MTU_MIN,
    RATE_MAX,
    NetConf,
)
from cni_netkit.spec.nics import Nics
from cni_netkit.spec.request import IFNAME_BYTES

JSON = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IFNAME = {"pattern": rf"^(?!\.{{1,2}}$)[^/:\s\u0000]{{1,{IFNAME_BYTES}}}$"}
DEVICE_ID = {"pattern": f"^({DEVICE_ID_FORM})?$"}
QUEUES = {
    "anyOf": [
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 65535},
            "minItems": 1,
        },
        {
            "type": "string",
            "pattern": r"^\s*\d{1,5}(\s*-\s*\d{1,5})?\s*(,\s*\d{1,5}(\s*-\s*\d{1,5})?\s*)*$",
        },
    ]
}
FLOWS = {
    "anyOf": [
        {"enum": ["address", "none"]},
        {"type": "array", "items": {"$ref": "#/$defs/Flow"}, "minItems": 1},
    ]
}
A_MAC = {"type": "string", "minLength": 1}
PLANNED = {"type": "null", "description": "planned, not built yet"}


def _zero_or(least: int, most: int) -> JSON:
    return {"anyOf": [{"const": 0}, {"minimum": least, "maximum": most}]}


CHECKED_IN_CODE: dict[str, dict[str, JSON]] = {
    "NetConf": {
        "mtu": _zero_or(MTU_MIN, MTU_MAX),
        "ifName": IFNAME,
        "deviceID": DEVICE_ID,
        "pciBusID": DEVICE_ID,
        "bpf": PLANNED,
    },
    "Preparation": {"device": IFNAME, "queues": QUEUES},
    "Lease": {"device": IFNAME, "queues": QUEUES, "flows": FLOWS},
    "RuntimeConfig": {
        "mac": {"pattern": "^(?!(00:){5}00$)[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"},
        "deviceID": DEVICE_ID,
    },
    "Limits": {
        "ingressRate": _zero_or(8, RATE_MAX),
        "ingressBurst": _zero_or(8, BURST_MAX),
        "egressRate": _zero_or(8, RATE_MAX),
        "egressBurst": _zero_or(8, BURST_MAX),
    },
}
"""By model and key. Not to be expressed: ranges that run backwards, pools that are too small."""

SAYS_NOTHING: dict[str, list[Any]] = {"RuntimeConfig": [None, "", []], "Limits": [None, []]}
"""Values that count as no key at all; elsewhere null alone."""


def _has(key: str, value: JSON) -> JSON:
    # "required" and "properties" alone are true of what is no object.
    return {"type": "object", "required": [key], "properties": {key: value}}


def _given(key: str, value: object) -> JSON:
    return _has(key, {"const": value})


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
        "if": _has("lease", _given("workload", "af_xdp")),
        "then": _given("pairing", "single"),
    },
    {
        "if": _has("lease", _given("workload", "io_uring")),
        "then": {
            "properties": {
                "lease": {
                    "properties": {
                        "flows": {"not": {"type": "array", "contains": _given("proto", "udp")}}
                    }
                }
            }
        },
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
    _described(static.Config, definitions, "static")
    _described(ranges.Config, definitions, "host-local")
    # The capability ipRanges, which the plugin puts there itself.
    del definitions["host-local"]["properties"]["ipRanges"]
    known = root["properties"]
    known["ipam"] = {
        "type": ["object", "null"],
        "required": ["type"],
        "properties": {"type": {"type": "string"}},
        "allOf": [
            {"if": _given("type", kind), "then": {"$ref": f"#/$defs/{kind}"}}
            for kind in ("host-local", "static")
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


def main(of: str) -> int:
    """Print the schema of the "configuration" or of "nics"; the exit status."""
    print(json.dumps(nics_schema() if of == "nics" else schema(), indent=2))
    return 0


def _described(model: type[BaseModel], definitions: dict[str, JSON], name: str = "") -> JSON:
    """The schema of a model; into `definitions` go those within, and with a name its own."""
    made = model.model_json_schema(by_alias=True)
    found = made.pop("$defs", {})
    for each, definition in {**found, name or model.__name__: made}.items():
        _refine(each, definition)
    definitions |= found | ({name: made} if name else {})
    return made


def _refine(name: str, definition: JSON) -> None:
    """Add to a model's schema what its code checks, and that null is the same as no key."""
    definition.pop("title", None)
    properties: dict[str, JSON] = definition["properties"]
    nothing = {"enum": SAYS_NOTHING.get(name, [None])}
    for key, value in properties.items():
        value.pop("title", None)
        default = value.pop("default", None)
        refined = _not_null(value)
        checked = CHECKED_IN_CODE.get(name, {}).get(key)
        if checked in (PLANNED, QUEUES, FLOWS):
            refined = checked
        elif checked:
            refined = {"allOf": [refined, checked]}
        if refined and key not in definition.get("required", ()):
            refined = {"anyOf": [refined, nothing]}
        properties[key] = refined | ({} if default is None else {"default": default})


def _not_null(value: JSON) -> JSON:
    """A value's schema without the alternative null, which comes last."""
    alternatives = value.get("anyOf", [])
    if {"type": "null"} not in alternatives:
        return value
    (kept,) = (each for each in alternatives if each != {"type": "null"})
    return dict(kept)
