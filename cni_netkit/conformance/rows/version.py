"""VERSION, and what is refused because of a version."""

from cni_netkit.conformance.row import row
from cni_netkit.conformance.world import World


@row(
    "2, VERSION",
    "Plugins must output a JSON object with the following keys upon a `VERSION` operation",
)
def version(world: World) -> None:
    """VERSION tells the versions that the plugin speaks."""
    answer = world.call("VERSION", {"cniVersion": world.version}).succeeds()
    told = answer.document().get("supportedVersions")
    if not isinstance(told, list) or world.version not in told:
        raise answer.unmet("supportedVersions is a list of versions", f"{told!r}")
