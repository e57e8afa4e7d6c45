"""DEL: always possible, and nothing is left."""

from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.world import World

MULTIPLE = (
    "Plugins MUST accept multiple `DEL` calls for the same (`CNI_CONTAINERID`, `CNI_IFNAME`) pair, "
    "and return success if the interface in question, or any modifications added, are missing."
)
OWN_RESOURCES = (
    "For another example, the `bridge` plugin should delegate the DEL action to the IPAM plugin "
    "and clean up its own resources even if the container network namespace and/or container "
    "network interface no longer exist."
)
GENERALLY = (
    "Plugins should generally complete a `DEL` action without error even if some resources are "
    "missing."
)


@row("2, DEL", "delete the interface defined by `CNI_IFNAME` inside the container at `CNI_NETNS`")
def del_interface(world: World) -> None:
    """After DEL the container has no such interface, and others are as they were."""
    container = world.container()
    before = set(container.links())
    container.add()
    answer = container.delete().succeeds()
    if (after := set(container.links())) != before:
        raise answer.unmet(f"interfaces {', '.join(before)}", f"{', '.join(after)}")


@row("2, DEL", "undo any modifications applied in the plugin's `ADD` functionality")
def del_leaves_nothing(world: World) -> None:
    """After DEL there is nothing of the container: interfaces, routes, rules, files, processes."""
    before = world.settled()
    container = world.attached()
    world.nothing_more_than(before, container.delete().succeeds())


@row("2, DEL", MULTIPLE)
def del_again(world: World) -> None:
    """A second and a third DEL succeed."""
    container = world.attached()
    for _ in range(3):
        container.delete().succeeds()


@row("2, DEL", MULTIPLE)
def del_never_added(world: World) -> None:
    """DEL of what was never added succeeds."""
    container = world.container()
    container.delete().succeeds()
    container.delete(NETNS="").succeeds()


@row("2, DEL", MULTIPLE)
def del_interface_gone(world: World) -> None:
    """DEL succeeds where the interface is gone."""
    container = world.attached()
    container.lose(container.ifname)
    container.delete().succeeds()


@row("2, DEL", OWN_RESOURCES, Level.SHOULD)
def del_interface_gone_leaves_nothing(world: World) -> None:
    """After DEL of a container whose interface is gone nothing is left."""
    before = world.settled()
    container = world.attached()
    container.lose(container.ifname)
    world.nothing_more_than(before, container.delete().succeeds())


@row("2, DEL", "Optional environment parameters: - `CNI_NETNS`")
def del_without_namespace(world: World) -> None:
    """DEL succeeds without CNI_NETNS, and with an empty one."""
    container = world.attached()
    container.delete(NETNS="").succeeds()
    container.call("DEL", container.with_result(), empty=("NETNS",)).succeeds()


@row("2, DEL", GENERALLY, Level.SHOULD)
def del_container_gone(world: World) -> None:
    """DEL succeeds where the network namespace is gone."""
    container = world.attached()
    container.remove()
    container.delete().succeeds()


@row("2, DEL", OWN_RESOURCES, Level.SHOULD)
def del_container_gone_leaves_nothing(world: World) -> None:
    """After DEL of a container whose network namespace is gone nothing is left."""
    before = world.settled()
    container = world.attached()
    container.remove()
    world.nothing_more_than(before, container.delete().succeeds())


@row(
    "0.4.0: Parameters",
    "When `CNI_NETNS` and/or `prevResult` are not provided, the plugin should clean up as many "
    "resources as possible (e.g. releasing IPAM allocations) and return a successful response.",
    Level.SHOULD,
    since="0.4.0",
)
def del_without_result(world: World) -> None:
    """DEL without prevResult succeeds, and nothing is left."""
    before = world.settled()
    container = world.attached()
    world.nothing_more_than(before, container.call("DEL").succeeds())


@row(
    "3, Execution of Network Configurations",
    "An attachment may be uniquely identified by the `(CNI_CONTAINERID, CNI_IFNAME)` tuple.",
    attachments=2,
)
def del_others_stay(world: World) -> None:
    """DEL of one container leaves another one as it was."""
    one, other = world.container(), world.container()
    other.add()
    before = world.snapshot()
    one.add()
    answer = one.delete().succeeds()
    other.must_answer(answer)
    world.nothing_less_than(before, answer)
