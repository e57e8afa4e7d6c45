"""Taking attachments back: one, those that nobody claims, those that have no record."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from cni_netkit import deadline, ipam, log, phases
from cni_netkit import plan as plans
from cni_netkit.attachment import Attachment, parse_alias
from cni_netkit.context import Context, namespaces
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.outcome import Outcome
from cni_netkit.record import Record
from cni_netkit.records import device_of, netns_of
from cni_netkit.spec import version as versions
from cni_netkit.spec.config import NetConf, validate
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.request import Request
from cni_netkit.state import DamagedRecord, NewerRecord, Store
from cni_netkit.steps.base import Step
from cni_netkit.undo import Failures, Undo

AT_WORK = "left alone, since it is being worked on"


def release(request: Request, store: Store, attachment: Attachment, record: Record | None) -> None:
    """Undo an attachment step by step, but first what was added to it.

    The record goes last, and only when everything worked. One that nothing can be made of counts as
    lost: else the attachment could never be released.
    """
    try:
        _release(request, store, attachment, record)
    except Exception as error:
        failure = as_cni_error(error)
        if record is None or failure.code != Code.INTERNAL:
            raise
        log.warning("what is on record is not sound", problem=failure.message)
        # The socket that came with the request is in use already.
        _release(replace(request, route_descriptor=None), store, attachment, None)
        store.remove(attachment, record.added_to)


def _release(request: Request, store: Store, attachment: Attachment, record: Record | None) -> None:
    netns = netns_of(record) if record is not None and not request.netns else ""
    plan, outcome, chosen = _contents(request, attachment, record)
    with namespaces(request, netns=netns, must_exist=False) as (host, found):
        container = found if found and _is_of_the_add(found, record) else None
        context = Context(attachment, host, container, chosen, store, record)
        undo = Undo(as_cni_error)
        for step in plan:
            undo.push(step.describe(), partial(_undo, step, request, context, outcome))
        for added in store.added_to(attachment):
            undo.push(
                f"add {added.attachment}",
                partial(release_added, request, store, attachment, added.attachment),
            )
        undo.run().raise_first()
        _begin("record", request)
        if record is None:
            store.remove_unread(attachment)
        else:
            store.remove(attachment, record.added_to)


def _undo(step: Step, request: Request, context: Context, outcome: Outcome) -> None:
    _begin(step.name, request)
    step.undo(context, outcome)


def _begin(phase: str, request: Request) -> None:
    """Of a GC, which may release any number, all of them together are one phase."""
    if request.verb == "DEL":
        phases.begin(phase)


def _is_of_the_add(found: Namespace, record: Record | None) -> bool:
    """Whether a path still leads to the namespace of the ADD.

    When it was made anew a process can be in that one all the same.
    """
    if record is None or record.netns_identity in ([], list(found.netns.identity)):
        return True
    log.warning("the path leads to another namespace by now", path=found.netns.path)
    return False


def release_added(request: Request, store: Store, base: Attachment, added: Attachment) -> None:
    """Release what was added to an attachment, if it is there and was."""
    with store.lock(added):
        if added not in [each.attachment for each in store.added_to(base)]:
            return
        record = store.load(added)
        config = record.config if record else _of_an_addition(request)
        # The socket that came with the request is in use already.
        own = replace(request, config=config, route_descriptor=None)
        release(own, store, added, record)


def _of_an_addition(request: Request) -> dict[str, Any]:
    """The configuration of one whose record cannot be read, as far as undoing needs it."""
    named = {key: request.config[key] for key in ("cniVersion", "name") if key in request.config}
    return {**named, "type": "netkit", "pairing": "single"}


Contents = tuple[plans.Plan, Outcome, ipam.Ipam | None]


def _contents(request: Request, attachment: Attachment, record: Record | None) -> Contents:
    """What an attachment consists of, and whose its addresses are: as recorded, or by its names."""
    if record is not None:
        try:
            return *plans.from_record(record), ipam.recorded(request, record)
        except (ValueError, CNIError) as error:
            log.warning("what there is of the attachment is told by names", problem=str(error))
    return _contents_without_record(request, attachment)


def _contents_without_record(request: Request, attachment: Attachment) -> Contents:
    """What an attachment of this configuration would consist of, for a record that was lost.

    A configuration that is not valid cannot have made one: then there are the names to go by.
    """
    try:
        conf = validate(request.config)
        chosen = ipam.configured(request, conf, attachment)
    except CNIError as error:
        log.warning("no record, and the configuration is not valid", problem=error.message)
        conf, chosen = NetConf(name=request.network), None
    return plans.without_record(attachment, conf), Outcome(), chosen


def sweep(network: str | None = None) -> None:
    """Release what nobody else will, of all networks or of one.

    That is what processes left half done that died, and what was added to a container and has
    neither its device nor what it was added to any more. For an agent, before its first request.
    """
    store = Store()
    for record in store.all(network):
        attachment, due = str(record.attachment), partial(_is_left_over, store)
        try:
            released = due(record) and release_recorded(store, record, due)
        except BlockingIOError:
            log.warning(AT_WORK, attachment=attachment)
        except Exception as error:
            log.error("left for GC", attachment=attachment, problem=as_cni_error(error).message)
        else:
            if released:
                log.info("released what was left over", attachment=attachment)


def _is_left_over(store: Store, record: Record) -> bool:
    if not record.complete:
        return record.abandoned
    return (
        record.added_to is not None
        and store.load(record.base) is None
        and device_of(record) is None
    )


def release_recorded(store: Store, record: Record, due: Callable[[Record], bool]) -> bool:
    """Release an attachment by what its record says, unless it is not `due` by then.

    Returns whether it was. Raises BlockingIOError where somebody is at work on it.
    """
    attachment = record.attachment
    version = str(record.config.get("cniVersion", versions.NEWEST))
    config = {**record.config, "name": attachment.network}
    request = Request("DEL", version, config=config)
    with store.lock(attachment, wait=False):
        # Its process may have finished meanwhile.
        found = store.load(attachment)
        if found is not None and not due(found):
            return False
        release(request, store, attachment, found)
        return True


Pairs = set[tuple[str, str]]
"""Container id and name of a device."""


def collect_recorded(request: Request, store: Store, valid: Pairs, failures: Failures) -> Pairs:
    """Release what is on record and not `valid`; returns what is kept, `valid` included.

    What a newer release recorded is kept, and a failure where its container is not valid.
    """
    kept = set(valid)
    containers = {container for container, _ in valid}
    for found in store.scan(request.network):
        attachment = found.attachment
        if isinstance(found, NewerRecord):
            kept.add((attachment.container_id, attachment.ifname))
            if attachment.container_id not in containers:
                failures.add(found.refusal)
        elif isinstance(found, DamagedRecord) and attachment.container_id in containers:
            # Whose CNI_IFNAME it has is not known; its container is alive.
            log.warning("a record is damaged", path=found.path, problem=found.problem)
            kept.add((attachment.container_id, attachment.ifname))
        elif isinstance(found, Record) and (attachment.container_id, found.cni_ifname) in valid:
            kept.add((attachment.container_id, attachment.ifname))
        else:
            failures.run(f"release {attachment}", partial(collect_one, request, store, attachment))
    return kept


def collect_one(request: Request, store: Store, attachment: Attachment) -> None:
    """Release an attachment that nobody is at work on."""
    try:
        with store.lock(attachment, wait=False):
            deadline.ensure_somebody_waits(f"GC of {attachment}")
            release(request, store, attachment, store.load(attachment))
            phases.released()
    except BlockingIOError:
        log.warning(AT_WORK, attachment=str(attachment))


def collect_unrecorded(request: Request, store: Store, kept: Pairs, failures: Failures) -> None:
    """Devices that bear our mark and have no record, for example because the disk was lost."""
    containers = {container for container, _ in kept}
    host = Namespace.current()
    try:
        marks = [link.alias for link in host.links.all()] + list(host.masquerading.all().values())
    finally:
        host.close()
    for attachment in filter(None, map(parse_alias, dict.fromkeys(marks))):
        if attachment.network == request.network and attachment.container_id not in containers:
            failures.run(f"release {attachment}", partial(collect_one, request, store, attachment))
