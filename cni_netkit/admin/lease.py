"""`cni-netkit lease add` and `lease remove`: leased queues for a container that is running.

They come on a single device of their own, an attachment as every ADD makes one, whose record says
what it was added to. What the container has already is not touched.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Annotated, Literal

from cni_netkit import verbs
from cni_netkit.admin import options
from cni_netkit.admin.lease_output import print_leases, print_ways_of_traffic
from cni_netkit.admin.list import described, records
from cni_netkit.admin.output import JSON, print_json
from cni_netkit.attachment import Attachment
from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.errors import NoNamespace
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.record import Record
from cni_netkit.records import device_of, netns_of
from cni_netkit.release import sweep
from cni_netkit.spec.addresses import ip_interface
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import Lease
from cni_netkit.spec.model import IFNAME
from cni_netkit.spec.request import Request
from cni_netkit.spec.version import NEWEST
from cni_netkit.state import Store

NO_NETWORK = "_none"
"""Where the namespace has no attachment: no network of a runtime can have this name."""

ID_CHARACTERS = 8
"""How many characters stand for a container's id, at least."""

NAMES = "/run/netns"
"""Where ip-netns(8) has its names."""


class Wanted(Lease):
    """What the options say: the lease, and what its device shall be called."""

    flows: Literal["address", "none"] | None = None
    if_name: Annotated[str, IFNAME]


def main(action: Callable[[argparse.Namespace], Record], arguments: argparse.Namespace) -> int:
    """Carry out `add` or `remove` and print what it was about; the exit status."""
    options.checked(Wanted, {**_lease_of(arguments), "ifName": arguments.ifname})
    try:
        record = action(arguments)
    except Exception as error:
        failure = as_cni_error(error)
        if failure.code == Code.INTERNAL:
            raise
        said = "; ".join(filter(None, (failure.message, failure.details)))
        print(f"{arguments.name}: error {int(failure.code)}: {said}", file=sys.stderr)
        return 1
    if arguments.json:
        print_json(described(record))
        return 0
    print_leases(record)
    if action is add and arguments.flows is None:
        print_ways_of_traffic(record)
    return 0


def add(arguments: argparse.Namespace) -> Record:
    """Attach a single device with leases to a container that is running; its record."""
    sweep(NO_NETWORK)
    target = _target(arguments.container)
    attachment = replace(target.attachment, ifname=arguments.ifname)
    store = Store()
    # Whoever deletes the container waits, and then finds what was added; or was here first.
    with store.lock(target.attachment):
        _expect_alive(store, target)
        _make_way(store, attachment)
        _attach(target, _configuration(target, arguments))
        record = store.load(attachment)
    if record is None:  # a GC came, to which the container is not valid
        raise _gone(target)
    return record


def remove(arguments: argparse.Namespace) -> Record:
    """Release what `add` attached; its record as it was."""
    found, _ = _look_up(arguments.container)
    added = {each.attachment.ifname: each for each in found if each.added_to is not None}
    record = added.get(arguments.ifname)
    if record is None:
        raise CNIError(
            Code.UNKNOWN_CONTAINER,
            f"no device {arguments.ifname} was added to {arguments.container}",
            f"there is: {', '.join(sorted(added)) or 'none'}",
        )
    with Store().lock(record.base):
        _detach(record)
    return record


def _look_up(container: str) -> tuple[list[Record], str]:
    """The records of a container, and the path of its namespace where that was what is given.

    `container` is an id, a namespace's path or name, or the beginning of an id.
    """
    every = records()
    if exact := [each for each in every if each.attachment.container_id == container]:
        return exact, ""
    path = container if "/" in container else f"{NAMES}/{container}"
    try:
        with closing(Namespace.at(path)) as namespace:
            identity = list(namespace.netns.identity)
    except NoNamespace as error:
        path, problem = "", error
        found = [each for each in every if each.attachment.container_id.startswith(container)]
        found = found if len(container) >= ID_CHARACTERS else []
    else:
        there = [each for each in every if each.netns_identity == identity]
        found = [each for each in there if netns_of(each) or device_of(each)]
    identifiers = {
        each.attachment.container_id for each in found if not path or each.added_to != ""
    }
    if len(identifiers) > 1:
        raise CNIError(
            Code.UNKNOWN_CONTAINER,
            f"{container} stands for more than one container: {', '.join(sorted(identifiers))}",
            "name one by its id",
        )
    if not (found or path):
        raise CNIError(
            Code.UNKNOWN_CONTAINER,
            f"no attachment of a container {container} is known, and {problem}",
            f"cni-netkit list shows the ids, of which {ID_CHARACTERS} characters are enough; other "
            "containers are known by their namespace only, for example /proc/PID/ns/net",
        )
    return found, path


