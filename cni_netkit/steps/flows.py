"""Rules on the NIC that bring what is sent to the container to its leased queues."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import FlowRule, Link
from cni_netkit.outcome import Outcome
from cni_netkit.spec.addresses import ip_interface
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.steps.base import checking_nic, difference, missing_nic, undoing_on_nic

if TYPE_CHECKING:
    from cni_netkit.context import Context

NTUPLE = "rx-ntuple-filter"
"""The feature's name in the kernel; ethtool(8) calls it ntuple-filters."""


@dataclass(frozen=True)
class Flows:
    """Rules for each address and each of `flows` ("tcp", or with a port "tcp 9000").

    Several queues get an RSS context over them, which the rules lead into; where the driver has no
    contexts, one rule after the other leads to the next queue. `addresses` are those that the chain
    gave the container; without any, they are the attachment's own.
    """

    name: ClassVar[str] = "flows"
    nic: str
    device: str
    flows: tuple[str, ...]
    addresses: tuple[str, ...] = ()

    def do(self, context: Context, outcome: Outcome) -> None:
        """Insert them; what they will be taken back by is on record before."""
        nic = context.host.links.get(name=self.nic)
        if nic is None:
            raise missing_nic(self.nic)
        ethtool = context.host.ethtool
        # Contexts and rules have no owner's name. Nobody else of us is at it meanwhile.
        with context.lock(f"NIC {self.nic}"):
            self._refuse_taken(ethtool.rules(nic), outcome)
            outcome.foreign_contexts = sorted(ethtool.contexts(nic) or ())
            context.save(outcome)
            try:
                outcome.flow_context = self._create_context(context, nic, outcome)
                for rule in self.rules(outcome):
                    ethtool.insert_rule(nic, rule)
            except KernelError as error:
                raise CNIError(
                    Code.KERNEL_REFUSED,
                    str(error),
                    f"ethtool -n {self.nic} shows the rules there are, and ethtool -x the RSS "
                    'contexts; with lease.flows "none" none are made',
                ) from None

    @undoing_on_nic()
    def undo(self, context: Context, outcome: Outcome) -> None:
        """Remove the rules by what they say and where they lead, then the context."""
        if outcome.foreign_contexts is None:
            return  # none was made, or the record was lost with what they could be known by
        nic = context.host.links.get(name=self.nic)
        if nic is None:
            return  # and its rules with it
        ethtool = context.host.ethtool
        with context.lock(f"NIC {self.nic}"):
            contexts = ethtool.contexts(nic) or {}
            ours = self._own_contexts(contexts, outcome)
            for rule in self._found(context, nic):
                target = set(contexts.get(rule.context or 0, ())) | {rule.queue} - {None}
                if target and target <= _queues(outcome) and self._wants(rule, outcome):
                    assert rule.location is not None
                    _tolerate((errno.ENOENT,), ethtool.remove_rule, nic, rule.location)
            for number in ours:
                # EBUSY: a rule leads into it that is not ours.
                _tolerate((errno.ENOENT, errno.EBUSY), ethtool.remove_context, nic, number)

    def check(self, context: Context, outcome: Outcome) -> None:
        """Each rule is there and leads where it shall."""
        nic = context.host.links.get(name=self.nic)
        if nic is None:
            raise difference(f"NIC {self.nic}", "a device", None)
        with checking_nic(self.nic):
            feature = context.host.ethtool.feature(nic, NTUPLE)
            if feature is None or not feature.on:
                raise difference(f"feature ntuple-filters of NIC {self.nic}", "on", "off")
            if outcome.flow_context:
                table = (context.host.ethtool.contexts(nic) or {}).get(outcome.flow_context)
                what = f"queues of RSS context {outcome.flow_context} of NIC {self.nic}"
                if table is None or set(table) != _queues(outcome):
                    raise difference(what, _queues(outcome), table and set(table))
            found = {_match(rule): _target(rule) for rule in self._found(context, nic)}
            for rule in self.rules(outcome):
                if found.get(_match(rule)) != _target(rule):
                    what = f"target of the flow rule {_words(rule)} of NIC {self.nic}"
                    raise difference(what, _target(rule), found.get(_match(rule)))

    def describe(self) -> str:
        """In words."""
        return f"bring {', '.join(self.flows)} for {self.device} to the leased queues of {self.nic}"

    def rules(self, outcome: Outcome) -> list[FlowRule]:
        """The rules that there shall be."""
        queues = [queue for queue, _ in outcome.leases]
        rules = self._matches(outcome)
        if outcome.flow_context:
            return [replace(rule, context=outcome.flow_context) for rule in rules]
        return [
            replace(rule, queue=queues[number % len(queues)]) for number, rule in enumerate(rules)
        ]

    def _matches(self, outcome: Outcome) -> list[FlowRule]:
        """The rules without a target."""
        own = (ip_interface(each["address"]).ip for each in outcome.addresses)
        addresses: Sequence[str] = self.addresses or [str(address) for address in own]
        return [
            FlowRule(protocol, address, int(port) if port else None)
            for address in addresses
            for protocol, _, port in (flow.partition(" ") for flow in self.flows)
        ]

    def _wants(self, rule: FlowRule, outcome: Outcome) -> bool:
        return _match(rule) in map(_match, self._matches(outcome))

    def _refuse_taken(self, rules: Sequence[FlowRule], outcome: Outcome) -> None:
        """Drivers differ in what becomes of two rules that match the same."""
        for rule in rules:
            if self._wants(rule, outcome):
                raise CNIError(
                    Code.ALREADY_EXISTS,
                    f"{self.nic} has a flow rule {rule} at location {rule.location} already",
                    "it was left as it is; whoever made it no more wants it: "
                    f"ethtool -N {self.nic} delete {rule.location}",
                )

    def _create_context(self, context: Context, nic: Link, outcome: Outcome) -> int:
        """The RSS context for several queues; 0 for one, or where the driver has none."""
        queues = sorted(_queues(outcome))
        if len(queues) == 1 or context.host.ethtool.contexts(nic) is None:
            return 0
        entries = len(context.host.ethtool.indirection(nic) or ())
        table = [queues[number % len(queues)] for number in range(entries)]
        return context.host.ethtool.create_context(nic, table) if table else 0

    def _own_contexts(self, contexts: dict[int, tuple[int, ...]], outcome: Outcome) -> list[int]:
        """By number, or for a process that died before it was on record by their queues."""
        if len(outcome.leases) < 2:
            return []
        return [
            number
            for number, table in contexts.items()
            if number not in (outcome.foreign_contexts or ())
            and (number == outcome.flow_context or not outcome.flow_context)
            and set(table) == _queues(outcome)
        ]

    def _found(self, context: Context, nic: Link) -> tuple[FlowRule, ...]:
        try:
            return context.host.ethtool.rules(nic)
        except KernelError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOENT):
                return ()
            raise


def _queues(outcome: Outcome) -> set[int]:
    return {queue for queue, _ in outcome.leases}


def _match(rule: FlowRule) -> tuple[str, str, int | None]:
    return rule.protocol, rule.address, rule.port


def _words(rule: FlowRule) -> str:
    return f"{rule.protocol} to {rule.address}" + (f" port {rule.port}" if rule.port else "")


def _target(rule: FlowRule) -> str:
    return f"RSS context {rule.context}" if rule.context else f"queue {rule.queue}"


def _tolerate(
    tolerated: Sequence[int], remove: Callable[[Link, int], None], nic: Link, number: int
) -> None:
    """What somebody else has removed meanwhile is removed."""
    try:
        remove(nic, number)
    except KernelError as error:
        if error.errno not in tolerated:
            raise
