"""ADD: the interface, and what the result says of it."""

from cni_netkit.conformance.row import row
from cni_netkit.conformance.world import World


@row(
    "2, ADD",
    "If an interface of the requested name already exists in the container, the CNI plugin MUST "
    "return with an error.",
)
def add_refuses_a_name_that_is_taken(world: World) -> None:
    """ADD fails where the container has an interface of that name."""
    container = world.container()
    container.occupy(container.ifname)
    container.call("ADD").fails()
