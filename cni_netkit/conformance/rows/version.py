"""VERSION, and what is refused because of a version."""

from cni_netkit.conformance.plugin import Inapplicable
from cni_netkit.conformance.row import VERSIONS, Level, row
from cni_netkit.conformance.world import World


@row(
    "5, VERSION Success",
    "Plugins must output a JSON object with the following keys upon a `VERSION` operation",
)
def version(world: World) -> None:
    """VERSION tells the versions that the plugin speaks."""
    answer = world.call("VERSION", {"cniVersion": world.version}).succeeds()
    told = answer.document().get("supportedVersions")
    if not isinstance(told, list) or world.version not in told:
        raise answer.unmet("supportedVersions is a list of versions", f"{told!r}")


@row(
    "5, VERSION Success",
    "`cniVersion`: The value of `cniVersion` specified on input",
    each_version=True,
)
def version_echo(world: World) -> None:
    """VERSION answers in the version that it was asked in."""
    answer = world.call("VERSION", {"cniVersion": world.version}).succeeds()
    told = answer.document().get("cniVersion")
    if told != world.version:
        raise answer.unmet(f"cniVersion is {world.version!r}", f"{told!r}")


@row("2, VERSION", "Required environment parameters: - `CNI_COMMAND`")
def version_alone(world: World) -> None:
    """VERSION needs no other variable than CNI_COMMAND."""
    world.path = ""
    world.call("VERSION", {"cniVersion": world.version}).succeeds().document()


@row("5, Error", "`1`|Incompatible CNI version", Level.SHOULD)
def unknown_version(world: World) -> None:
    """ADD in a version that nobody knows fails with code 1."""
    container = world.container()
    container.call("ADD", world.configuration(cniVersion="99.0.0")).fails_with(1)


@row(
    "skel",
    "CHECK needs a configuration of CNI 0.4.0, GC and STATUS of 1.1.0; else the code is 1",
    Level.CONVENTION,
    each_version=True,
)
def later_verbs(world: World) -> None:
    """CHECK, GC and STATUS fail with code 1 in versions that do not have them."""
    since = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
    verbs = [verb for verb, needed in since.items() if world.version < needed]
    if not verbs:
        raise Inapplicable(f"CNI {VERSIONS[-1]} has all verbs")
    container = world.container()
    for verb in verbs:
        container.call(verb).fails_with(1)
