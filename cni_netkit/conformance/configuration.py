"""The configuration that a plugin is given, from a file as runtimes have it."""

import json
from pathlib import Path

from cni_netkit.conformance.plugin import JSON


class Unusable(Exception):
    """The file is no network configuration."""


def read(path: Path, executable: Path) -> JSON:
    """The plugin's entry as a runtime derives it; of a list, that of its type, else the first.

    Raises Unusable, with the reason.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise Unusable(f"{path}: no JSON object")
    if "plugins" not in found:
        return _derived(found, found)
    plugins = found["plugins"]
    if not isinstance(plugins, list) or not all(isinstance(each, dict) for each in plugins):
        raise Unusable(f"{path}: plugins is no list of objects")
    entries = [each for each in plugins if each.get("type") == executable.name] or plugins
    if not entries:
        raise Unusable(f"{path}: plugins is empty")
    return _derived(entries[0], found)


def _derived(entry: JSON, network: JSON) -> JSON:
    kept = {key: value for key, value in entry.items() if key != "capabilities"}
    own: JSON = {key: network[key] for key in ("cniVersion", "name") if key in network}
    return {**kept, "name": "conformance", **own}
