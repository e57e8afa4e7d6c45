"""ADD: the interface, what is refused, what the runtime passes on."""

from cni_netkit.conformance.plugin import JSON
from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.world import World

ALL_OR_NOTHING = "An ADD that failed has left nothing; not every caller that gives up sends a DEL"
LONGEST = "conformance-if1"
"""15 bytes, as many as the kernel allows."""


@row(
    "2, Parameters",
    "Name of the interface to create inside the container; if the plugin is unable to use this "
    "interface name it must return an error.",
)
def add_interface(world: World) -> None:
    """ADD makes the interface, by the name that it is told."""
    for name in ("eth0", LONGEST):
        container = world.container()
        container.ifname = name
        container.add()
        container.must_have(name)
        container.delete().succeeds()


@row(
    "2, ADD",
    "If an interface of the requested name already exists in the container, the CNI plugin MUST "
    "return with an error.",
)
def add_name_taken(world: World) -> None:
    """ADD fails where the container has an interface of that name."""
    container = world.container()
    container.occupy(container.ifname)
    container.call("ADD").fails()


@row("2, Errors", "A plugin must exit with a return code of 0 on success, and non-zero on failure.")
def add_container_gone(world: World) -> None:
    """ADD fails where there is no such network namespace."""
    container = world.container()
    container.remove()
    container.call("ADD").fails()


@row("contract", ALL_OR_NOTHING, Level.CONVENTION)
def add_all_or_nothing(world: World) -> None:
    """An ADD that fails leaves nothing behind, without any DEL."""
    before = world.settled()
    container = world.container()
    container.occupy(container.ifname)
    index = container.must_have(container.ifname)["ifindex"]
    answer = container.call("ADD").fails()
    if container.must_have(container.ifname, answer)["ifindex"] != index:
        raise answer.unmet("the interface that was there stays", "another one of its name")
    world.nothing_more_than(before, answer)
    container.remove()
    world.nothing_more_than(before, container.call("ADD").fails())


@row("3, Lifecycle & Ordering", "A _delete_ must still be executed even if the _add_ fails.")
def add_failed_then_del(world: World) -> None:
    """DEL after an ADD that failed succeeds, and then nothing is left."""
    before = world.settled()
    container = world.container()
    container.occupy(container.ifname)
    container.call("ADD").fails()
    world.nothing_more_than(before, container.delete().succeeds())


@row(
    "skel",
    "CNI_NETNS that is the plugin's own network namespace is refused with code 8",
    Level.CONVENTION,
)
def add_own_namespace(world: World) -> None:
    """ADD to the host's own network namespace fails with code 8, and leaves nothing there."""
    before = world.settled()
    container = world.container()
    answer = container.call("ADD", NETNS="/proc/self/ns/net").fails_with(8)
    world.nothing_more_than(before, answer)


def _previous(version: str, netns: str) -> JSON:
    """A result of a plugin that came before."""
    address: JSON = {"address": "192.0.2.7/24", "interface": 0}
    if version < "1.0.0":
        address["version"] = "4"
    interface = {"name": "before0", "mac": "02:00:00:00:00:07", "sandbox": netns}
    return {"cniVersion": version, "interfaces": [interface], "ips": [address]}


@row(
    "5, ADD Success",
    "Plugins provided a `prevResult` key as part of their request configuration must output it as "
    "their result, with any possible modifications made by that plugin included.",
    since="0.3.0",
)
def add_previous_result(world: World) -> None:
    """ADD behind another plugin passes that one's interface and address on."""
    container = world.container()
    given = _previous(world.version, str(container.netns))
    answer = container.call("ADD", world.configuration(prevResult=given))
    result = answer.result()
    names = [each.get("name") for each in result.get("interfaces", ())]
    if "before0" not in names:
        raise answer.unmet("interface before0 of prevResult in the result", f"{names}")
    addresses = {each.get("address"): each.get("interface") for each in result.get("ips", ())}
    if addresses.get("192.0.2.7/24") != names.index("before0"):
        raise answer.unmet("address 192.0.2.7/24 of before0 in the result", f"{addresses}")


@row(
    "3, Deriving request configuration from plugin configuration",
    "`runtimeConfig`: the runtime must insert an object consisting of the union of capabilities "
    "provided by the plugin and requested by the runtime",
)
def add_runtime_keys(world: World) -> None:
    """ADD accepts the keys that a runtime puts into a configuration."""
    keys = {"runtimeConfig": {}, "args": {"cni": {"labels": []}}, "cni.dev/conformance": True}
    world.container().add(**keys)


@row(
    "2, Parameters",
    "`CNI_ARGS`: Extra arguments passed in by the user at invocation time. Alphanumeric key-value "
    'pairs separated by semicolons; for example, "FOO=BAR;ABC=123"',
)
def add_arguments(world: World) -> None:
    """ADD accepts arguments of others, as Kubernetes' runtimes pass them, with IgnoreUnknown."""
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=1-2-3"
    world.container().call("ADD", ARGS=args).result()


@row(
    "2, ADD",
    "The runtime will provide a JSON-serialized plugin configuration object (defined below) on "
    "standard in.",
)
def add_large_configuration(world: World) -> None:
    """ADD reads a configuration of 2 MB to its end."""
    labels = [{"key": f"label{number}", "value": "x" * 1000} for number in range(2000)]
    world.container().add(args={"cni": {"labels": labels}})


@row(
    "2, ADD",
    "This implies that a given container ID may be added to a specific network more than once only "
    "if each addition is done with a different interface name.",
    Level.SHOULD,
    attachments=2,
)
def add_second_interface(world: World) -> None:
    """A container has two interfaces on the network; one stays when the other goes."""
    first = world.attached()
    second = first.beside("net1")
    second.add()
    answer = second.delete().succeeds()
    first.must_have(first.ifname, answer)
    first.must_answer(answer)


@row(
    "3, Lifecycle & Ordering",
    "Plugins must handle being executed concurrently across different containers.",
    attachments=8,
)
def parallel(world: World) -> None:
    """Eight ADDs at once get eight addresses; eight DELs at once leave nothing."""
    before = world.settled()
    containers = [world.container() for _ in range(8)]
    answers = world.at_once([each.try_add for each in containers])
    results = [each.result() for each in answers]
    given = [each["address"] for result in results for each in result.get("ips", ())]
    if len(set(given)) != len(given):
        raise answers[-1].unmet("an address for each", ", ".join(sorted(given)))
    for each in world.at_once([container.delete for container in containers]):
        each.succeeds()
    world.nothing_more_than(before, each)
