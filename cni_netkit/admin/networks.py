"""The networks of this node, as files and records tell, and addresses that two of them give."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cni_netkit.admin.output import JSON
from cni_netkit.spec.ip_ranges import CapabilityRange
from cni_netkit.spec.static import StaticAddress
from cni_netkit.spec.words import found, not_json
from cni_netkit.state import Store

FOLDER = Path("/etc/cni/net.d")
SUFFIXES = (".conf", ".conflist", ".json")
"""What libcni reads (ConfFiles() of libcni/conf.go)."""

RECORDS = "its records"

Span = tuple[int, int, int]
"""IP version, first and last address as numbers: so they can be compared."""


@dataclass(frozen=True)
class Network:
    """A network with the addresses that it gives, and where that is said.

    `ours`: one of its plugins is netkit, and makes a pair, to which the host routes each address.
    """

    name: str
    where: str
    spans: tuple[Span, ...]
    ours: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.where})"


def plugins(data: bytes) -> list[JSON]:
    """Each plugin of a file as a runtime passes it: with name and cniVersion of the list.

    Raises ValueError for what is no configuration.
    """
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {not_json(error)}") from None
    if not isinstance(given, dict):
        raise ValueError(f"not a JSON object (found {found(given)})")
    listed = given.get("plugins", [given])
    if not isinstance(listed, list):
        raise ValueError(f"plugins must be a list of objects (found {found(listed)})")
    for number, each in enumerate(listed):
        if not isinstance(each, dict):
            raise ValueError(f"plugins.{number} must be an object (found {found(each)})")
    common = {key: given[key] for key in ("cniVersion", "name") if key in given}
    return [{**each, **common} for each in listed]


def known(more: Path | None = None) -> Iterator[Network]:
    """Every network of a file, of those that runtimes read and of one more, and of the records."""
    installed = sorted(each for each in FOLDER.glob("*") if each.suffix in SUFFIXES)
    for path in dict.fromkeys(each.resolve() for each in (*installed, more) if each):
        try:
            configured = plugins(path.read_bytes())
        except (OSError, ValueError):
            continue  # for whoever reads it: this one, or a runtime, will say so
        if configured:
            yield _network(configured, str(path))
    for record in Store().all():
        yield _network([record.config], RECORDS)


def overlaps(networks: Iterable[Network]) -> Iterator[tuple[Network, Network, str]]:
    """Two networks each, and the addresses that both give, at least one with pairs of ours."""
    by_name: dict[str, dict[Network, None]] = {}
    for each in networks:
        by_name.setdefault(each.name, {})[each] = None
    for these, those in combinations(by_name.values(), 2):
        shared = (
            (one, other, both)
            for one in these
            for other in those
            if (one.ours or other.ours) and (both := _shared(one, other))
        )
        if first := next(shared, None):
            yield first


def _network(configured: list[JSON], where: str) -> Network:
    pairs = [each for each in configured if each.get("pairing") != "single"]
    return Network(
        name=str(configured[0].get("name")),
        where=where,
        # Nothing on the host leads to a single device.
        spans=tuple(span for each in pairs for span in _spans(each.get("ipam"))),
        ours=any(each.get("type") == "netkit" for each in pairs),
    )


def _spans(ipam: Any) -> Iterator[Span]:
    """The addresses that host-local and static give; what is wrong with them others say."""
    ipam = {key.lower(): value for key, value in ipam.items()} if isinstance(ipam, dict) else {}
    if ipam.get("type") == "host-local":
        for entry in _entries([ipam, ipam.get("ranges")]):
            try:
                each = CapabilityRange.model_validate(entry)
            except ValidationError:
                continue
            yield each.subnet.version, int(each.first), int(each.last)
    elif ipam.get("type") == "static":
        for entry in _entries(ipam.get("addresses")):
            try:
                interface = StaticAddress.model_validate(entry).address
            except ValidationError:
                continue
            yield interface.version, int(interface.ip), int(interface.ip)


def _entries(given: Any) -> Iterator[JSON]:
    """The objects in a list, or in the lists in it."""
    for each in given if isinstance(given, list) else ():
        if isinstance(each, dict):
            yield each
        else:
            yield from _entries(each)


def _shared(one: Network, other: Network) -> str:
    """The first addresses that both give, in words."""
    for version, first, last in one.spans:
        for its_version, its_first, its_last in other.spans:
            begin, end = max(first, its_first), min(last, its_last)
            if version == its_version and begin <= end:
                kind = type(ip_address("::" if version == 6 else "0.0.0.0"))  # noqa: S104
                return str(kind(begin)) if begin == end else f"{kind(begin)} to {kind(end)}"
    return ""
