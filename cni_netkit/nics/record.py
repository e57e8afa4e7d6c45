"""What a NIC was like before it was prepared: a file for each, written before any change."""

import errno
import os
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_netkit import log, state
from cni_netkit.formats import Format, Newer
from cni_netkit.kernel.model import Link
from cni_netkit.record import boot_id
from cni_netkit.spec.errors import SHORTAGES, CNIError, Code
from cni_netkit.spec.nics import Preparation

ROOT = state.ROOT / "nics"
"""Beside the networks' folders; an attachment's record has a colon in its name."""

FORMAT = Format()

DAMAGED = "a NIC's record cannot be read: what the NIC was like before is not known"


def instance_of(link: Link) -> list[Any]:
    """What tells a NIC from one that had its name before: settings go with the device."""
    return [boot_id(), link.index]


@dataclass
class NicRecord:
    """`before` and `made` by the settings' keys, in the order in which they were changed.

    `complete` is false while the NIC is being prepared, or where that was cut off.
    """

    preparation: Preparation
    instance: list[Any]
    before: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    def is_of(self, link: Link) -> bool:
        """Whether this device is the one that was prepared."""
        return self.instance == instance_of(link)


class NicStore:
    """The records of this node's NICs."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or ROOT

    def load(self, name: str) -> NicRecord | None:
        """A NIC's record; None where it has none, or none that can be read.

        Raises error 11 for one that a newer release wrote.
        """
        path = self._root / f"{name}.json"
        try:
            fields = FORMAT.read(path.read_bytes())
            preparation = Preparation.model_validate(fields.pop("preparation"))
            return NicRecord(preparation, **fields)
        except Newer as newer:
            raise CNIError(
                Code.TRY_AGAIN_LATER,
                f"{name} was prepared by a newer release: its record {path} has format "
                f"{newer.found}, this release knows formats up to {newer.known}",
                "the NIC was left as it is: install the newer release again "
                "(install.sh --rollback goes forth, too), then try again",
            ) from None
        except OSError as error:
            if error.errno in SHORTAGES:
                raise OSError(error.errno, error.strerror, str(path)) from None
            return None
        except (ValueError, TypeError, KeyError) as error:
            log.warning(DAMAGED, path=str(path), problem=str(error))
            return None

    def save(self, record: NicRecord) -> None:
        """Write a record; a reader sees the old or the new one. Raises error 5."""
        path = self._root / f"{record.preparation.device}.json"
        fields = {**vars(record), "preparation": record.preparation.as_dict()}
        new = path.with_suffix(".new")
        try:
            if self._root.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(new, FORMAT.write(fields))
            os.rename(new, path)
        except OSError as error:
            raise CNIError(
                Code.IO_FAILURE,
                f"write the record {path}: {error.strerror}",
                "without it a NIC's settings could not be put back: nothing more was changed",
            ) from None

    def remove(self, name: str) -> None:
        """Forget a NIC."""
        for suffix in (".new", ".json"):
            with suppress(FileNotFoundError, NotADirectoryError):
                (self._root / f"{name}{suffix}").unlink()

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Let nobody else prepare or restore a NIC meanwhile."""
        return state.Store().lock(f"preparation of {name}")


def _write(path: Path, data: bytes) -> None:
    """For root alone, as all records are; a link in its place is not followed."""
    with open(path, "wb", opener=_for_root_alone) as file:
        file.write(data)


def _for_root_alone(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
