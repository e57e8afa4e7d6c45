"""A node's network configuration list, made of a template and of what Node objects say.

What differs from node to node is left out of the template, and filled in here: the ranges of
host-local, the default routes of their families, and the ranges of all nodes, towards which
nothing is masqueraded. All else is as it stands in the template. For the form of a list see the
CNI specification, section 1 ("Network configuration format").
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_netkit import files
from cni_netkit.node.ranges import as_few
from cni_netkit.spec import version as versions
from cni_netkit.spec.addresses import ip_network
from cni_netkit.spec.config import validate
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.words import found, not_json, read_json

JSON = dict[str, Any]
OURS = "netkit"
DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
EXCLUDED = "nonMasqueradeCIDRs"
EXCLUDED_MOST = 512
"""Of each family, of 1024 that there may be. Thousands of nodes, some gone, would have more."""

FILLED_IN = ("ranges", "subnet")
"""Keys of host-local that say where addresses come from."""

EXAMPLE_RANGES = ("192.0.2.0/24", "2001:db8::/64")
"""To see at once whether the rest of a template is valid (RFC 5737, RFC 3849)."""

ADVICE = "mend 10-netkit.conflist in the ConfigMap; docs/kubernetes.md says what it looks like"


class ForeignList(Exception):
    """There is a file of that name which is not ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} has no plugin of type {OURS}, so it is somebody else's, and was left alone"
        )


@dataclass(frozen=True)
class Template:
    """A list that lacks what is the node's own; `number` is that of the plugin which gets it."""

    fields: JSON
    number: int

    @classmethod
    def read(cls, data: bytes, what: str) -> "Template":
        """Read one; `what` names the file. Raises error 2, 6 or 7 with every fault."""
        try:
            fields = read_json(data)
        except (ValueError, RecursionError) as error:
            raise CNIError(
                Code.UNDECODABLE, f"{what} is no JSON: {not_json(error)}", ADVICE
            ) from None
        if not isinstance(fields, dict):
            raise _invalid(what, f"it is not a JSON object (found {found(fields)})")
        plugins = fields.get("plugins")
        if not isinstance(plugins, list) or not all(isinstance(each, dict) for each in plugins):
            raise _invalid(what, f"plugins must be a list of objects (found {found(plugins)})")
        given = [number for number, each in enumerate(plugins) if _takes_ranges(each)]
        if len(given) != 1:
            raise _invalid(
                what,
                f"{len(given)} of its plugins are of type {OURS} with ipam.type host-local, and it "
                "must be one: that which gets the node's ranges",
            )
        (number,) = given
        if named := [key for key in FILLED_IN if key in plugins[number]["ipam"]]:
            raise _invalid(
                what,
                f"plugins.{number}.ipam has {' and '.join(named)}, and is the same on all nodes: "
                "leave it out, each node's podCIDRs are filled in",
            )
        template = cls(fields, number)
        template.complete(EXAMPLE_RANGES, EXAMPLE_RANGES, what)
        return template

    @property
    def network(self) -> str:
        """The network's name."""
        return str(self.fields["name"])

    @property
    def masquerades(self) -> bool:
        """Whether what leaves the node is masqueraded."""
        return self._plugin.get("ipMasq") is True

    def excluded(self, made: JSON) -> list[str]:
        """Towards what a list that was made of it does not masquerade."""
        listed: list[str] = made["plugins"][self.number][EXCLUDED]
        return listed

    def _exclude(self, cluster: Iterable[str]) -> list[str]:
        """The ranges of `cluster` and those that the template names, as few as they can be."""
        networks = [ip_network(each) for each in (*self._plugin.get(EXCLUDED, ()), *cluster)]
        return [
            str(each)
            for version in DEFAULT_ROUTES
            for each in as_few(_of_version(networks, version), EXCLUDED_MOST)
        ]

    def complete(self, ranges: Sequence[str], cluster: Iterable[str], what: str) -> JSON:
        """The list of a node with these ranges; `cluster` has those of all nodes.

        Raises error 2 or 7, in which `what` names the file.
        """
        made = {
            **self._plugin,
            "ipam": {
                # Without them a container could reach its gateway alone.
                "routes": [
                    {"dst": DEFAULT_ROUTES[version]}
                    for version in sorted({ip_network(each).version for each in ranges})
                ],
                **self._plugin["ipam"],
                "ranges": [[{"subnet": each}] for each in ranges],
            },
        }
        try:
            if self.masquerades:
                made[EXCLUDED] = self._exclude(cluster)
        except (TypeError, ValueError) as error:
            raise _invalid(what, f"plugins.{self.number}.{EXCLUDED}: {error}") from None
        plugins = list(self.fields["plugins"])
        plugins[self.number] = made
        for number, each in enumerate(plugins):
            if each.get("type") == OURS:
                self._check(each, f"{what}, plugins.{number}")
        return {**self.fields, "plugins": plugins}

    def _check(self, plugin: JSON, what: str) -> None:
        """What the plugin itself would say of it when a pod starts."""
        keys = ("cniVersion", "name")
        common: JSON = {key: self.fields[key] for key in keys if key in self.fields}
        try:
            versions.negotiate(common.get("cniVersion") or versions.SUPPORTED[0])
            validate({**plugin, **common})
        except CNIError as error:
            raise CNIError(error.code, f"{what}: {error.message}", ADVICE) from None

    @property
    def _plugin(self) -> JSON:
        plugin: JSON = self.fields["plugins"][self.number]
        return plugin


def write(path: Path, made: JSON) -> bool:
    """Have a list in a file that runtimes read; whether it was another before.

    Raises `ForeignList`, and OSError.
    """
    data = json.dumps(made, indent=2).encode() + b"\n"
    if _present(path) == data:
        return False
    files.replace(path, data)
    return True


def remove(path: Path) -> bool:
    """Remove a list, which makes the node NotReady; whether there was one. Raises as `write`."""
    if _present(path) is None:
        return False
    path.unlink()
    return True


def _present(path: Path) -> bytes | None:
    """What is in the file, if there is one. Raises `ForeignList`, and OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    with suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
        if OURS in {each.get("type") for each in json.loads(data)["plugins"]}:
            return data
    raise ForeignList(path)


def _takes_ranges(plugin: JSON) -> bool:
    ipam = plugin.get("ipam")
    return (
        plugin.get("type") == OURS and isinstance(ipam, dict) and ipam.get("type") == "host-local"
    )


def _of_version(networks: Iterable[Any], version: int) -> Iterator[Any]:
    return (each for each in networks if each.version == version)


def _invalid(what: str, fault: str) -> CNIError:
    return CNIError(Code.INVALID_CONFIGURATION, f"{what} is not valid: {fault}", ADVICE)
