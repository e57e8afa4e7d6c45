"""One call of the plugin: CNI_* environment and standard input (specification section 2)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cni_netkit.spec import version as versions
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.words import found, not_json, read_json, shown

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
IFNAME_BYTES = 15
"""IFNAMSIZ - 1 of include/uapi/linux/if.h."""


@dataclass(frozen=True)
class Request:
    """A request whose environment and version are known to be sound; `config` is still raw.

    `netns_descriptor` is the open namespace, where it came that way, `route_descriptor` an
    rtnetlink socket in it; both are somebody else's to close. `added_to` is that of a record.
    """

    verb: str
    version: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    path: tuple[str, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    netns_override: bool = False
    netns_descriptor: int | None = None
    route_descriptor: int | None = None
    added_to: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_version(self) -> bool:
        """Whether the configuration names a version; else `version` is the oldest."""
        return bool(self.config.get("cniVersion"))

    @property
    def network(self) -> str:
        """Name of the network configuration."""
        return str(self.config["name"])


@dataclass(frozen=True)
class Verb:
    """A verb: what carries it out, and what the specification demands before."""

    run: Callable[[Request], dict[str, Any] | None]
    required: tuple[str, ...] = ()
    since: str = versions.SUPPORTED[0]
    reads_arguments: bool = False


def read(
    verbs: Mapping[str, Verb], environment: Mapping[str, str], stdin: Callable[[], bytes]
) -> Request:
    """Check environment and standard input of a request against the table of verbs.

    `stdin` reads standard input, to its end. Raises error 4 (all faults of the environment in one
    text), 5 (input cannot be read), 6 (not JSON, no version), 1 (version, or verb in
    that version, not supported), 7 (network name).
    """
    command = environment.get("CNI_COMMAND", "")
    verb = verbs.get(command)
    if verb is None:
        raise CNIError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_COMMAND is {command!r}, which is no verb of the CNI specification",
            f"known verbs: {', '.join(verbs)}",
        )
    if command == "VERSION":
        return Request(command, _version_asked_for(stdin))
    _check_environment(command, verb, environment)
    config = _decode(_read(stdin))
    asked = config.get("cniVersion")
    # As in Go, an empty string and null say as little as no key at all.
    is_missing = asked in (None, "")
    version = versions.SUPPORTED[0] if is_missing else versions.negotiate(asked)
    if not versions.at_least(version, verb.since):
        raise CNIError(
            Code.INCOMPATIBLE_VERSION,
            f"{command} exists since CNI version {verb.since}, "
            f"the network configuration asks for {version}"
            + (", as it has no cniVersion" if is_missing else ""),
            "raise cniVersion in the network configuration",
        )
    _check_name(config)
    # GC and STATUS concern the network, whatever else the runtime left in the environment.
    concerns_container = bool(verb.required)
    return Request(
        verb=command,
        version=version,
        container_id=environment.get("CNI_CONTAINERID", "") if concerns_container else "",
        netns=environment.get("CNI_NETNS", "") if concerns_container else "",
        ifname=environment.get("CNI_IFNAME", "") if concerns_container else "",
        path=tuple(filter(None, environment.get("CNI_PATH", "").split(":"))),
        arguments=(
            _parse_arguments(environment.get("CNI_ARGS", "")) if verb.reads_arguments else {}
        ),
        netns_override=environment.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true"),
        config=config,
        environment=dict(environment),
    )


def check_ifname(name: str) -> str | None:
    """Say what keeps `name` from being an interface name, if anything (dev_valid_name())."""
    if not name or name in (".", ".."):
        return "is empty, '.' or '..'"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if size > IFNAME_BYTES:
        return f"is longer than {IFNAME_BYTES} bytes"
    if any(character in "/:\0" or character.isspace() for character in name):
        return "has a '/', a ':', a space or a zero byte in it"
    return None


def _check_environment(command: str, verb: Verb, environment: Mapping[str, str]) -> None:
    faults = []
    missing = [f"CNI_{name}" for name in verb.required if not environment.get(f"CNI_{name}")]
    if missing:
        faults.append(f"{', '.join(missing)} not set")
    container_id = environment.get("CNI_CONTAINERID", "")
    if "CONTAINERID" in verb.required and container_id and not IDENTIFIER.match(container_id):
        faults.append(
            f"CNI_CONTAINERID {container_id!r} does not begin with a letter or digit "
            "or has others than letters, digits, '_', '.', '-' in it"
        )
    ifname = environment.get("CNI_IFNAME", "")
    if "IFNAME" in verb.required and ifname and (fault := check_ifname(ifname)):
        faults.append(f"CNI_IFNAME {ifname!r} {fault}")
    if faults:
        raise CNIError(
            Code.INVALID_ENVIRONMENT,
            f"{command} cannot be carried out: {'; '.join(faults)}",
            "the container runtime sets these variables",
        )


def _parse_arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: K=V;K=V. Unknown keys are for others only if IgnoreUnknown says so."""
    arguments: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        key, separator, value = pair.partition("=")
        if not separator or "=" in value:
            raise CNIError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_ARGS has {pair!r}, which is not of the form KEY=VALUE",
                f"CNI_ARGS is {text!r}",
            )
        arguments[key] = value
    if arguments.get("IgnoreUnknown", "").lower() in ("1", "true"):
        return arguments
    unknown = sorted(set(arguments) - {"IgnoreUnknown", "IP", "GATEWAY", "MAC"})
    if unknown:
        raise CNIError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS has keys that are not known: {', '.join(unknown)}",
            "add IgnoreUnknown=1 to CNI_ARGS if they are meant for another plugin",
        )
    return arguments


