"""What survives a process: one record per attachment, and locks.

A record is created before anything else is done and removed after everything else is undone, so
whatever a killed process left behind, its record tells. Contents are JSON; a record appears and
changes as a whole (link(2), rename(2)), never in parts.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_netkit import deadline
from cni_netkit.attachment import Attachment
from cni_netkit.spec.errors import CNIError, Code

ROOT = Path("/var/lib/cni/netkit")
"""On disk, as the addresses that IPAM gave away are: both must be found after a reboot."""

F_OFD_SETLK = 37
"""Open file description locks, include/uapi/asm-generic/fcntl.h; they work between threads too."""


@dataclass
class Record:
    """What there is to know about an attachment to check it or to take it back.

    `config`, `arguments`, `path` are the request's, for the IPAM plugin; `steps` the plan's;
    `outcome` what doing them brought. `complete` is false while ADD is under way, in `process`
    (its number and start time).
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
    process: list[int] = field(default_factory=lambda: process_identity(os.getpid()))

    def dump(self) -> bytes:
        """The record as JSON."""
        fields = dict(vars(self)) | {"attachment": vars(self.attachment)}
        return json.dumps(fields, separators=(",", ":")).encode()

    @property
    def abandoned(self) -> bool:
        """Whether the process that was to complete it died before."""
        return not self.complete and process_identity(self.process[0]) != self.process

    @classmethod
    def load(cls, data: bytes) -> "Record":
        """Read JSON back. Raises ValueError, TypeError or KeyError where it is no record."""
        fields = json.loads(data)
        record = cls(**fields | {"attachment": Attachment(**fields["attachment"])})
        if not (
            all(isinstance(each, dict) for each in [record.config, record.outcome, *record.steps])
            and all(isinstance(each, str) for each in vars(record.attachment).values())
        ):
            raise ValueError("a field of the record is of another type")
        return record


def process_identity(number: int) -> list[int]:
    """A process's number and start time (proc_pid_stat(5), field 22), which is 0 if it is gone."""
    try:
        after_the_name = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [number, 0]
    return [number, int(after_the_name[19])]


class Store:
    """The records of this node."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def create(self, record: Record) -> None:
        """Write a record that must not exist yet. Raises error 103 if it does."""
        path = self._path(record.attachment)
        try:
            with self._written(path, record) as temporary:
                os.link(temporary, path)
        except FileExistsError:
            raise CNIError(
                Code.ALREADY_EXISTS,
                f"{record.attachment} is attached already",
                f"its record is {path}; DEL it first",
            ) from None

    def update(self, record: Record) -> None:
        """Replace a record."""
        path = self._path(record.attachment)
        with self._written(path, record) as temporary:
            os.rename(temporary, path)

    def load(self, attachment: Attachment) -> Record | None:
        """The record of an attachment; None if there is none, or none that can be read."""
        return self._load(self._path(attachment))

    def remove(self, attachment: Attachment) -> None:
        """Forget an attachment."""
        # The folder stays: somebody may be about to write another record into it.
        self._path(attachment).unlink(missing_ok=True)

    def all(self, network: str | None = None) -> Iterator[Record]:
        """Every record, or every one of a network."""
        for path in sorted(self._root.glob(f"{network or '*'}/*:*.json")):
            if record := self._load(path):
                yield record

    @contextlib.contextmanager
    def lock(self, what: object, *, wait: bool = True) -> Iterator[None]:
        """Keep others, in this process and elsewhere, from working on `what` meanwhile.

        One byte of one file is locked, at an offset that is a hash: nothing to clean up.
        Without `wait` raises BlockingIOError where somebody else is at work.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256(str(what).encode()).digest()
        offset = int.from_bytes(digest[:7], "big")
        # struct flock: type, whence, start, length, pid (0 for these locks).
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def attempt() -> bool:
            try:
                fcntl.fcntl(descriptor, F_OFD_SETLK, wanted)
            except BlockingIOError:
                if not wait:
                    raise
                return False
            return True

        try:
            deadline.poll(f"wait for {what}, which is being worked on", attempt)
            yield
        finally:
            os.close(descriptor)

    def _path(self, attachment: Attachment) -> Path:
        name = f"{attachment.container_id}:{attachment.ifname}.json"
        return self._root / attachment.network / name

    @contextlib.contextmanager
    def _written(self, path: Path, record: Record) -> Iterator[Path]:
        digest = hashlib.sha256(path.name.encode()).hexdigest()
        temporary = path.with_name(f".{os.getpid()}-{threading.get_native_id()}-{digest}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(record.dump())
            yield temporary
        except OSError as error:
            if isinstance(error, FileExistsError) and path.exists():
                raise
            raise CNIError(
                Code.IO_FAILURE,
                f"write the record {path}: {error.strerror}",
                f"the state of attachments is kept under {self._root}",
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _load(self, path: Path) -> Record | None:
        try:
            return Record.load(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError):
            return None
