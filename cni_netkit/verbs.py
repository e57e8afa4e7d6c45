"""The verbs: what this plugin does, in order of appearance."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from cni_netkit import deadline, ipam, log, phases, tracecontext
from cni_netkit import plan as plans
from cni_netkit.attachment import Attachment
from cni_netkit.context import Context, namespaces
from cni_netkit.errors import as_cni_error
from cni_netkit.facts import gather_facts, gather_status_facts
from cni_netkit.kernel.errors import ProgramError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.outcome import Outcome
from cni_netkit.record import Record, boot_id
from cni_netkit.release import (
    Pairs,
    collect_recorded,
    collect_unrecorded,
    release,
    release_added,
)
from cni_netkit.spec import request as requests
from cni_netkit.spec import result as results
from cni_netkit.spec import version as versions
from cni_netkit.spec.config import NetConf, validate
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.request import Request, Verb
from cni_netkit.spec.result import JSON, Result
from cni_netkit.state import Store
from cni_netkit.steps.base import difference
from cni_netkit.steps.device import NO_MAC, Device
from cni_netkit.undo import Failures, Undo


@dataclass(frozen=True)
class Answer:
    """Exit status, and what goes to standard output."""

    status: int
    output: JSON | None = None


def handle(
    environment: Mapping[str, str],
    read: Callable[[], bytes],
    netns_descriptor: int | None = None,
    route_descriptor: int | None = None,
    *,
    on_terminal: bool = False,
) -> Answer:
    """Carry out one request of a runtime; `read` gives its standard input. Never raises.

    `netns_descriptor` is the namespace at CNI_NETNS, where the caller has opened it, and
    `route_descriptor` an rtnetlink socket in it; both remain the caller's to close. `on_terminal`:
    whoever reads the log there has the answer before them, so an error is not told twice.
    """
    version = versions.NEWEST
    started = time.monotonic()
    phases.begin("read")
    words: dict[str, Any] = {
        "verb": environment.get("CNI_COMMAND"),
        "container": environment.get("CNI_CONTAINERID") or None,
        "ifname": environment.get("CNI_IFNAME") or None,
        **tracecontext.words(environment),
    }
    options: dict[str, Any] = {}
    try:
        request = requests.read(VERBS, environment, read)
        request = replace(
            request, netns_descriptor=netns_descriptor, route_descriptor=route_descriptor
        )
        version, options = request.version, _log_options(request)
        phases.concerns(str(request.config.get("name", "")))
        with log.bound(**options, **words, network=request.config.get("name")):
            answer = Answer(0, VERBS[request.verb].run(request))
            log.debug("done", seconds=round(time.monotonic() - started, 6))
            return answer
    except Exception as error:
        failure = as_cni_error(error)
        with log.bound(**options, **words, shown=not on_terminal):
            log.error(failure.message, code=int(failure.code), details=failure.details)
        with log.bound(**options, **words):
            if failure.code == Code.INTERNAL:
                log.error("traceback", exception=_traceback(error))
        return Answer(1, failure.as_dict(version))


def add(request: Request) -> JSON:
    """Attach: all or nothing."""
    if not request.has_version:
        log.warning(NO_VERSION, remedy='add "cniVersion": "1.0.0" to the network configuration')
    conf = validate(request.config, request.arguments.get("MAC"))
    previous = results.read(conf.prev_result or {}, request.version)
    attachment = _attachment(request)
    store = Store()
    phases.begin("lock")
    with (
        namespaces(request, must_exist=True) as (host, container),
        store.lock(attachment),
    ):
        deadline.ensure_somebody_waits(f"ADD {attachment}")
        phases.begin("facts")
        facts = gather_facts(host, conf, request.arguments.get(POD_UID, ""))
        phases.begin("plan")
        plan = plans.decide(attachment, conf, facts, previous.container_addresses)
        promised = plans.promised(attachment, conf, facts.claims)
        chosen = ipam.configured(request, conf, attachment)
        record = _new_record(request, attachment, host, container, plan)
        context = Context(attachment, host, container, chosen, store, record)
        phases.begin("record")
        store.create(record)
        outcome, undo = Outcome(), Undo(as_cni_error)
        try:
            for step in plan:
                phases.begin(step.name)
                undo.push(step.describe(), partial(step.undo, context, outcome))
                step.do(context, outcome)
            phases.begin("answer")
            result = previous.followed_by(_result(request, conf, plan, facts.mtu, outcome))
            rendered = results.render(result, request.version)
            # Devices for the pod's claims (plan.py): each an attachment that goes with this one.
            for config in promised:
                added = replace(attachment, ifname=config["ifName"])
                undo.push(f"add {added}", partial(release_added, request, store, attachment, added))
                rendered = _add_to(request, attachment, config, rendered)
            record.complete = True
            context.save(outcome)
        except BaseException as error:
            failure = as_cni_error(error)
            phases.begin("undo")
            failures = undo.run()
            failures.attach_to(failure)
            if not failures:
                store.remove(attachment, request.added_to)
            raise failure from error
        return rendered


def _add_to(request: Request, base: Attachment, config: JSON, previous: JSON) -> JSON:
    """An attachment of its own, which goes with another one; what both together brought."""
    named = {key: request.config[key] for key in ("cniVersion", "name") if key in request.config}
    config = {**named, **config, "prevResult": previous}
    # The socket that came with the request is in use already.
    return add(replace(request, config=config, added_to=base.ifname, route_descriptor=None))


def delete(request: Request) -> None:
    """Detach: whatever is left of the attachment, from its record, or by its names without one."""
    store = Store()
    attachment = _attachment(request)
    phases.begin("lock")
    with store.lock(attachment):
        deadline.ensure_somebody_waits(f"DEL {attachment}")
        record = store.load(attachment)
        if record is not None and record.added_to != request.added_to:
            log.info("left alone, since it goes with what it was added to")
            return
        release(request, store, attachment, record)


def check(request: Request) -> None:
    """Compare an attachment with what the kernel says; the first difference is an error."""
    conf = validate(request.config)
    if conf.prev_result is None:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            "prevResult is missing in the network configuration: CHECK compares with it",
            "the runtime passes the result of ADD on",
        )
    store = Store()
    attachment = _attachment(request)
    previous = results.read(conf.prev_result, request.version)
    phases.begin("lock")
    with (
        store.lock(attachment),  # nothing is added or removed meanwhile
        namespaces(request, must_exist=True) as (host, container),
    ):
        record = store.load(attachment)
        if record is None or not record.complete:
            raise difference(f"record of {attachment}", "one that is complete", None)
        chosen = ipam.recorded(request, record)
        context = Context(attachment, host, container, chosen, store, record)
        plan, outcome = _recorded(record)
        if plan:
            _expect_what_the_chain_changed(attachment, previous, outcome)
        _check_each(plan, context, outcome)
        for added in filter(attrgetter("complete"), store.added_to(attachment)):
            its = replace(context, attachment=added.attachment, ipam=None, record=added)
            plan, outcome = _recorded(added)
            _check_each(plan, its, outcome)


def collect(request: Request) -> None:
    """GC: release every attachment of this network that the runtime does not list as valid."""
    conf = validate(request.config)
    valid = requests.valid_attachments(request.config)
    store = Store()
    failures = Failures(as_cni_error)
    phases.begin("recorded")
    kept = collect_recorded(request, store, valid, failures)
    phases.begin("unrecorded")
    failures.run("list the devices", partial(collect_unrecorded, request, store, kept, failures))
    phases.begin("reservation")
    if chosen := ipam.configured(request, conf, Attachment(request.network, "", "")):
        failures.run("collect addresses", partial(_collect_addresses, chosen, kept))
    failures.raise_first()


def _collect_addresses(chosen: ipam.Ipam, kept: Pairs) -> None:
    deadline.ensure_somebody_waits("GC")
    chosen.collect(kept)


def status(request: Request) -> None:
    """Tell whether ADD could work, as far as the set-up goes; what is used up is no error."""
    conf = validate(request.config)
    host = Namespace.current()
    phases.begin("facts")
    try:
        facts = gather_status_facts(host, conf)
        plans.check_prerequisites(conf, facts)
        if chosen := ipam.configured(request, conf, Attachment(request.network, "", "")):
            phases.begin("reservation")
            chosen.status()
    except (CNIError, ProgramError) as error:
        failure = as_cni_error(error)
        if failure.code in PREREQUISITES:
            raise CNIError(Code.NOT_AVAILABLE, failure.message, failure.details) from None
        raise failure from None
    finally:
        host.close()


def version(request: Request) -> JSON:
    """Name the versions of the specification that this plugin speaks."""
    return {"cniVersion": request.version, "supportedVersions": list(versions.SUPPORTED)}


NO_VERSION = (
    "the network configuration has no cniVersion: 0.1.0 holds, whose results have no interfaces"
)

POD_UID = "K8S_POD_UID"
"""The argument (CNI_ARGS) by which containerd and CRI-O say whose container it is."""

CLAIMED = "zc"
"""What an attachment is called that has devices for claims and none of its own."""

PREREQUISITES = frozenset(
    (Code.KERNEL_LACKS_FEATURE, Code.UNUSABLE_NIC, Code.NO_ADDRESS, Code.BPF_NOT_ATTACHABLE)
)
"""What keeps every ADD from working, and so the node from being ready."""

VERBS: Mapping[str, Verb] = {
    "ADD": Verb(add, ("CONTAINERID", "NETNS", "IFNAME"), reads_arguments=True),
    # DEL must also work for a container that is long gone, so it asks for the least.
    "DEL": Verb(delete, ("CONTAINERID", "IFNAME")),
    "CHECK": Verb(check, ("CONTAINERID", "NETNS", "IFNAME"), since="0.4.0"),
    "GC": Verb(collect, since="1.1.0"),
    "STATUS": Verb(status, since="1.1.0"),
    "VERSION": Verb(version),
}


def _attachment(request: Request) -> Attachment:
    ifname = request.config.get("ifName")
    if not isinstance(ifname, str) or requests.check_ifname(ifname):
        ifname = CLAIMED if request.config.get("claims") is True else request.ifname
    return Attachment(request.network, request.container_id, ifname)


def _new_record(
    request: Request,
    attachment: Attachment,
    host: Namespace,
    container: Namespace | None,
    plan: plans.Plan,
) -> Record:
    """The record that stands for everything about to be done."""
    assert container is not None
    config = {key: value for key, value in request.config.items() if key != "prevResult"}
    return Record(
        attachment=attachment,
        cni_ifname=request.ifname,
        netns=request.netns,
        netns_identity=list(container.netns.identity),
        config=config,
        arguments=request.environment.get("CNI_ARGS", ""),
        path=list(request.path),
        steps=plans.to_record(plan),
        added_to=request.added_to,
        boot=boot_id(),
        host_identity=list(host.netns.identity),
    )


def _check_each(plan: plans.Plan, context: Context, outcome: Outcome) -> None:
    """Raises error 105 for a difference, also where what is on record cannot be compared at all."""
    try:
        for step in plan:
            phases.begin(step.name)
            step.check(context, outcome)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        log.warning("what is on record is not sound", problem=repr(error))
        raise _damaged(context.attachment) from None


def _damaged(attachment: Attachment) -> CNIError:
    return difference(f"record of {attachment}", "one that is complete", "one that is damaged")


def _recorded(record: Record) -> tuple[plans.Plan, Outcome]:
    try:
        return plans.from_record(record)
    except ValueError:
        raise _damaged(record.attachment) from None


def _result(
    request: Request, conf: NetConf, plan: plans.Plan, mtu: int, outcome: Outcome
) -> Result:
    """What was made, as the kernel told it while it was made."""
    device = next((step for step in plan if isinstance(step, Device)), None)
    if device is None:
        return Result()
    # Results know an MTU since 1.1.0; below, a consumer may pass unknown keys on or not.
    size = {"mtu": mtu} if versions.at_least(request.version, "1.1.0") else {}
    mac = outcome.container_mac or NO_MAC
    interfaces = [{"name": device.container_name, "mac": mac, **size, "sandbox": request.netns}]
    if device.host_name:
        mac = outcome.host_mac or NO_MAC
        interfaces.insert(0, {"name": device.host_name, "mac": mac, **size})
    extensions: JSON = {}
    if (kind := device.spec.kind) != "netkit":
        log.warning("this kernel has no netkit: a veth pair takes its place", kind=kind)
        extensions["cni-netkit/fallback"] = kind
    return Result(
        interfaces=tuple(interfaces),
        ips=tuple({**each, "interface": len(interfaces) - 1} for each in outcome.addresses),
        routes=tuple(outcome.routes),
        dns=_dns(conf) or outcome.dns,
        extensions=extensions,
    )


def _dns(conf: NetConf) -> JSON:
    """The dns capability before the configuration's own."""
    configured: JSON = conf.dns.model_dump(exclude_defaults=True, mode="json") if conf.dns else {}
    asked = conf.runtime_config.dns
    dynamic = (
        {"nameservers": asked.servers, "search": asked.searches, "options": asked.options}
        if asked
        else {}
    )
    return configured | {key: list(value) for key, value in dynamic.items() if value}


def _expect_what_the_chain_changed(
    attachment: Attachment, previous: Result, outcome: Outcome
) -> None:
    """A later plugin may have given our device another MAC address: then prevResult says so."""
    ours = [
        each
        for each in previous.interfaces
        if each.get("name") == attachment.ifname and each.get("sandbox")
    ]
    if not ours:
        raise difference("interfaces in prevResult", attachment.ifname, None)
    outcome.container_mac = ours[0].get("mac") or outcome.container_mac


def _log_options(request: Request) -> dict[str, Any]:
    """Level and file of the configuration, as far as they can be believed before it is checked."""
    options = request.config.get("log")
    options = options if isinstance(options, dict) else {}
    level, file = options.get("level"), options.get("file")
    return {
        "level": level if level in log.LEVELS else "info",
        "file": file if isinstance(file, str) else None,
    }


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