def _read(stdin: Callable[[], bytes]) -> bytes:
    try:
        return stdin()
    except OSError as error:
        raise CNIError(
            Code.IO_FAILURE,
            f"the network configuration cannot be read from standard input: {error.strerror}",
        ) from None


def _decode(stdin: bytes) -> dict[str, Any]:
    try:
        config = read_json(stdin)
    except (ValueError, RecursionError) as error:
        raise CNIError(
            Code.UNDECODABLE,
            f"the network configuration on standard input is not JSON: {not_json(error)}",
        ) from None
    if not isinstance(config, dict):
        raise CNIError(
            Code.UNDECODABLE,
            "the network configuration on standard input is not a JSON object "
            f"(found {found(config)})",
            "a plugin is given one object, that of a single plugin",
        )
    if isinstance(config.get("plugins"), list) and "type" not in config:
        raise _whole_list(config["plugins"])
    return config


def _whole_list(plugins: Sequence[Any]) -> CNIError:
    """Error 7 for what stands in a .conflist: a runtime takes it apart."""
    kinds = [str(each.get("type", "?")) if isinstance(each, dict) else "?" for each in plugins]
    place = kinds.index("netkit") if "netkit" in kinds else 0
    return CNIError(
        Code.INVALID_CONFIGURATION,
        "on standard input there is a whole list of plugins "
        f"({', '.join(kinds) or 'none'}); a plugin is given its own entry alone, "
        "with cniVersion and name of the list in it",
        f"jq '{{cniVersion, name}} + .plugins[{place}]' takes the entry out of the file; cnitool "
        "calls all plugins of a list as a runtime does",
    )


def _check_name(config: Mapping[str, Any]) -> None:
    name = config.get("name")
    if name is None:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            "the network configuration has no name",
            'add one, for example "name": "net"; in a list it stands beside "plugins"',
        )
    if not isinstance(name, str) or not IDENTIFIER.match(name):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"name: {shown(name)} is no network name",
            "it begins with a letter or digit; '_', '.' and '-' may follow",
        )


def _version_asked_for(stdin: Callable[[], bytes]) -> str:
    """The version in which to answer VERSION: that of the input where there is one we speak."""
    try:
        asked = read_json(stdin()).get("cniVersion")
    except (OSError, ValueError, AttributeError, RecursionError):
        return versions.NEWEST
    return asked if asked in versions.SUPPORTED else versions.NEWEST


def valid_attachments(config: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(container id, CNI_IFNAME) of what a GC must keep. No list at all means: nothing.

    Raises error 7 for a list that cannot be read, since guessing would delete what is in use.
    """
    key = "cni.dev/valid-attachments"
    if key not in config:
        key = "cni.dev/attachments"
    listed = config.get(key) or []
    try:
        return {(str(each["containerID"]), str(each["ifname"])) for each in listed}
    except (TypeError, KeyError):
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"{key} is no list of objects with containerID and ifname",
            "nothing was removed",
        ) from None
