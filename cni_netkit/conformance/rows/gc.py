"""GC: exactly what is not valid goes, and STATUS."""

from cni_netkit.conformance.plugin import JSON, Answer
from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.world import Container, World

VALID = "cni.dev/valid-attachments"
STALE = "A plugin SHOULD remove as many stale resources as possible."
LISTED = "The list of **still valid** attachments to this network"


def _collect(world: World, *valid: Container, **keys: JSON | str | None) -> Answer:
    """GC; what it is given besides are CNI_COMMAND and CNI_PATH alone."""
    listed = [{"containerID": each.id, "ifname": each.ifname} for each in valid]
    return world.call("GC", world.configuration(**{VALID: listed, **keys}))


@row("2, GC", STALE, Level.SHOULD, since="1.1.0", attachments=2)
def gc_stale(world: World) -> None:
    """GC removes what is left of a container that is not in its list."""
    valid = world.attached()
    before = world.snapshot()
    stale = world.attached()
    stale.remove()
    answer = _collect(world, valid).succeeds()
    world.nothing_more_than(before, answer)
    valid.must_answer(answer)


@row("2, GC", STALE, Level.SHOULD, since="1.1.0")
def gc_empty_list(world: World) -> None:
    """GC with an empty list removes what is left of any container."""
    before = world.settled()
    container = world.attached()
    container.remove()
    world.nothing_more_than(before, _collect(world).succeeds())


@row(
    "libcni",
    "Where the caller names no attachments, as `cnitool gc` does, the key is missing",
    Level.CONVENTION,
    since="1.1.0",
)
def gc_without_list(world: World) -> None:
    """GC without a list removes what is left of any container."""
    before = world.settled()
    container = world.attached()
    container.remove()
    world.nothing_more_than(before, _collect(world, **{VALID: None}).succeeds())


@row("2, GC", LISTED, since="1.1.0")
def gc_valid(world: World) -> None:
    """GC leaves alone what is in its list."""
    container = world.attached()
    before = world.snapshot()
    answer = _collect(world, container).succeeds()
    world.nothing_less_than(before, answer)
    container.must_answer(answer)


@row("2, GC", LISTED, since="1.1.0")
def gc_other_network(world: World) -> None:
    """GC of one network leaves another one alone."""
    container = world.attached(name="conformance-other")
    before = world.snapshot()
    answer = _collect(world).succeeds()
    world.nothing_less_than(before, answer)
    container.must_answer(answer)


@row(
    "2, GC",
    "Plugins should generally complete a `GC` action without error.",
    Level.SHOULD,
    since="1.1.0",
)
def gc_nothing(world: World) -> None:
    """GC succeeds where nothing was ever added, and once more after it has removed something."""
    _collect(world).succeeds()
    container = world.attached()
    container.remove()
    for _ in range(2):
        _collect(world).succeeds()


@row(
    "2, GC",
    'No output on success, ["error" result structure](#Error) on error.',
    since="1.1.0",
)
def gc_silent(world: World) -> None:
    """GC prints nothing on standard output."""
    container = world.attached()
    _collect(world, container).succeeds().prints_nothing()


@row(
    "libcni",
    "GC and STATUS have the parameters of attachments in their environment, all of them empty",
    Level.CONVENTION,
    since="1.1.0",
)
def empty_parameters(world: World) -> None:
    """GC and STATUS do not mind CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME that are empty."""
    empty = dict.fromkeys(("CONTAINERID", "NETNS", "IFNAME", "ARGS"), "")
    world.call("GC", world.configuration(**{VALID: []}), **empty).succeeds()
    world.call("STATUS", **empty).succeeds()


@row(
    "2, STATUS",
    "A plugin must exit with a zero (success) return code if the plugin is ready to service ADD "
    "requests.",
    since="1.1.0",
)
def status(world: World) -> None:
    """STATUS succeeds where ADD does, before it and after it."""
    world.call("STATUS").succeeds()
    world.container().add()
    world.call("STATUS").succeeds()


@row(
    "libcni",
    "Nothing is read from DEL, CHECK and STATUS that succeed",
    Level.CONVENTION,
)
def silent(world: World) -> None:
    """DEL, CHECK and STATUS print nothing on standard output."""
    container = world.attached()
    if world.version >= "0.4.0":
        container.check().succeeds().prints_nothing()
    if world.version >= "1.1.0":
        world.call("STATUS").succeeds().prints_nothing()
    container.delete().succeeds().prints_nothing()
