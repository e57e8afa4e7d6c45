"""Whether an attachment's container is gone: what the kernel and the records say, or a list."""

from dataclasses import dataclass

from cni_netkit.admin.list import Found
from cni_netkit.attachment import bears
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.record import Record, boot_id
from cni_netkit.records import device_of, netns_of
from cni_netkit.spec.errors import CNIError
from cni_netkit.state import DamagedRecord, NewerRecord, Store

ID_CHARACTERS = 8
"""How many characters stand for a container's id, at least."""

SPARED_SECONDS = 60
"""What was attached that shortly before a list was written may be missing there."""


@dataclass(frozen=True)
class Verdict:
    """Whether an attachment is to be released, and why or why not."""

    due: bool
    reason: str


@dataclass(frozen=True)
class Listed:
    """An administrator's list of the containers that there are, and when it was written."""

    containers: tuple[str, ...]
    written: float

    def has(self, container: str) -> bool:
        """Whether a container is there: its id, or the beginning of it."""
        long = tuple(each for each in self.containers if len(each) >= ID_CHARACTERS)
        return container in self.containers or container.startswith(long)


@dataclass(frozen=True)
class Judge:
    """Tells what is due: what is gone for certain, or with a list what is not on it."""

    store: Store
    host: Namespace
    listed: Listed | None

    def verdict(self, found: Found) -> Verdict:
        """The verdict on one attachment."""
        if isinstance(found, NewerRecord):
            return Verdict(due=False, reason="a newer release made it")
        if isinstance(found, DamagedRecord):
            return Verdict(due=False, reason=f"its record is damaged: {found.path}")
        return self._verdict(found)

    def _verdict(self, record: Record) -> Verdict:
        if not record.complete:
            if record.abandoned:
                return Verdict(due=True, reason="its ADD was cut off")
            return Verdict(due=False, reason="its ADD is under way")
        try:
            base = self.store.load(record.base) if record.added_to else None
        except CNIError:
            return Verdict(due=False, reason="a newer release made what it was added to")
        if base is not None:
            verdict = self._verdict(base)
            return Verdict(verdict.due, f"it was added to {record.added_to}, and {verdict.reason}")
        return self._by_the_list(record) if self.listed else self._by_the_kernel(record)

    def is_due(self, record: Record) -> bool:
        """Whether it is to be released."""
        return self.verdict(record).due

    def _by_the_kernel(self, record: Record) -> Verdict:
        if record.boot not in ("", boot_id()):
            return Verdict(due=True, reason="it was made before the last boot")
        if record.host_identity not in ([], list(self.host.netns.identity)):
            # Nothing that can be seen from here would tell whether the container lives.
            return Verdict(due=False, reason="it was made in another network namespace than this")
        if netns_of(record):
            return Verdict(due=False, reason="its network namespace is there")
        try:
            there = self._has_device(record)
        except CNIError:
            return Verdict(due=False, reason="a newer release made what was added to it")
        if there:
            return Verdict(
                due=False, reason="its device is there, though its namespace's name is not"
            )
        return Verdict(due=True, reason=f"its network namespace {record.netns} is gone")

    def _has_device(self, record: Record) -> bool:
        """A pair's end on the host goes with the other end; a single device is asked for.

        So is what was added: an attachment with claims has no device but those.
        """
        end = self.host.links.get(name=record.attachment.host_device)
        if end and bears(end.alias, record.attachment.alias):
            return True
        return any(map(device_of, (record, *self.store.added_to(record.attachment))))

    def _by_the_list(self, record: Record) -> Verdict:
        assert self.listed
        if self.listed.has(record.attachment.container_id):
            return Verdict(due=False, reason="its container is on the list")
        if self.store.written(record.attachment) > self.listed.written - SPARED_SECONDS:
            return Verdict(due=False, reason="it is newer than the list")
        return Verdict(due=True, reason="its container is not on the list")
