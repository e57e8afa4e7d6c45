"""What there is to know about an attachment, as it outlives the process that made it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any

from cni_netkit.attachment import Attachment
from cni_netkit.formats import Format
from cni_netkit.migrations import describe_the_device_once, masquerade_without_exceptions

FORMAT = Format(migrations=(describe_the_device_once, masquerade_without_exceptions))
"""A new one has its line in the CHANGELOG, and a record in `tests/records`."""


def process_identity(number: int) -> list[int]:
    """A process's number and start time (proc_pid_stat(5), field 22), which is 0 if it is gone."""
    try:
        after_the_name = _read(f"/proc/{number}/stat").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [number, 0]
    return [number, int(after_the_name[19])]


@lru_cache(1)
def own_identity(number: int) -> list[int]:
    """That of this process, which stays the same; `number` is its own, also after a fork."""
    return process_identity(number)


@lru_cache(1)
def boot_id() -> str:
    """Tells one boot of the machine from another (random(4))."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _read(path: str) -> str:
    """A file of /proc. An error of reading, unlike one of opening, does not name it by itself."""
    try:
        return Path(path).read_text()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


@dataclass
class Record:
    """What there is to know about an attachment to check it or to take it back.

    `config`, `arguments`, `path` are the request's, for the IPAM plugin; `steps` the plan's;
    `outcome` what doing them brought. `complete` is false while ADD is under way, in `process`
    (its number and start time). `added_to` is None for what a runtime asked for; for what an
    administrator added to a running container, the device there that it belongs to and goes with,
    or "" where the namespace has none of ours. `boot` and `host_identity` say in which boot and
    from which network namespace it was made: elsewhere nothing can be seen of what it has. Both are
    empty in what was of format 1.
    """

    attachment: Attachment
    cni_ifname: str
    netns: str
    netns_identity: list[int]
    config: dict[str, Any]
    arguments: str
    path: list[str]
    steps: list[dict[str, Any]]
    outcome: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    process: list[int] = field(default_factory=lambda: own_identity(os.getpid()))
    added_to: str | None = None
    boot: str = ""
    host_identity: list[int] = field(default_factory=list)

    def dump(self) -> bytes:
        """The record as it is stored."""
        return FORMAT.write({**vars(self), "attachment": vars(self.attachment)})

    @property
    def abandoned(self) -> bool:
        """Whether the process that was to complete it died before."""
        return not self.complete and process_identity(self.process[0]) != self.process

    @property
    def base(self) -> Attachment:
        """The attachment that this one was added to, if it was."""
        return replace(self.attachment, ifname=self.added_to or "")

    @classmethod
    def load(cls, data: bytes) -> "Record":
        """Read it back. Raises ValueError where it is none, `Newer` for one of a newer format."""
        fields = FORMAT.read(data)
        try:
            record = cls(**fields | {"attachment": Attachment(**fields["attachment"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the fields of a record: {error!r}") from None
        for name, value in (*vars(record).items(), *vars(record.attachment).items()):
            if not SHAPES[name](value):
                raise ValueError(f"the record's {name} is of another type")
        return record


def _listed(kind: type) -> Callable[[object], bool]:
    """Whether something is a list of such."""
    return lambda value: isinstance(value, list) and all(type(each) is kind for each in value)


def _is_text(value: object) -> bool:
    """Whether it can be an argument of a system call."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is(kind: type | UnionType) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


SHAPES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("network", "container_id", "ifname"), _is_text),
    **dict.fromkeys(("cni_ifname", "netns", "arguments", "boot"), _is_text),
    **dict.fromkeys(("config", "outcome"), _is(dict)),
    **dict.fromkeys(("netns_identity", "host_identity"), _listed(int)),
    "attachment": _is(Attachment),
    "path": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "steps": _listed(dict),
    "complete": _is(bool),
    "process": lambda value: _listed(int)(value) and len(value) == 2,  # type: ignore[arg-type]
    "added_to": _is(str | None),
}
"""What each field must be for a record to be believed."""


def cut_off(attachment: Attachment) -> Record:
    """What stands for a record that does not have its end: abandoned, with nothing done."""
    return Record(
        attachment=attachment,
        cni_ifname=attachment.ifname,
        netns="",
        netns_identity=[],
        config={"name": attachment.network},
        arguments="",
        path=[],
        steps=[],
        process=[0, 1],  # no process has the number 0
    )
