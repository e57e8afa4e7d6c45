"""Taking attachments back: one, those that nobody claims, those that have no record."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cni_netkit import log
from cni_netkit import plan as plans
from cni_netkit.attachment import Attachment, parse_alias
from cni_netkit.context import (
    as_cni_error,
    device_of,
    ipam_of,
    netns_of,
    open_context,
    recorded_ipam,
)
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.spec import version as versions
from cni_netkit.spec.config import NetConf, validate
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.request import Request
from cni_netkit.state import Record, Store
from cni_netkit.steps.base import Context, Outcome
from cni_netkit.undo import Failures, Undo

AT_WORK = "left alone, since it is being worked on"


def release(request: Request, store: Store, attachment: Attachment, record: Record | None) -> None:
    """Undo an attachment step by step, but first what was added to it.

    The record goes last, and only when everything worked.
    """
    netns = netns_of(record) if record is not None and not request.netns else ""
    with open_context(request, store, attachment, netns=netns, must_exist=False) as context:
        undo = Undo(as_cni_error)
        plan, outcome = _plan_of(request, attachment, record, context)
        for step in plan:
            undo.push(step.describe(), partial(step.undo, context, outcome))
        for added in store.added_to(attachment):
            undo.push(
                f"add {added.attachment}",
                partial(_release_added, request, store, added.attachment),
            )
        undo.run().raise_first()
        store.remove(attachment, record.added_to if record else None)


def _release_added(request: Request, store: Store, attachment: Attachment) -> None:
    with store.lock(attachment):
        if record := store.load(attachment):
            # The socket that came with the request is in use already.
            own = replace(request, config=record.config, route_descriptor=None)
            release(own, store, attachment, record)


def _plan_of(
    request: Request, attachment: Attachment, record: Record | None, context: Context
) -> tuple[plans.Plan, Outcome]:
    """What an attachment consists of: as recorded, or by its names."""
    if record is not None:
        try:
            plan, outcome = plans.from_record(record.steps), Outcome(**record.outcome)
            context.ipam = recorded_ipam(request, record)
            return plan, outcome
        except (KeyError, TypeError) as error:
            log.warning("the record is of another version", problem=repr(error))
    return _plan_without_record(request, attachment, context), Outcome()


def _plan_without_record(request: Request, attachment: Attachment, context: Context) -> plans.Plan:
    """What an attachment of this configuration would consist of, for a record that was lost.

    A configuration that is not valid cannot have made one: then there are the names to go by.
    """
    try:
        conf = validate(request.config)
        context.ipam = ipam_of(request, conf, attachment)
    except CNIError as error:
        log.warning("no record, and the configuration is not valid", problem=error.message)
        conf = NetConf(name=request.network)
    return plans.without_record(attachment, conf)


def sweep(network: str | None = None) -> None:
    """Release what nobody else will, of all networks or of one.

    That is what processes left half done that died, and what was added to a container and has
    neither its device nor what it was added to any more. For an agent, before its first request.
    """
    store = Store()
    for record in store.all(network):
        if not _is_left_over(store, record):
            continue
        attachment = str(record.attachment)
        try:
            released = release_recorded(store, record, partial(_is_left_over, store))
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
    request = Request("DEL", version, config=record.config)
    with store.lock(attachment, wait=False):
        # Its process may have finished meanwhile.
        found = store.load(attachment)
        if found is not None and not due(found):
            return False
        release(request, store, attachment, found)
        return True


def collect_one(request: Request, store: Store, attachment: Attachment) -> None:
    """Release an attachment that nobody is at work on."""
    try:
        with store.lock(attachment, wait=False):
            release(request, store, attachment, store.load(attachment))
    except BlockingIOError:
        log.warning(AT_WORK, attachment=str(attachment))


def collect_unrecorded(
    request: Request, store: Store, kept: set[tuple[str, str]], failures: Failures
) -> None:
    """Devices that bear our mark and have no record, for example because the disk was lost."""
    containers = {container for container, _ in kept}
    host = Namespace.current()
    try:
        marks = [link.alias for link in host.links()] + list(host.masquerades().values())
    finally:
        host.close()
    for attachment in filter(None, map(parse_alias, dict.fromkeys(marks))):
        if attachment.network == request.network and attachment.container_id not in containers:
            failures.run(f"release {attachment}", partial(collect_one, request, store, attachment))
