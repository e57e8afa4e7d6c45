"""What survives a process: one record per attachment, and locks.

A record is created before anything else is done and removed after everything else is undone, so
whatever a killed process left behind, its record tells. Contents are JSON; a record is written with
one write(2) and replaced by rename(2). One that cannot be read counts as lost.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cni_netkit import deadline
from cni_netkit.attachment import Attachment
from cni_netkit.spec.errors import CNIError, Code

ROOT = Path("/var/lib/cni/netkit")
"""On disk, as the addresses that IPAM gave away are: both must be found after a reboot."""

NEW = ".new"
"""A record on its way to replace another."""

ADDED = ".added"
"""Folder beside a record, with an empty file named after each device that was added to it.

It saves a DEL from looking through the names of all containers.
"""

F_OFD_SETLK = 37
"""Open file description locks, include/uapi/asm-generic/fcntl.h; they work between threads too."""


def process_identity(number: int) -> list[int]:
    """A process's number and start time (proc_pid_stat(5), field 22), which is 0 if it is gone."""
    try:
        after_the_name = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [number, 0]
    return [number, int(after_the_name[19])]


@lru_cache(1)
def own_identity(number: int) -> list[int]:
    """That of this process, which stays the same; `number` is its own, also after a fork."""
    return process_identity(number)


@lru_cache(1)
def boot_id() -> str:
    """Tells one boot of the machine from another (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass
class Record:
    """What there is to know about an attachment to check it or to take it back.

    `config`, `arguments`, `path` are the request's, for the IPAM plugin; `steps` the plan's;
    `outcome` what doing them brought. `complete` is false while ADD is under way, in `process`
    (its number and start time). `added_to` is None for what a runtime asked for; for what an
    administrator added to a running container, the device there that it belongs to and goes with,
    or "" where the namespace has none of ours. `boot` and `host_identity` tell in which boot and
    from which network namespace it was made: elsewhere nothing can be said of its namespace.
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
    boot: str = field(default_factory=boot_id)
    host_identity: list[int] = field(default_factory=list)

    def dump(self) -> bytes:
        """The record as JSON."""
        fields = dict(vars(self)) | {"attachment": vars(self.attachment)}
        return json.dumps(fields, separators=(",", ":")).encode()

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
        """Read JSON back. Raises ValueError, TypeError or KeyError where it is no record."""
        fields = json.loads(data)
        record = cls(**fields | {"attachment": Attachment(**fields["attachment"])})
        if not (
            all(isinstance(each, dict) for each in [record.config, record.outcome, *record.steps])
            and all(isinstance(each, str) for each in vars(record.attachment).values())
            and isinstance(record.added_to, str | None)
        ):
            raise ValueError("a field of the record is of another type")
        return record


class Store:
    """The records of this node."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def create(self, record: Record) -> None:
        """Write a record that must not exist yet. Raises error 103 if it does."""
        path = self._path(record.attachment)
        try:
            self._write(path, record, os.O_EXCL)
        except FileExistsError:
            raise CNIError(
                Code.ALREADY_EXISTS,
                f"{record.attachment} is attached already",
                f"its record is {path}; DEL it first",
            ) from None
        except OSError as error:
            raise self._failure(path, error) from None
        if record.added_to is not None:
            self._note(record)

    def update(self, record: Record) -> None:
        """Replace a record; whoever reads it meanwhile sees the old or the new one."""
        path = self._path(record.attachment)
        try:
            self._write(path + NEW, record, os.O_TRUNC)
            os.rename(path + NEW, path)
        except OSError as error:
            raise self._failure(path, error) from None

    def load(self, attachment: Attachment) -> Record | None:
        """The record of an attachment; None if there is none, or none that can be read."""
        return self._load(self._path(attachment))

    def written(self, attachment: Attachment) -> float:
        """When the record was last written, in seconds since the epoch; 0 if there is none."""
        try:
            return os.stat(self._path(attachment)).st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, attachment: Attachment, added_to: str | None = None) -> None:
        """Forget an attachment; `added_to` is its record's."""
        # The folder stays: somebody may be about to write another record into it.
        path = self._path(attachment)
        notes = []
        if added_to is not None:
            folder = self._path(replace(attachment, ifname=added_to)) + ADDED
            notes = [f"{folder}/{attachment.ifname}"]
        for each in (*notes, path + NEW, path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)
        if notes:
            with contextlib.suppress(OSError):  # others have been added
                os.rmdir(folder)

    def all(self, network: str | None = None) -> Iterator[Record]:
        """Every record, or every one of a network.

        Where a process was killed while it wrote its record, and had done nothing yet, one stands
        in that is abandoned and names the attachment: to be released like others.
        """
        for path in sorted(self._root.glob(f"{network or '*'}/*:*.json")):
            if record := self._load(path) or _cut_off(path):
                yield record

    def added_to(self, attachment: Attachment) -> list[Record]:
        """What an administrator added to an attachment."""
        try:
            names = os.listdir(self._path(attachment) + ADDED)
        except FileNotFoundError:
            return []
        found = [self.load(replace(attachment, ifname=name)) for name in sorted(names)]
        return [each for each in found if each and each.added_to == attachment.ifname]

    @contextlib.contextmanager
    def lock(self, what: object, *, wait: bool = True) -> Iterator[None]:
        """Keep others, in this process and elsewhere, from working on `what` meanwhile.

        One byte of one file is locked, at an offset that is a hash: nothing to clean up.
        Without `wait` raises BlockingIOError where somebody else is at work.
        """
        digest = hashlib.sha256(str(what).encode()).digest()
        offset = int.from_bytes(digest[:7], "big")
        # struct flock: type, whence, start, length, pid (0 for these locks).
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        path = f"{self._root}/lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, flags, 0o600)

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

    def _path(self, attachment: Attachment) -> str:
        name = f"{attachment.container_id}:{attachment.ifname}.json"
        return f"{self._root}/{attachment.network}/{name}"

    def _write(self, path: str, record: Record, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        data = record.dump()
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, flags, 0o600)
        try:
            # In one piece: a process that is killed leaves all of it or, mostly, nothing.
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def _note(self, record: Record) -> None:
        folder = self._path(record.base) + ADDED
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            while True:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                # The folder goes with the last that is in it: then once more.
                with contextlib.suppress(FileNotFoundError):
                    os.close(os.open(f"{folder}/{record.attachment.ifname}", flags, 0o600))
                    return
        except OSError as error:
            os.unlink(self._path(record.attachment))
            raise self._failure(folder, error) from None

    def _failure(self, path: str, error: OSError) -> CNIError:
        return CNIError(
            Code.IO_FAILURE,
            f"write the record {path}: {error.strerror}",
            f"the state of attachments is kept under {self._root}",
        )

    def _load(self, path: str | Path) -> Record | None:
        try:
            with open(path, "rb") as file:
                return Record.load(file.read())
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _cut_off(path: Path) -> Record | None:
    """What stands for a record that does not have its end; None if it has, or has gone."""
    try:
        json.loads(path.read_bytes())
    except OSError:
        return None
    except ValueError:
        container, _, ifname = path.stem.rpartition(":")
        network = path.parent.name
        return Record(
            attachment=Attachment(network, container, ifname),
            cni_ifname=ifname,
            netns="",
            netns_identity=[],
            config={"name": network},
            arguments="",
            path=[],
            steps=[],
            process=[0, 1],  # no process has the number 0
        )
    return None
