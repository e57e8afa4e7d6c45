"""What a plugin makes of the IPAM plugin that its configuration names."""

from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.rows.add import ALL_OR_NOTHING
from cni_netkit.conformance.rows.gc import VALID
from cni_netkit.conformance.stub import Stub
from cni_netkit.conformance.world import World

MISSING = {"ipam": {"type": "conformance-no-such-ipam"}}
ALSO = (
    "If a plugin is executed with `CNI_COMMAND=CHECK`, `DEL`, or `GC`, it must also execute any "
    "delegated plugins."
)


@row(
    "4, Delegated Plugin protocol",
    "The delegated plugin must receive all the same environment variables that were passed in to "
    "the CNI plugin.",
    since="0.3.0",
    delegates=True,
)
def delegate_environment(world: World) -> None:
    """The IPAM plugin has the variables that the plugin has."""
    container = world.container(**Stub(world).keys)
    args = "IgnoreUnknown=1;K8S_POD_NAME=web"
    answer = container.call("ADD", ARGS=args)
    answer.succeeds()
    (call, *_) = Stub.calls("ADD", answer)
    for name, value in answer.parameters.items():
        if call.environment.get(name) != value:
            raise answer.unmet(f"{name}={value} for the delegate", f"{call.environment.get(name)}")


@row(
    "4, Delegated Plugin protocol",
    "Delegated plugins are provided the *complete network configuration* passed to the "
    '"upper" plugin.',
    since="0.3.0",
    delegates=True,
)
def delegate_configuration(world: World) -> None:
    """The IPAM plugin has the whole configuration."""
    container = world.container(**Stub(world).keys)
    answer = container.try_add(**{"cni.dev/conformance": [1, {"a": "b"}]})
    answer.succeeds()
    (call, *_) = Stub.calls("ADD", answer)
    given = world.configuration(**container.keys, **{"cni.dev/conformance": [1, {"a": "b"}]})
    if missing := [key for key, value in given.items() if call.configuration.get(key) != value]:
        raise answer.unmet("the configuration for the delegate", f"other {', '.join(missing)}")


@row("4, Delegated plugin execution procedure", ALSO, since="0.4.0", delegates=True)
def delegate_check(world: World) -> None:
    """CHECK executes CHECK of the IPAM plugin."""
    container = world.attached(**Stub(world).keys)
    Stub.calls("CHECK", container.check().succeeds())


@row("4, Delegated plugin execution procedure", ALSO, since="0.3.0", delegates=True)
def delegate_del(world: World) -> None:
    """DEL executes DEL of the IPAM plugin."""
    container = world.attached(**Stub(world).keys)
    Stub.calls("DEL", container.delete().succeeds())


@row(
    "2, GC",
    "Plugins MUST, additionally, forward any GC calls to delegated plugins they are configured to "
    "use (see section 4).",
    since="1.1.0",
    delegates=True,
)
def delegate_gc(world: World) -> None:
    """GC executes GC of the IPAM plugin, with the list that it was given."""
    stub = Stub(world)
    valid = [{"containerID": "somebody", "ifname": "eth0"}]
    answer = world.call("GC", world.configuration(**stub.keys, **{VALID: valid})).succeeds()
    (call, *_) = Stub.calls("GC", answer)
    if call.configuration.get(VALID) != valid:
        raise answer.unmet(f"{VALID} for the delegate", f"{call.configuration.get(VALID)}")


@row(
    "2, STATUS",
    "If a plugin relies on a delegated plugin (e.g. IPAM) to service `ADD` requests, it must also "
    "execute a `STATUS` request to that plugin when it receives a `STATUS` request for itself.",
    since="1.1.0",
    delegates=True,
)
def delegate_status(world: World) -> None:
    """STATUS executes STATUS of the IPAM plugin."""
    stub = Stub(world)
    Stub.calls("STATUS", world.call("STATUS", world.configuration(**stub.keys)).succeeds())


@row(
    "2, STATUS",
    "If the delegated plugin return an error result, the executing plugin should return an error "
    "result.",
    Level.SHOULD,
    since="1.1.0",
    delegates=True,
)
def delegate_status_fails(world: World) -> None:
    """STATUS fails where that of the IPAM plugin does."""
    stub = Stub(world, fails="STATUS")
    world.call("STATUS", world.configuration(**stub.keys)).fails()


@row(
    "4, Delegated plugin execution procedure",
    "If any of the delegated plugins return error, error should be returned by the upper plugin.",
    Level.SHOULD,
    since="0.4.0",
    delegates=True,
)
def delegate_check_fails(world: World) -> None:
    """CHECK fails where that of the IPAM plugin does."""
    container = world.attached(**Stub(world, fails="CHECK").keys)
    container.check().fails()


@row(
    "4, Delegated plugin execution procedure",
    'If, on `ADD`, a delegated plugin fails, the "upper" plugin should execute again with `DEL` '
    "before returning failure.",
    Level.SHOULD,
    since="0.3.0",
    delegates=True,
)
def delegate_add_fails(world: World) -> None:
    """ADD fails where that of the IPAM plugin does, and has executed its DEL."""
    container = world.container(**Stub(world, fails="ADD").keys)
    Stub.calls("DEL", container.try_add().fails())


@row(
    "4, Delegated plugin execution procedure",
    "Ensure that the delegated plugin's stderr is output to the calling plugin's stderr.",
    Level.SHOULD,
    since="0.3.0",
    delegates=True,
)
def delegate_stderr(world: World) -> None:
    """What the IPAM plugin says on standard error is on the plugin's."""
    container = world.container(**Stub(world).keys)
    answer = container.try_add()
    answer.succeeds()
    if Stub.SAYS not in answer.stderr:
        raise answer.unmet(f"{Stub.SAYS!r} on standard error", "something else")


@row(
    "2, Errors",
    "A plugin must exit with a return code of 0 on success, and non-zero on failure.",
    delegates=True,
)
def delegate_missing(world: World) -> None:
    """ADD fails where there is no such IPAM plugin."""
    world.container(**MISSING).try_add().fails()


@row("contract", ALL_OR_NOTHING, Level.CONVENTION, delegates=True)
def delegate_missing_leaves_nothing(world: World) -> None:
    """ADD without its IPAM plugin leaves nothing behind, without any DEL."""
    before = world.settled()
    container = world.container(**MISSING)
    answer = container.try_add().fails()
    if container.ifname in container.links():
        raise answer.unmet(f"no {container.ifname} in the container", "it is there")
    world.nothing_more_than(before, answer)
