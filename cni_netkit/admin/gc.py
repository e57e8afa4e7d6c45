"""`cni-netkit gc`: releases what gone containers left behind, for runtimes that send no GC."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from cni_netkit import deadline
from cni_netkit.admin.failure import Misuse, Unreadable
from cni_netkit.admin.gone import Judge, Listed, Verdict
from cni_netkit.admin.lease import NO_NETWORK
from cni_netkit.admin.list import Found, check_readable, described
from cni_netkit.admin.output import JSON, print_json
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.record import Record
from cni_netkit.release import release_recorded
from cni_netkit.spec.request import IDENTIFIER
from cni_netkit.state import Store


def main(arguments: argparse.Namespace) -> int:
    """Release what is due, or with --dry-run only tell; 1 where something could not be released."""
    named = arguments.network not in (None, NO_NETWORK)
    if named and not IDENTIFIER.match(arguments.network):
        raise Misuse(f"--network: {arguments.network!r} is no network's name")
    store = Store()
    found = _found(store, arguments.network)
    listed = _read_list(arguments, found) if arguments.valid else None
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


def _found(store: Store, network: str | None) -> list[Found]:
    """What there is, what was added before what it was added to: that one would take it along."""
    check_readable()
    return sorted(store.scan(network), key=lambda each: getattr(each, "added_to", None) is None)


def _entry(found: Found, verdict: Verdict) -> JSON:
    told = {"due": verdict.due, "reason": verdict.reason, "released": False, "problem": None}
    return described(found) | told


def _release(judge: Judge, record: Found, entry: JSON) -> None:
    """Release an attachment; what becomes of it goes into its entry, and others go on."""
    assert isinstance(record, Record)  # nothing else is due
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


def _print(found: Sequence[Found], entries: Sequence[JSON], *, dry_run: bool) -> None:
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


def _tell_problems(name: str, found: Sequence[Found], entries: Sequence[JSON]) -> int:
    status = 0
    for record, entry in zip(found, entries, strict=True):
        if entry["problem"]:
            print(f"{name}: release {record.attachment}: {entry['problem']}", file=sys.stderr)
            status = 1
    return status


def _read_list(arguments: argparse.Namespace, found: Sequence[Found]) -> Listed:
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
