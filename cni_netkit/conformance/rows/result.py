"""What ADD prints: its shape in each version, and whether it is true."""

import ipaddress
from typing import Any

from cni_netkit.conformance.plugin import JSON, Answer, Inapplicable
from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.world import Container, World

KEYS = "Plugins must output a JSON object with the following keys upon a successful `ADD` operation"


@row(
    "2, ADD",
    "If the CNI plugin is successful, it must output a [result structure](#Success) (see below) on "
    "standard out.",
    each_version=True,
)
def add(world: World) -> None:
    """ADD succeeds and prints one JSON document and nothing else; DEL succeeds."""
    container = world.attached()
    container.delete().succeeds()


@row(
    "5, ADD Success",
    '`cniVersion`: The same version supplied on input - the string "1.1.0"',
    each_version=True,
)
def result_version(world: World) -> None:
    """The result is in the version of the request."""
    _, answer = _added(world)
    told = answer.result().get("cniVersion")
    if told != world.version:
        raise answer.unmet(f"cniVersion is {world.version!r}", f"{told!r}")


@row("5, ADD Success", KEYS, each_version=True)
def result_shape(world: World) -> None:
    """The result has the keys of its version, each of the right type."""
    _, answer = _added(world)
    result = answer.result()
    faults = _old_faults(result) if world.version < "0.3.0" else _faults(result, world.version)
    if faults:
        raise answer.unmet(f"a result as CNI {world.version} has it", "; ".join(faults))


def _old_faults(result: JSON) -> list[str]:
    """0.1.0 and 0.2.0 have an address of each family and no interfaces."""
    families = [key for key in ("ip4", "ip6") if key in result]
    wrong = [key for key in families if not _is_network(_entry(result[key]).get("ip"))]
    later = [key for key in ("interfaces", "ips") if key in result]
    return [
        *(f"{key}.ip is no address with a prefix length" for key in wrong),
        *(f"{key}, which only later versions have" for key in later),
    ]


def _faults(result: JSON, version: str) -> list[str]:
    """From 0.3.0 on: lists of interfaces, addresses and routes."""
    interfaces = _entries(result.get("interfaces"))
    ips = _entries(result.get("ips"))
    faults = [] if interfaces else ["no list of interfaces"]
    faults += [f"interface {each}" for each in interfaces if not _is_word(each.get("name"))]
    faults += [f"address {each}" for each in ips if not _is_network(each.get("address"))]
    faults += [
        f"{each}: there is no such interface"
        for each in ips
        if each.get("interface") not in (None, *range(len(interfaces)))
    ]
    if version < "1.0.0":
        faults += [f"version of {each}" for each in ips if each.get("version") not in ("4", "6")]
    routes = _entries(result.get("routes"))
    faults += [f"route {each}" for each in routes if not _is_network(each.get("dst"))]
    if not isinstance(result.get("dns", {}), dict):
        faults.append("dns is no object")
    return faults


@row(
    "5, ADD Success",
    "`interfaces`: An array of all interfaces created by the attachment, including any host-level "
    "interfaces",
    since="0.3.0",
)
def result_interfaces(world: World) -> None:
    """The result names the interfaces with their MAC addresses, and all that ADD made."""
    before = world.snapshot()["interface"]
    container, answer = _added(world)
    told = _entries(answer.result().get("interfaces"))
    for inside, there in ((True, container.links()), (False, world.links())):
        for each in told:
            if bool(each.get("sandbox")) == inside:
                _is_there(each, there, answer)
    if container.ifname not in [each.get("name") for each in told if each.get("sandbox")]:
        raise answer.unmet(f"{container.ifname} with a sandbox in the result", f"{told}")
    names = {each.get("name") for each in told if not each.get("sandbox")}
    if untold := set(world.links()) - before - names:
        raise answer.unmet("all interfaces that ADD made on the host", f"no {', '.join(untold)}")


def _is_there(told: JSON, there: dict[str, JSON], answer: Answer) -> None:
    found = there.get(str(told.get("name")))
    if not found:
        raise answer.unmet(f"the interface of the result, {told}", f"only {', '.join(there)}")
    if told.get("mac") and told["mac"].lower() != found.get("address"):
        raise answer.unmet(
            f"MAC address {told['mac']} of {told['name']}", f"{found.get('address')}"
        )


@row(
    "5, ADD Success",
    "For interfaces created inside the container, this should be the value passed via `CNI_NETNS`.",
    Level.SHOULD,
    since="0.3.0",
)
def result_sandbox(world: World) -> None:
    """The sandbox of the container's interface is CNI_NETNS, to the letter."""
    container, answer = _added(world)
    told = _entries(answer.result().get("interfaces"))
    found = [each.get("sandbox") for each in told if each.get("name") == container.ifname]
    if found != [str(container.netns)]:
        raise answer.unmet(f"sandbox is {container.netns}", f"{found}")


@row("5, ADD Success", "`ips`: IPs assigned by this attachment.", since="0.3.0")
def result_addresses(world: World) -> None:
    """The container has the addresses of the result, each on its interface."""
    container, answer = _added(world)
    told = addresses(container, answer)
    links = container.links()
    for name, address in told:
        there = [f"{each['local']}/{each['prefixlen']}" for each in links[name]["addr_info"]]
        if address not in there:
            raise answer.unmet(f"{address} on {name}", f"{', '.join(there) or 'no address'}")


@row("5, ADD Success", "`routes`: Routes created by this attachment", since="0.3.0")
def result_routes(world: World) -> None:
    """The container has the routes of the result."""
    container, answer = _added(world)
    there = container.routes()
    for each in routes(answer):
        if each not in there:
            raise answer.unmet(f"a route to {each}", f"routes to {', '.join(sorted(there))}")


def addresses(container: Container, answer: Answer) -> list[tuple[str, str]]:
    """What the result says of addresses in the container: (interface, address)."""
    result = answer.result()
    interfaces = _entries(result.get("interfaces"))
    found = []
    for each in _entries(result.get("ips")):
        index = each.get("interface", len(interfaces))
        interface = dict(enumerate(interfaces)).get(index, {"sandbox": True})
        if interface.get("sandbox"):
            address = ipaddress.ip_interface(each["address"])
            found.append((str(interface.get("name", container.ifname)), address.with_prefixlen))
    if not found:
        raise Inapplicable("the result has no address in the container")
    return found


def routes(answer: Answer) -> list[str]:
    """Destinations of the result's routes."""
    found = [
        str(ipaddress.ip_network(each["dst"])) for each in _entries(answer.result().get("routes"))
    ]
    if not found:
        raise Inapplicable("the result has no route")
    return found


def _added(world: World) -> tuple[Container, Answer]:
    container = world.container()
    return container, container.try_add()


def _entries(value: Any) -> list[JSON]:
    """A list of objects; nothing where it is none."""
    return [_entry(each) for each in value] if isinstance(value, list) else []


def _entry(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_network(value: Any) -> bool:
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return False
    return "/" in value
