"""`cni-netkit gc`: releases what gone containers left behind, for runtimes that send no GC."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from cni_netkit import deadline
from cni_netkit.admin.failure import Misuse, Unreadable
from cni_netkit.admin.list import described, records
from cni_netkit.admin.output import JSON, print_json
from cni_netkit.context import as_cni_error, device_of, netns_of
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.release import release_recorded
from cni_netkit.spec.request import IDENTIFIER
from cni_netkit.state import Record, Store, boot_id
from cni_netkit.steps.base import ours

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

    def verdict(self, record: Record) -> Verdict:
        """The verdict on one attachment."""
        if not record.complete:
            if record.abandoned:
                return Verdict(due=True, reason="its ADD was cut off")
            return Verdict(due=False, reason="its ADD is under way")
        if record.added_to and (base := self.store.load(record.base)):
            verdict = self.verdict(base)
            return Verdict(verdict.due, f"it was added to {record.added_to}, and {verdict.reason}")
        return self._by_the_list(record) if self.listed else self._by_the_kernel(record)

    def is_due(self, record: Record) -> bool:
        """Whether it is to be released."""
        return self.verdict(record).due

    def _by_the_kernel(self, record: Record) -> Verdict:
        if record.boot != boot_id():
            return Verdict(due=True, reason="it was made before the last boot")
        if record.host_identity != list(self.host.netns.identity):
            # Nothing that can be seen from here would tell whether the container lives.
            return Verdict(due=False, reason="it was made in another network namespace than this")
        if netns_of(record):
            return Verdict(due=False, reason="its network namespace is there")
        if self._has_device(record):
            return Verdict(
                due=False, reason="its device is there, though its namespace's name is not"
            )
        return Verdict(due=True, reason=f"its network namespace {record.netns} is gone")

    def _has_device(self, record: Record) -> bool:
        """A pair's end on the host goes with the other end; a single device is asked for."""
        name = next((each["host_name"] for each in record.steps if each.get("host_name")), "")
        index = record.outcome.get("host_index", 0)
        if name and ours(self.host, record.attachment.alias, name, index):
            return True
        return device_of(record) is not None

    def _by_the_list(self, record: Record) -> Verdict:
        assert self.listed
        if self.listed.has(record.attachment.container_id):
            return Verdict(due=False, reason="its container is on the list")
        if self.store.written(record.attachment) > self.listed.written - SPARED_SECONDS:
            return Verdict(due=False, reason="it is newer than the list")
        return Verdict(due=True, reason="its container is not on the list")


def main(arguments: argparse.Namespace) -> int:
    """Release what is due, or with --dry-run only tell; 1 where something could not be released."""
    found = _of_network(arguments.network)
    listed = _read_list(arguments, found) if arguments.valid else None
    store = Store()
    with closing(Namespace.current()) as host:
        judge = Judge(store, host, listed)
        entries = [_entry(each, judge.verdict(each)) for each in found]
        for record, entry in zip(found, entries, strict=True):
            if entry["due"] and not arguments.dry_run:
                _release(judge, record, entry)
    if arguments.json:
        print_json({"done": not arguments.dry_run, "attachments": entries})
    else:
        _print(found, entries, dry_run=arguments.dry_run)
    return _tell_problems(arguments.name, found, entries)


def _of_network(network: str | None) -> list[Record]:
    """What there is, what was added before what it was added to: that one would take it along."""
    found = [each for each in records() if network in (None, each.attachment.network)]
    return sorted(found, key=lambda each: each.added_to is None)


def _entry(record: Record, verdict: Verdict) -> JSON:
    told = {"due": verdict.due, "reason": verdict.reason, "released": False, "problem": None}
    return described(record) | told


def _release(judge: Judge, record: Record, entry: JSON) -> None:
    """Release an attachment; what becomes of it goes into its entry, and others go on."""
    try:
        with deadline.within():
            entry["released"] = release_recorded(judge.store, record, judge.is_due)
        if not entry["released"]:
            entry["reason"] = "it changed while it was looked at"
    except BlockingIOError:
        entry["reason"] = "somebody is at work on it"
    except Exception as error:
        failure = as_cni_error(error)
        said = "; ".join(filter(None, (failure.message, failure.details)))
        entry["problem"] = f"error {int(failure.code)}: {said}"


def _print(found: Sequence[Record], entries: Sequence[JSON], *, dry_run: bool) -> None:
    """A line for each that is released, and how many stay, why."""
    kept: Counter[str] = Counter()
    for record, entry in zip(found, entries, strict=True):
        if entry["released"] or (dry_run and entry["due"]):
            what = "would release" if dry_run else "released"
            print(f"{what} {record.attachment}: {entry['reason']}")
        elif not entry["problem"]:
            kept[entry["reason"]] += 1
    for reason, count in kept.most_common():
        print(f"kept {count}: {reason}")
    if not found:
        print("there is no attachment")


def _tell_problems(name: str, found: Sequence[Record], entries: Sequence[JSON]) -> int:
    status = 0
    for record, entry in zip(found, entries, strict=True):
        if entry["problem"]:
            print(f"{name}: release {record.attachment}: {entry['problem']}", file=sys.stderr)
            status = 1
    return status


def _read_list(arguments: argparse.Namespace, found: Sequence[Record]) -> Listed:
    """The list of --valid; one that cannot be meant raises `Misuse`, and nothing is released."""
    path = arguments.valid
    if arguments.network is None:
        # Those of another network may be another runtime's, of which this list knows nothing.
        raise Misuse("--valid wants --network: a list is of one network's containers")
    try:
        written, lines = _lines(path)
    except OSError as error:
        raise Unreadable(path, error.errno or 0) from None
    for line in lines:
        if not IDENTIFIER.match(line):
            raise Misuse(f"--valid {path}: {line!r} is no container's id; it takes one a line")
    listed = Listed(tuple(lines), written)
    if found and not any(listed.has(each.attachment.container_id) for each in found):
        raise Misuse(
            f"--valid {path}: none of the {len(lines)} containers on the list is on network "
            f"{arguments.network}; what is gone is released without a list, too"
        )
    return listed


def _lines(path: str) -> tuple[float, list[str]]:
    """When a list was written, and the first word of each line of it; - is standard input."""
    if path == "-":
        written = time.time()  # whoever writes it was started together with this
        return written, [line.split()[0] for line in sys.stdin if line.strip()]
    with open(path) as file:
        written = os.fstat(file.fileno()).st_mtime
        return written, [line.split()[0] for line in file if line.strip()]