def _target(container: str) -> Record:
    """What to add to: the container's first attachment by name, CNI_IFNAME before others.

    Where it has none, a record stands in that is not stored.
    """
    found, path = _look_up(container)
    own = [each for each in found if each.added_to is None]
    if own:
        return min(own, key=_rank)
    if not (path := path or netns_of(found[0])):
        raise _gone(found[0])
    return _unclaimed(path)


def _rank(record: Record) -> tuple[bool, str, str]:
    names = record.attachment
    return names.ifname != record.cni_ifname, names.ifname, names.network


def _unclaimed(path: str) -> Record:
    """What stands for a namespace that no runtime asked us to attach: its number is the id."""
    with closing(Namespace.at(path)) as namespace, closing(Namespace.current()) as host:
        identity = namespace.netns.identity
        if identity == host.netns.identity:
            raise CNIError(
                Code.SAME_NAMESPACE,
                f"{path} is the network namespace of the host, where the NIC is",
                "name that of a container",
            )
    return Record(
        attachment=Attachment(NO_NETWORK, f"netns-{identity[1]}", ""),
        cni_ifname="",
        netns=os.path.abspath(path),
        netns_identity=list(identity),
        config={},
        arguments="",
        path=[],
        steps=[],
        complete=True,
    )


def _expect_alive(store: Store, target: Record) -> None:
    if target.attachment.network == NO_NETWORK:
        return
    record = store.load(target.attachment)
    if record is None or not netns_of(record):
        raise _gone(target)
    if not record.complete:
        raise CNIError(
            Code.TRY_AGAIN_LATER,
            f"the ADD of {target.attachment} did not come to its end",
            "what it left is released by a DEL, a GC, or the agent's next start",
        )


def _gone(target: Record) -> CNIError:
    return CNIError(
        Code.UNKNOWN_CONTAINER,
        f"{target.attachment} is gone, or its network namespace {target.netns} is",
        "nothing was added",
    )


def _make_way(store: Store, attachment: Attachment) -> None:
    """Release what has the name and no device any more. Raises error 103 for everything else."""
    record = store.load(attachment)
    if record is None:
        return
    if record.added_to is None or device_of(record):
        raise CNIError(
            Code.ALREADY_EXISTS,
            f"{attachment} is attached already",
            "it was left as it is; --ifname gives the new device another name",
        )
    _detach(record)


def _attach(target: Record, config: JSON) -> None:
    verbs.add(
        Request(
            "ADD",
            NEWEST,
            container_id=target.attachment.container_id,
            netns=target.netns,
            ifname=target.cni_ifname,
            path=tuple(target.path),
            config=config,
            environment={"CNI_ARGS": target.arguments},
            added_to=target.attachment.ifname,
        )
    )


def _detach(record: Record) -> None:
    verbs.delete(
        Request(
            "DEL",
            NEWEST,
            container_id=record.attachment.container_id,
            ifname=record.cni_ifname,
            config=record.config,
            added_to=record.added_to,
        )
    )


def _configuration(target: Record, arguments: argparse.Namespace) -> JSON:
    """As of a plugin that is chained behind that of `target`: flows go by its addresses.

    Where that has none of our IPAM, by all that the container has.
    """
    addresses = target.outcome.get("addresses") or _addresses_in(target.netns)
    return {
        "cniVersion": NEWEST,
        "name": target.attachment.network,
        "type": "netkit",
        "pairing": "single",
        "ifName": arguments.ifname,
        "lease": _lease_of(arguments),
        "prevResult": {
            "cniVersion": NEWEST,
            "interfaces": [{"name": target.attachment.ifname, "sandbox": target.netns}],
            "ips": [{**each, "interface": 0} for each in addresses],
        },
    }


def _lease_of(arguments: argparse.Namespace) -> JSON:
    """The keys of `lease` that were given; of `remove` none can be."""
    given = {key: getattr(arguments, key, None) for key in Lease.model_fields}
    return {key: value for key, value in given.items() if value is not None}


def _addresses_in(netns: str) -> list[JSON]:
    """What others gave the container; not what is of one link, or of the container alone."""
    with closing(Namespace.at(netns)) as inside:
        found = [each for link in inside.links.all() for each in inside.links.addresses(link.index)]
    addresses = ((each, ip_interface(each).ip) for each in found)
    return [
        {"address": each}
        for each, address in addresses
        if not (address.is_link_local or address.is_loopback)
    ]
