"""Preparing a NIC for a role, and putting back what was there before."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cni_netkit.kernel.errors import KernelError, ProgramError
from cni_netkit.kernel.model import Link
from cni_netkit.nics.change import Assignment, Change, assignments
from cni_netkit.nics.record import NicRecord, NicStore, instance_of
from cni_netkit.nics.settings import (
    DATA_SPLIT,
    NTUPLE_FILTERS,
    SETTINGS,
    XDP,
    Setting,
    differences,
    words,
)
from cni_netkit.nics.state import NicState, read_state
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import ranges
from cni_netkit.spec.nics import Preparation, Role
from cni_netkit.steps.lease import refused
from cni_netkit.undo import Failures, Undo

if TYPE_CHECKING:
    from cni_netkit.kernel.namespace import Namespace

LEASING = frozenset({"netkit", "single", "queue-create"})
"""What the kernel must have to say whether a NIC lends queues."""

ZERO_COPY = frozenset({"basic", "redirect", "ndo-xmit", "xsk-zerocopy"})
"""What a driver must do for AF_XDP without copying (NETDEV_XDP_ACT_*)."""


Changes = list[Change | Assignment]
Said = Callable[[Changes], None]


def to_change(host: Namespace, preparation: Preparation) -> Changes:
    """What preparing would change. Raises error 102 or 103 where it cannot work."""
    link = nic_of(host, preparation.device)
    kept = _record(NicStore(), link, preparation)
    return [*_assignments(kept, preparation), *_planned(host, link, preparation, kept)]


def prepare(host: Namespace, preparation: Preparation, said: Said = lambda _: None) -> Changes:
    """Change what is not as the role wants it, and nothing else; returns what was changed.

    `said` is told what will be changed, before. All or nothing: where the driver refuses something,
    what was changed by this call is changed back. Raises `CNIError`.
    """
    store = NicStore()
    with store.lock(preparation.device):
        link = nic_of(host, preparation.device)
        kept = _record(store, link, preparation)
        record = replace(deepcopy(kept), preparation=preparation)
        assigned = _assignments(kept, preparation)
        said([*assigned, *_planned(host, link, preparation, record)])
        work = _Work(host, link, preparation, record, store)
        try:
            work.arrange()
        except BaseException as error:
            failure = _as_cni_error(error)
            failures = work.undo.run()
            failures.attach_to(failure)
            if not failures:
                _put_back(store, kept)
            raise failure from error
        record.complete = True
        store.save(record)
        return [*assigned, *work.changed]


def _assignments(kept: NicRecord, preparation: Preparation) -> list[Assignment]:
    """What a NIC gets to be prepared for; where preparing was cut off, it was for nothing."""
    return assignments(kept.preparation if kept.complete else None, preparation)


@dataclass
class Restored:
    """What was put back, and what was left, because it is somebody else's by now."""

    changed: Changes = field(default_factory=list)
    left: list[Change] = field(default_factory=list)


def restore(host: Namespace, name: str) -> Restored:
    """Put back what preparing changed, where it is still as it was made.

    Raises error 103 while queues are leased; else tries everything, and raises the first failure.
    """
    done, store = Restored(), NicStore()
    with store.lock(name):
        record = store.load(name)
        if record is None:
            store.remove(name)  # one that cannot be read
            return done
        link = host.links.get(name=name)
        if link is None or not record.is_of(link):
            # The settings went with the device; pins in bpffs stay.
            host.xdp.detach(name)
            store.remove(name)
            return done
        _refuse_while_leased(host, link)
        failures = Failures(_as_cni_error)
        for key in reversed(record.before):
            setting = next(each for each in SETTINGS if each.key == key)
            change = Change(setting, setting.found(_now(host, link)), record.before[key])
            # What was asked for explicitly and is so by default, too, looks the same.
            if change.found == change.wanted and not (setting is DATA_SPLIT and key in record.made):
                continue
            if _is_of_others(host, link, change, record):
                done.left.append(change)
                continue
            put_back = partial(setting.put_back, host, link, record.preparation, change.wanted)
            failures.run(f"put back {change}", put_back)
            done.changed.append(change)
        if record.before.get(XDP.key) == "none":
            # Pins of who was killed before the NIC had the program.
            failures.run("remove the pins", partial(host.xdp.detach, name))
        failures.raise_first()
        store.remove(name)
        done.changed += assignments(record.preparation if record.complete else None, None)
        return done


def _is_of_others(host: Namespace, link: Link, change: Change, record: NicRecord) -> bool:
    """Whether somebody has changed a setting since, or would lose something with it."""
    if change.setting is NTUPLE_FILTERS and change.wanted == "off":
        # Ours went with their containers; drivers forget all rules when they are switched off.
        return host.ethtool.has_rules(link)
    made = record.made.get(change.setting.key, change.found)
    return bool(change.found != made)


def unable(role: Role, state: NicState, *, copies: bool = False) -> CNIError | None:
    """Error 102: what keeps a NIC from ever having a role, as far as its driver says it."""
    name = state.link.name
    if state.link.kind is not None:
        return _unusable(f"{name} is a virtual device ({state.link.kind})", "name a physical NIC")
    lacking = ZERO_COPY - state.xdp_features
    if role == "af_xdp" and not copies and lacking:
        return _unusable(
            f"the driver of {name} cannot do AF_XDP without copying: it lacks "
            f"{', '.join(sorted(lacking))} (XDP features of the netdev family)",
            "use a NIC whose driver can (mlx5, gve), or copy (--copy, in nics.json copy: true)",
        )
    return None


