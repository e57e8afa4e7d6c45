"""`cni-netkit nic`: preparing NICs for a workload, what they are like, and putting it back."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from cni_netkit.admin import options
from cni_netkit.admin.leases import NO_NIC
from cni_netkit.admin.output import JSON, print_json, print_table, print_text
from cni_netkit.facts import nics
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics import prepare as preparing
from cni_netkit.nics.change import Assignment, Change
from cni_netkit.nics.prepare import Changes, nic_of, to_change
from cni_netkit.nics.record import NicRecord, NicStore
from cni_netkit.nics.settings import SETTINGS, Setting, differences, words
from cni_netkit.nics.state import NicState, read_state
from cni_netkit.spec.lease import ranges
from cni_netkit.spec.nics import Preparation

NOTHING = "nothing to change"


def main(
    action: Callable[[Namespace, argparse.Namespace], int], arguments: argparse.Namespace
) -> int:
    """Carry out `prepare`, `restore` or `show`; the exit status."""
    host = Namespace.current()
    try:
        return action(host, arguments)
    finally:
        host.close()


def prepare(host: Namespace, arguments: argparse.Namespace) -> int:
    """Give a NIC a role, or with --dry-run only say what that would change."""
    given = {
        "device": arguments.device,
        "role": arguments.role,
        "queues": arguments.queues,
        "channels": arguments.channels,
        "ring": arguments.ring,
        "copy": arguments.copy or None,
    }
    preparation = options.checked(Preparation, given, positional="device")
    about = f"{preparation.device} for {preparation.role}, queues {ranges(preparation.queues)}"

    def said(changes: Changes) -> None:
        if arguments.json:
            return
        _print_changes(about, changes)
        if any(isinstance(each, Change) for each in changes) and not arguments.dry_run:
            # Flushed: a session that runs over this NIC may be cut off by what comes.
            print(
                f"this can interrupt the traffic of {preparation.device} for a moment", flush=True
            )

    if arguments.dry_run:
        changes = to_change(host, preparation)
        said(changes)
    else:
        changes = preparing.prepare(host, preparation, said)
    if arguments.json:
        print_json(_changed(preparation.device, changes, done=not arguments.dry_run))
    elif not arguments.dry_run:
        print("prepared")
    return 0


def restore(host: Namespace, arguments: argparse.Namespace) -> int:
    """Put back what preparing changed."""
    name = arguments.device
    was_prepared = NicStore().load(name) is not None
    restored = preparing.restore(host, name)
    if arguments.json:
        made = _changed(name, restored.changed, done=True)
        print_json(made | {"left": [_as_json(each) for each in restored.left]})
        return 0
    _print_changes(name if was_prepared else f"{name} was not prepared", restored.changed)
    for each in restored.left:
        found = words(each.setting, each.found)
        print(f"left, since it is somebody else's by now: {each.setting.name}, now {found}")
    return 0


def show(host: Namespace, arguments: argparse.Namespace) -> int:
    """Print what NICs are like."""
    if arguments.device:
        links = [nic_of(host, arguments.device)]
    else:
        links = [nic.link for nic in nics(host)]
    seen = [Seen(read_state(host, link), NicStore().load(link.name)) for link in links]
    made = {"nics": [each.report() for each in seen]}
    if arguments.json:
        print_json(made)
    else:
        _print(made)
    return 0


def _print(made: JSON) -> None:
    if not made["nics"]:
        print_text(NO_NIC)
    for number, each in enumerate(made["nics"]):
        if number:
            print()
        role = each["role"] or "no role"
        pool = f", queues {ranges(each['queues'])} for containers" if each["queues"] else ""
        cut_off = "" if each["complete"] in (True, None) else ", cut off: prepare it again"
        print_table(
            ("setting", "is", "wanted", "right", "was before"),
            [
                (row["name"], row["foundText"], row["wantedText"], row["right"], row["beforeText"])
                for row in each["settings"]
            ],
            title=f"{each['name']}: {role}{pool}{cut_off}",
        )


@dataclass(frozen=True)
class Seen:
    """A NIC, and its record if it is of this very device."""

    state: NicState
    any_record: NicRecord | None

    @property
    def record(self) -> NicRecord | None:
        """Its record; not that of a device that had its name before."""
        record = self.any_record
        return record if record and record.is_of(self.state.link) else None

    @property
    def preparation(self) -> Preparation | None:
        """What it was prepared for."""
        return self.record.preparation if self.record else None

    def report(self) -> JSON:
        """The report, as docs/admin.md describes it."""
        preparation, record = self.preparation, self.record
        lacking = (
            differences(preparation, self.state, record.made) if preparation and record else ()
        )
        wrong = {setting.key for setting, _, _ in lacking}
        return {
            "name": self.state.link.name,
            "role": preparation.role if preparation else None,
            "queues": list(preparation.queues) if preparation else None,
            "complete": record.complete if record else None,
            "ready": not wrong and record.complete if record else None,
            "settings": [self._setting(each, wrong) for each in SETTINGS],
        }

    def _setting(self, setting: Setting, wrong: set[str]) -> JSON:
        found = setting.found(self.state)
        wanted = setting.wanted(self.preparation, self.state) if self.preparation else None
        before = self.record.before.get(setting.key) if self.record else None
        texts = {
            f"{name}Text": None if value is None else words(setting, value)
            for name, value in (("wanted", wanted), ("before", before))
        }
        return {
            "key": setting.key,
            "name": setting.name,
            "found": found,
            "wanted": wanted,
            "right": None if wanted is None else setting.key not in wrong,
            "before": before,
            "foundText": words(setting, found),
            **texts,
        }


def _changed(name: str, changes: Changes, *, done: bool) -> JSON:
    return {"device": name, "done": done, "changes": [_as_json(each) for each in changes]}


def _as_json(change: Change | Assignment) -> JSON:
    return {"key": change.key, "found": change.found, "wanted": change.wanted}


def _print_changes(about: str, changes: Changes) -> None:
    print(f"{about}:" if changes else f"{about}: {NOTHING}")
    for change in changes:
        print_text(str(change), "    ")
