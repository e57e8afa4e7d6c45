"""DEL: always possible, and nothing is left."""

from cni_netkit.conformance.row import row
from cni_netkit.conformance.world import World

MULTIPLE = (
    "Plugins MUST accept multiple `DEL` calls for the same (`CNI_CONTAINERID`, `CNI_IFNAME`) pair, "
    "and return success if the interface in question, or any modifications added, are missing."
)


@row("2, DEL", MULTIPLE)
def del_again(world: World) -> None:
    """A second and a third DEL succeed."""
    container = world.container()
    container.add()
    for _ in range(3):
        container.delete().succeeds()