def nic_of(host: Namespace, name: str) -> Link:
    """A device of the host by name. Raises error 102."""
    link = host.links.get(name=name)
    if link is None:
        raise CNIError(
            Code.UNUSABLE_NIC,
            f"there is no device {name} on the host",
            "ip link shows the devices there are",
        )
    return link


class _Work:
    """One preparation under way: each change is recorded before it is made."""

    def __init__(
        self,
        host: Namespace,
        link: Link,
        preparation: Preparation,
        record: NicRecord,
        store: NicStore,
    ) -> None:
        self.changed: list[Change] = []
        self.undo = Undo(_as_cni_error)
        self._host, self._link, self._preparation = host, link, preparation
        self._record, self._store = record, store

    def arrange(self) -> None:
        """Change what is not as it should be, and look again: some settings follow others."""
        state = _now(self._host, self._link)
        for setting in SETTINGS:
            for each, found, wanted in self._lacking(state):
                if each is setting:
                    self._change(Change(setting, found, wanted))
                    state = _now(self._host, self._link)
        self._verify(state)

    def _lacking(self, state: NicState) -> list[tuple[Setting, Any, Any]]:
        return differences(self._preparation, state, self._record.made)

    def _verify(self, state: NicState) -> None:
        """A driver may take a setting and do something else."""
        lacking = self._lacking(state)
        if lacking:
            change = Change(*lacking[0])
            raise CNIError(
                Code.KERNEL_REFUSED,
                f"prepare {self._link.name}: its driver took {change.setting.name} "
                f"{words(change.setting, change.wanted)} and has "
                f"{words(change.setting, change.found)} all the same",
                "what was changed was changed back",
            )
        # What a process made that was killed before it could note it.
        for setting in SETTINGS:
            if setting.key in self._record.before:
                self._record.made.setdefault(setting.key, setting.found(state))

    def _change(self, change: Change) -> None:
        key = change.setting.key
        self._record.before.setdefault(key, change.found)
        self._record.complete = False
        self._store.save(self._record)
        what = f"{change.setting.name} of {self._link.name}"
        self.undo.push(what, partial(self._change_back, change))
        change.setting.change(self._host, self._link, self._preparation, change.wanted)
        self._record.made[key] = change.wanted
        self._store.save(self._record)
        self.changed.append(change)

    def _change_back(self, change: Change) -> None:
        found = change.setting.found(_now(self._host, self._link))
        # What was refused is as it was, and would be refused again.
        if found != change.found or change.found == change.wanted:
            change.setting.put_back(self._host, self._link, self._preparation, change.found)


def _now(host: Namespace, link: Link) -> NicState:
    """What the NIC is like by now, also which program it runs."""
    return read_state(host, host.links.get(index=link.index) or link)


def _planned(
    host: Namespace, link: Link, preparation: Preparation, record: NicRecord
) -> list[Change]:
    state = read_state(host, link)
    _check_possible(host, preparation, state)
    return [Change(*each) for each in differences(preparation, state, record.made)]


def _put_back(store: NicStore, record: NicRecord) -> None:
    """Have the record as it was before a preparation that failed."""
    if record.before or record.complete:
        store.save(record)
    else:
        store.remove(record.preparation.device)


def _record(store: NicStore, link: Link, preparation: Preparation) -> NicRecord:
    """The record to go on with. Raises error 103 where the NIC has another role."""
    found = store.load(link.name)
    if found is None or not found.is_of(link):
        return NicRecord(preparation, instance_of(link))
    if found.preparation.role != preparation.role:
        raise CNIError(
            Code.ALREADY_EXISTS,
            f"prepare {link.name} for {preparation.role}: it is prepared for "
            f"{found.preparation.role}, and a NIC has one role",
            f"cni-netkit nic restore {link.name}",
        )
    return found


def _check_possible(host: Namespace, preparation: Preparation, state: NicState) -> None:
    """What no setting could mend. Raises error 102."""
    name = state.link.name
    if host.features(LEASING) == LEASING and (refusal := host.queues.refusal_to_lend(state.link)):
        raise refused(refusal, name)
    if fault := unable(preparation.role, state, copies=preparation.copies):
        raise fault
    queues = preparation.channels or state.queues
    if preparation.queues[-1] >= queues:
        raise _unusable(
            f"there is no receive queue {preparation.queues[-1]}: those of {name} are numbered "
            f"from 0 to {queues - 1}",
            f"ethtool -l {name} shows how many it can have; --channels sets it",
        )
    if not set(range(queues)) - set(preparation.queues):
        raise _unusable(
            f"the pool {ranges(preparation.queues)} has all {queues} receive queues of {name}",
            "leave at least queue 0 to the host",
        )
    if state.xdp == "another":
        raise _unusable(
            f"{name} runs XDP program {state.link.xdp_program}, which is not cni-netkit's",
            f"ip link set {name} xdp off",
        )


def _refuse_while_leased(host: Namespace, link: Link) -> None:
    leased = [queue.number for queue in host.queues.all(link.index) if not queue.free]
    if leased:
        raise CNIError(
            Code.ALREADY_EXISTS,
            f"restore {link.name}: its queues {ranges(leased)} are in use",
            "cni-netkit leases shows by whom; end them first. Nothing was changed",
        )


def _unusable(message: str, details: str) -> CNIError:
    return CNIError(Code.UNUSABLE_NIC, message, details)


def _as_cni_error(error: BaseException) -> CNIError:
    if isinstance(error, CNIError):
        return error
    if isinstance(error, ProgramError):
        return CNIError(Code.BPF_NOT_ATTACHABLE, str(error), "what was changed was changed back")
    if isinstance(error, KernelError):
        return CNIError(Code.KERNEL_REFUSED, str(error), "what was changed was changed back")
    return CNIError(Code.INTERNAL, f"{type(error).__name__}: {error}")
