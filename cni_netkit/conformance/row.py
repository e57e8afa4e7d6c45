"""A row: what is demanded, by which sentence, how strongly, and when it applies."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cni_netkit.conformance.world import World

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions of the specification; as words they are in their order, too."""


class Level(Enum):
    """How strongly something is demanded; only what must be can fail."""

    MUST = "must"
    SHOULD = "should"
    CONVENTION = "convention"
    """Not in the specification: what its own library does, and runtimes count on."""


@dataclass(frozen=True)
class Row:
    """One demand. Its name is that of the function, its title the function's docstring."""

    examine: Callable[[World], None]
    section: str
    sentence: str
    level: Level
    since: str
    each_version: bool
    attachments: int
    delegates: bool

    @property
    def name(self) -> str:
        """As --row takes it."""
        return self.examine.__name__.replace("_", "-")

    @property
    def title(self) -> str:
        """What the plugin has to do."""
        return (self.examine.__doc__ or "").strip().rstrip(".")


ROWS: list[Row] = []
"""In the order of reports."""


def row(
    section: str,
    sentence: str,
    level: Level = Level.MUST,
    *,
    since: str = VERSIONS[0],
    each_version: bool = False,
    attachments: int = 1,
    delegates: bool = False,
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Make a function a row.

    `since`: the version that brought what it is about. `each_version`: it is examined in every
    version that the plugin speaks. `attachments`: how many it makes at a time. `delegates`: it puts
    an IPAM plugin of its own in the place of the configured one.
    """

    def register(examine: Callable[[World], None]) -> Callable[[World], None]:
        ROWS.append(
            Row(examine, section, sentence, level, since, each_version, attachments, delegates)
        )
        return examine

    return register
