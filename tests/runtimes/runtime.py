"""What the tests ask of any runtime, and where its programs are."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = dict[str, Any]
Ports = Mapping[int, int]
"""Ports of the host, and of the pod."""


class Refused(Exception):
    """The runtime could not do it; what it says."""


@dataclass(frozen=True)
class Pod:
    """A pod as its runtime describes it. `netns` is its name for ip(8)."""

    name: str
    identifier: str
    netns: str
    addresses: tuple[str, ...]
    more: JSON = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What a user asks for with a pod; `handler` is one of containerd's."""

    ports: Ports = field(default_factory=dict)
    mac: str = ""
    ips: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    handler: str = ""


NOTHING = Asked()


@dataclass
class Place:
    """Where a runtime works: folders of its own, and what is set for the plugins it calls."""

    folder: Path
    plugins: Path
    networks: Path
    environment: Mapping[str, str]

    @property
    def env(self) -> dict[str, str]:
        """The environment of the runtime, which hands it on to the plugins."""
        return {**os.environ, **self.environment}


def write_list(networks: Path, conflist: JSON) -> None:
    """Replace the one configuration list of a folder in one step."""
    scratch = networks / ".new"
    scratch.write_text(json.dumps(conflist))
    scratch.rename(networks / "10.conflist")


class Runtime(ABC):
    """A container runtime; one network at a time."""

    lacks: Mapping[str, str] = {}
    """Tests that do not concern it, by name, and why."""

    newest = "1.0.0"
    """The newest CNI version that it understands."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.network = ""

    @abstractmethod
    def start(self) -> None:
        """Have it running, if it is something that runs."""

    @abstractmethod
    def kill(self) -> None:
        """End it as a crash would; what it started goes on."""

    @abstractmethod
    def end(self) -> None:
        """End it for good."""

    def configure(self, conflist: JSON) -> None:
        """Have this network, and no other, in force: most read the folder at each call."""
        write_list(self.place.networks, conflist)
        self.network = str(conflist["name"])

    @abstractmethod
    def run(self, name: str, asked: Asked = NOTHING) -> Pod:
        """Start a pod. Raises `Refused`."""

    @abstractmethod
    def describe(self, pod: Pod) -> tuple[bool, tuple[str, ...]]:
        """Whether the pod runs as the runtime sees it, and its addresses."""

    @abstractmethod
    def stop(self, pod: Pod) -> None:
        """Stop it; may be repeated."""

    @abstractmethod
    def remove(self, pod: Pod) -> None:
        """Stop it and forget it."""

    def network_fault(self) -> str:
        """What keeps the network from being ready, as the runtime says; empty if it is."""
        return ""
