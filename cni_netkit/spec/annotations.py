"""What a pod chooses by annotation, as far as the network configuration lets it.

containerd (internal/cri/annotations, cniNamespaceOpts() of internal/cri/server) and CRI-O (ocicni)
pass the annotations of a pod, a map of strings, under `CAPABILITY`, with ADD, CHECK and DEL.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.words import cut, found, meant, not_json

CAPABILITY = "io.kubernetes.cri.pod-annotations"
PREFIX = "cni-netkit/"

TEXTS = frozenset({"mode", "policy", "peerPolicy", "scrub", "peerScrub"})
"""Keys whose annotation is the value itself; that of the others is JSON."""

NUMBERS = frozenset({"headroom", "tailroom", "mtu"})

LEASE = {
    "count": {"lease", "lease.count"},
    "workload": {"lease", "lease.workload"},
    "flows": {"lease", "lease.flows"},
    "device": {"lease.device"},
    "queues": {"lease.queues"},
}
"""Keys of a lease, and what in allowAnnotations lets a pod choose them.

Which NIC and which of its queues are the node's business: `lease` alone does not give them away.
"""

CHOICES = (
    *("mode", "policy", "peerPolicy", "scrub", "peerScrub"),
    *("headroom", "tailroom", "mtu"),
    *("lease", *(f"lease.{key}" for key in LEASE)),
)
"""Keys that can stand in allowAnnotations: those of the pod's own device.

Not those with a path on the host or addresses in them (log, ipam, bpf); nor those by which GC,
which is sent no annotations, finds an attachment whose record was lost (name, ifName, pairing,
ipMasq); nor what concerns the node or all of a network (fallback, ipMasqBackend,
nonMasqueradeCIDRs); nor dns, for which a pod has words of its own.
"""


def valid_choice(key: str) -> str:
    """Pass a key of allowAnnotations on. Raises ValueError for one that is never a pod's choice."""
    if key not in CHOICES:
        near = meant(key, CHOICES)
        raise ValueError(
            f"is no key that a pod may choose; those are {', '.join(CHOICES)}"
            + (f"; did you mean {near}?" if near else "")
        )
    return key


def _no_choice(key: str, choices: Iterable[str] = CHOICES) -> str:
    near = meant(key, choices)
    return "is no key that a pod may choose" + (f" (did you mean {near}?)" if near else "")


@dataclass(frozen=True)
class Chosen:
    """A network configuration with a pod's choices in it; `annotations` by the paths they set."""

    config: dict[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def named(self, path: str) -> str:
        """What to call a path of the configuration in an error: the annotation, if it is of one."""
        if path not in self.annotations:
            return path
        _, _, rest = path.partition(".")
        return f"annotation {self.annotations[path]}" + (f": {rest}" if rest else "")

    @property
    def configuration(self) -> str:
        """What to call the whole in an error."""
        if not self.annotations:
            return "the network configuration"
        names = ", ".join(dict.fromkeys(self.annotations.values()))
        return f"the network configuration with the pod's annotations ({names})"


def choose(own: Mapping[str, Any], runtime: object, capabilities: object) -> Chosen:
    """Put what a pod chose into its network configuration; values are not validated yet.

    `runtime` is runtimeConfig, `capabilities` those that the configuration declares. Raises error 7
    that names every annotation which cannot be read or is not allowed.
    """
    listed = own.get("allowAnnotations")
    allowed = [key for key in listed if key in CHOICES] if isinstance(listed, list) else []
    if not isinstance(runtime, Mapping) or runtime.get(CAPABILITY) is None:
        _check_capability(allowed, capabilities)
        return Chosen(dict(own))
    given = runtime[CAPABILITY]
    if not isinstance(given, Mapping):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"runtimeConfig.{CAPABILITY} is no object of annotations (found {found(given)})",
            "the container runtime sets it",
        )
    config = dict(own)
    annotations: dict[str, str] = {}
    faults = []
    for name, value in sorted((n, v) for n, v in given.items() if n.startswith(PREFIX)):
        key = name.removeprefix(PREFIX)
        try:
            chosen = _value(key, value, allowed)
        except ValueError as fault:
            faults.append(f"annotation {name}: {fault} (found {_quoted(value)})")
            continue
        annotations[key] = name
        if isinstance(chosen, dict):
            annotations |= {f"{key}.{each}": name for each in chosen}
            configured = config.get(key)
            chosen = {**(configured if isinstance(configured, Mapping) else {}), **chosen}
        config[key] = chosen
    if faults:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"the pod's annotations are not valid: {'; '.join(faults)}",
            "mend or remove the annotations of the pod; what a pod may choose, the node's "
            "administrator lists in allowAnnotations of the network configuration: "
            + (", ".join(allowed) or "nothing so far"),
        )
    return Chosen(config, annotations)


def _quoted(value: object) -> str:
    """As it may stand in a pod's YAML: in single quotes, where JSON is in it."""
    return repr(cut(value)) if isinstance(value, str) else found(value)


def _check_capability(allowed: Collection[str], capabilities: object) -> None:
    """A runtime passes nothing on that was not asked for, and no pod would ever be told."""
    if allowed and not (isinstance(capabilities, Mapping) and capabilities.get(CAPABILITY) is True):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            "the network configuration is not valid: allowAnnotations needs the capability "
            f"{CAPABILITY}: without it the runtime does not pass annotations on",
            f'add "capabilities": {{"{CAPABILITY}": true}} beside allowAnnotations',
        )


def _value(key: str, given: object, allowed: Collection[str]) -> object:
    """Read an annotation. Raises ValueError for one that is not allowed or cannot be read."""
    if key.startswith("lease."):
        raise ValueError(f'is written as {PREFIX}lease: {{"{key.removeprefix("lease.")}": ...}}')
    if key not in CHOICES:
        raise ValueError(f"{key} {_no_choice(key)}")
    if key != "lease" and key not in allowed:
        raise ValueError(f"{key} is not in allowAnnotations")
    if not isinstance(given, str):
        raise ValueError("must be a string")
    if key in TEXTS:
        return given
    value = _json(given)
    if key in NUMBERS:
        # null would be as good as absent, and hide that somebody asked for something.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("must be a whole number")
        return value
    return _lease(value, allowed)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {not_json(error)}") from None


def _lease(chosen: object, allowed: Collection[str]) -> dict[str, Any]:
    if not isinstance(chosen, dict):
        raise ValueError('must be an object such as {"count": 2}')
    faults = []
    for key, value in chosen.items():
        if key not in LEASE:
            faults.append(f"{key} {_no_choice(key, LEASE)}")
        elif not LEASE[key].intersection(allowed):
            faults.append(f"lease.{key} is not in allowAnnotations")
        elif value is None:
            faults.append(f"{key} is null")
    if not chosen:
        faults.append("is empty")
    if faults:
        raise ValueError("; ".join(faults))
    return chosen
