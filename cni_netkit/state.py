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
from dataclasses import dataclass, replace
from pathlib import Path

from cni_netkit import deadline, log
from cni_netkit.attachment import Attachment
from cni_netkit.formats import Newer
from cni_netkit.record import Record, cut_off
from cni_netkit.spec.errors import SHORTAGES, CNIError, Code

ROOT = Path("/var/lib/cni/netkit")
"""On disk, as the addresses that IPAM gave away are: both must be found after a reboot."""

NEW = ".new"
"""A record on its way to replace another."""

DAMAGED = "a record cannot be read: what it was of is told by names"

ADDED = ".added"
"""Folder beside a record, with an empty file named after each device that was added to it.

It saves a DEL from looking through the names of all containers.
"""

NAME_BYTES = 255
"""NAME_MAX of include/uapi/linux/limits.h."""

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)

F_OFD_SETLK = 37
"""Open file description locks, include/uapi/asm-generic/fcntl.h; they work between threads too."""


@dataclass(frozen=True)
class NewerRecord:
    """A record that a newer release wrote. Nothing of it is believed but its name."""

    attachment: Attachment
    path: str
    newer: Newer

    @property
    def refusal(self) -> CNIError:
        """Error 11: what it is of is left alone."""
        return CNIError(
            Code.TRY_AGAIN_LATER,
            f"{self.attachment} was made by a newer release: its record {self.path} has format "
            f"{self.newer.found}, this release knows formats up to {self.newer.known}",
            "it was left as it is: install the newer release again (install.sh --rollback goes "
            "forth, too), then try again",
        )


@dataclass(frozen=True)
class DamagedRecord:
    """A file in a record's place that is none, and not the beginning of one."""

    attachment: Attachment
    path: str
    problem: str


