"""CHECK: what is as it was, and what is not."""

from cni_netkit.conformance.plugin import JSON
from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.rows import result
from cni_netkit.conformance.world import World

MISSING = (
    "The plugin should return an error if a resource included in the CNI Result type (interface, "
    "address or route) was created by the plugin, and is listed in `prevResult`, but is missing or "
    "in an invalid state."
)
LATER = (
    "The plugin must allow for a later chained plugin to have modified networking resources, e.g. "
    "routes, on `ADD`."
)
ROUTE = "198.51.100.0/24"


@row(
    "2, CHECK",
    "The plugin must handle `CHECK` being called immediately after an `ADD`",
    since="0.4.0",
    each_version=True,
)
def check(world: World) -> None:
    """CHECK succeeds right after ADD."""
    container = world.attached()
    container.check().succeeds()


@row("2, CHECK", MISSING, Level.SHOULD, since="0.4.0")
def check_interface_gone(world: World) -> None:
    """CHECK fails where the interface is gone."""
    container = world.attached()
    container.lose(container.ifname)
    container.check().fails()


@row("2, CHECK", MISSING, Level.SHOULD, since="0.4.0")
def check_address_gone(world: World) -> None:
    """CHECK fails where an address is gone."""
    container = world.container()
    for name, address in result.addresses(container, container.try_add()):
        container.ip("addr", "del", address, "dev", name)
    container.check().fails()


@row("2, CHECK", MISSING, Level.SHOULD, since="0.4.0")
def check_route_gone(world: World) -> None:
    """CHECK fails where a route is gone."""
    container = world.container()
    for each in result.routes(container.try_add()):
        container.ip("-6" if ":" in each else "-4", "route", "del", each)
    container.check().fails()


@row(
    "2, CHECK",
    "The plugin should return an error if it is aware of a condition where the container is "
    "generally unreachable.",
    Level.SHOULD,
    since="0.4.0",
)
def check_container_gone(world: World) -> None:
    """CHECK fails where the network namespace is gone."""
    container = world.attached()
    container.remove()
    container.check().fails()


@row("2, CHECK", LATER, since="0.4.0")
def check_later_route(world: World) -> None:
    """CHECK succeeds where a later plugin added a route to the interface."""
    container = world.container()
    container.prev_result = _with_route(container.add())
    container.ip("route", "add", ROUTE, "dev", container.ifname)
    container.check().succeeds()


@row("2, CHECK", LATER, since="0.4.0")
def check_later_interface(world: World) -> None:
    """CHECK succeeds where a later plugin added another interface with an address."""
    container = world.container()
    given = container.add()
    container.occupy("later0")
    container.ip("addr", "add", "192.0.2.9/24", "dev", "later0")
    container.ip("link", "set", "later0", "up")
    container.prev_result = _with_interface(given, world.version, str(container.netns))
    container.check().succeeds()


def _with_route(given: JSON) -> JSON:
    return {**given, "routes": [*given.get("routes", ()), {"dst": ROUTE}]}


def _with_interface(given: JSON, version: str, netns: str) -> JSON:
    """The result as the later plugin hands it on."""
    interfaces = given.get("interfaces", [])
    address: JSON = {"address": "192.0.2.9/24", "interface": len(interfaces)}
    if version < "1.0.0":
        address["version"] = "4"
    return {
        **given,
        "interfaces": [*interfaces, {"name": "later0", "sandbox": netns}],
        "ips": [*given.get("ips", ()), address],
    }


@row(
    "2, CHECK",
    "The plugin must consult the `prevResult` to determine the expected interfaces and addresses.",
    since="0.4.0",
)
def check_without_result(world: World) -> None:
    """CHECK without prevResult fails."""
    container = world.attached()
    container.call("CHECK").fails()
