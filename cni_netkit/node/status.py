"""What `cni-netkit node` leaves for `cni-netkit doctor`.

A file that is written anew at each change, and at least at every resync.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cni_netkit import files
from cni_netkit.formats import Format

FILE = Path("/run/cni-netkit/node/status.json")
"""In a folder of its own, so that who writes it need not see the agent's socket."""

FORMAT = Format()
RESYNC_SECONDS = 300.0
"""How often all is compared with what it should be, though nothing changed."""


@dataclass(frozen=True)
class Problem:
    """What is not as it should be: `reason` is a word in CamelCase, as events have it.

    `about` names the nodes that it concerns, where these are others.
    """

    reason: str
    text: str
    remedy: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """The state of a node; `ready`: its list is complete and in place, by Node objects.

    `written` is in seconds since the epoch.
    """

    node: str
    ready: bool
    ranges: tuple[str, ...]
    nodes: int
    routes: int
    problems: tuple[Problem, ...]
    written: float

    def save(self, path: Path = FILE) -> None:
        """Write it. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, FORMAT.write(asdict(self)))

    @classmethod
    def load(cls, path: Path = FILE) -> "Status":
        """Read it. Raises OSError, `Newer`, and ValueError for what is none."""
        fields: dict[str, Any] = FORMAT.read(path.read_bytes())
        try:
            problems = tuple(Problem(**each) for each in fields.pop("problems"))
            return cls(**fields, problems=problems)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the fields of a status: {error!r}") from None