class Store:
    """The records of this node."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def create(self, record: Record) -> None:
        """Write a record that must not exist yet. Raises error 103 if it does."""
        path = self._path(record.attachment)
        names = (record.attachment.network, os.path.basename(path) + ADDED)
        if any(len(os.fsencode(name)) > NAME_BYTES for name in names):
            raise CNIError(
                Code.INVALID_ENVIRONMENT,
                f"names of network, container and device are too long for the record "
                f"of {record.attachment}",
                f"no file can be named {names[1]}: that takes {NAME_BYTES} bytes at most",
            )
        # Before the record: a DEL of what it is added to must find it whoever dies when. And after
        # it, since that DEL removes what there is no record of.
        self._note(record)
        try:
            self._write(path, record, os.O_EXCL)
        except FileExistsError:
            self._take_back_note(record)
            raise CNIError(
                Code.ALREADY_EXISTS,
                f"{record.attachment} is attached already",
                f"its record is {path}; DEL it first",
            ) from None
        except OSError as error:
            self._remove_notes(record.base)
            raise self._failure(path, error) from None
        try:
            self._note(record)
        except CNIError:
            with _absent():
                os.unlink(path)
            raise

    def update(self, record: Record) -> None:
        """Replace a record; whoever reads it meanwhile sees the old or the new one."""
        path = self._path(record.attachment)
        try:
            self._write(path + NEW, record, os.O_TRUNC)
            os.rename(path + NEW, path)
        except OSError as error:
            raise self._failure(path, error) from None

    def load(self, attachment: Attachment) -> Record | None:
        """The record of an attachment; None if there is none, or none that can be read.

        Raises error 11 for one that a newer release wrote.
        """
        path = self._path(attachment)
        try:
            return _of(attachment, _read(path))
        except Newer as newer:
            raise NewerRecord(attachment, path, newer).refusal from None
        except OSError as error:
            if error.errno in SHORTAGES:
                raise self._failure(path, error, "read") from None
            return None
        except ValueError as error:
            log.warning(DAMAGED, path=path, problem=str(error))
            return None

    def written(self, attachment: Attachment) -> float:
        """When the record was last written, in seconds since the epoch; 0 if there is none."""
        try:
            return os.stat(self._path(attachment)).st_mtime
        except OSError as error:
            if error.errno in ABSENT:
                return 0.0
            raise

    def remove(self, attachment: Attachment, added_to: str | None = None) -> None:
        """Forget an attachment; `added_to` is its record's."""
        # The folder stays: somebody may be about to write another record into it.
        path = self._path(attachment)
        notes = []
        if added_to is not None:
            folder = self._path(replace(attachment, ifname=added_to)) + ADDED
            notes = [] if os.path.islink(folder) else [f"{folder}/{attachment.ifname}"]
        for each in (path + NEW, path, *notes):
            with _absent():
                os.unlink(each)
        self._remove_notes(attachment)
        if notes:
            with contextlib.suppress(OSError):  # others have been added
                os.rmdir(folder)

    def remove_unread(self, attachment: Attachment) -> None:
        """Forget an attachment whose record cannot be read, if it has one."""
        path = self._path(attachment)
        if os.path.lexists(path):  # then it does not say what it was added to
            beside = f"{attachment.network}/{attachment.container_id}:*.json{ADDED}"
            for note in self._root.glob(f"{beside}/{attachment.ifname}"):
                if note.parent.is_symlink():
                    continue
                with contextlib.suppress(OSError):  # others have been added
                    note.unlink()
                    note.parent.rmdir()
        self.remove(attachment)

    def _remove_notes(self, attachment: Attachment) -> None:
        """Those of which there is no record; mostly there are none at all."""
        folder = self._path(attachment) + ADDED
        with contextlib.suppress(OSError):
            try:
                if os.path.islink(folder):
                    raise NotADirectoryError
                for name in os.listdir(folder):
                    if not os.path.exists(self._path(replace(attachment, ifname=name))):
                        os.unlink(f"{folder}/{name}")
                os.rmdir(folder)
            except NotADirectoryError:
                os.unlink(folder)

    def all(self, network: str | None = None) -> Iterator[Record]:
        """Every record, or every one of a network; not those that a newer release wrote."""
        return (each for each in self.scan(network) if isinstance(each, Record))

    def scan(self, network: str | None = None) -> Iterator[Record | NewerRecord | DamagedRecord]:
        """Everything that is on record, or everything of a network.

        Where a process was killed while it wrote its record, and had done nothing yet, one stands
        in that is abandoned and names the attachment: to be released like others.
        """
        for path in sorted(self._root.glob(f"{network or '*'}/*:*.json")):
            if path.parent.is_symlink():
                continue
            attachment = _attachment_of(path)
            try:
                data = _read(str(path))
            except OSError as error:
                if error.errno in SHORTAGES:
                    raise self._failure(str(path), error, "read") from None
                if error.errno == errno.ELOOP:
                    yield DamagedRecord(attachment, str(path), "it is a symbolic link")
                continue
            try:
                yield _of(attachment, data)
            except Newer as newer:
                yield NewerRecord(attachment, str(path), newer)
            except ValueError as error:
                if _is_json(data):
                    yield DamagedRecord(attachment, str(path), str(error))
                else:
                    yield cut_off(attachment)

    def added_to(self, attachment: Attachment) -> list[Record]:
        """What was added to an attachment.

        For what cannot be read, as where a process died while it wrote it, one stands in that says
        nothing but whose it is.
        """
        names: list[str] = []
        folder = self._path(attachment) + ADDED
        with _absent():
            names = [] if os.path.islink(folder) else os.listdir(folder)
        found = []
        for added in (replace(attachment, ifname=name) for name in sorted(names)):
            record = self.load(added)
            if record is None and os.path.lexists(self._path(added)):
                record = replace(cut_off(added), added_to=attachment.ifname)
            if record is not None and record.added_to == attachment.ifname:
                found.append(record)
        return found

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
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
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
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            return True

        try:
            deadline.poll(f"wait for {what}, which is being worked on", attempt)
            yield
        finally:
            os.close(descriptor)

    def _path(self, attachment: Attachment) -> str:
        """Where the record is. Raises error 5 where that would be somewhere else."""
        folder = f"{self._root}/{attachment.network}"
        if os.path.islink(folder):
            raise CNIError(
                Code.IO_FAILURE,
                f"use the folder of records {folder}: it is a symbolic link",
                "remove it: what it leads to may be anybody's",
            )
        return f"{folder}/{attachment.container_id}:{attachment.ifname}.json"

    def _write(self, path: str, record: Record, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
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
        if record.added_to is None:
            return
        folder = self._path(record.base) + ADDED
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            while True:
                if os.path.islink(folder):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                with contextlib.suppress(FileExistsError):
                    Path(folder).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    os.mkdir(folder, 0o700)
                # The folder goes with the last that is in it: then once more.
                with contextlib.suppress(FileNotFoundError):
                    os.close(os.open(f"{folder}/{record.attachment.ifname}", flags, 0o600))
                    return
        except OSError as error:
            raise self._failure(folder, error) from None

    def _take_back_note(self, record: Record) -> None:
        """Unless it is of what was added before."""
        if record.added_to is None:
            return
        folder = self._path(record.base) + ADDED
        with contextlib.suppress(OSError, CNIError):
            if record.attachment not in [each.attachment for each in self.added_to(record.base)]:
                os.unlink(f"{folder}/{record.attachment.ifname}")
                os.rmdir(folder)

    def _failure(self, path: str, error: OSError, verb: str = "write") -> CNIError:
        return CNIError(
            Code.IO_FAILURE,
            f"{verb} the record {path}: {error.strerror}",
            f"the state of attachments is kept under {self._root}",
        )


def _read(path: str) -> bytes:
    """A file's content; a link is not followed, nor is anybody waited for."""
    with open(path, "rb", opener=_without_following) as file:
        return file.read() or b""


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _of(attachment: Attachment, data: bytes) -> Record:
    """The record of this attachment. Raises what `Record.load` raises, and for that of another."""
    record = Record.load(data)
    if record.attachment != attachment:
        raise ValueError(f"it is the record of {record.attachment}")
    return record


@contextlib.contextmanager
def _absent() -> Iterator[None]:
    """Within: where there is nothing is no error, nor where nothing can be, for its long name."""
    try:
        yield
    except OSError as error:
        if error.errno not in ABSENT:
            raise


def _attachment_of(path: Path) -> Attachment:
    """Whose record a file is, by its name."""
    container, _, ifname = path.stem.rpartition(":")
    return Attachment(path.parent.name, container, ifname)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    except RecursionError:
        pass
    return True
