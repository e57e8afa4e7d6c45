"""What is no sound request, and how that is told."""

from cni_netkit.conformance.row import Level, row
from cni_netkit.conformance.world import World

ENVIRONMENT = "`4`|Invalid necessary environment variables, like CNI_COMMAND, CNI_CONTAINERID, etc."
ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")


@row("2, Errors", "A plugin must exit with a return code of 0 on success, and non-zero on failure.")
def error_status(world: World) -> None:
    """A request that cannot be understood ends with an exit status that is not 0."""
    world.container().call("ADD", "{").fails()


@row(
    "2, Errors",
    'If the plugin encounters an error, it should output an ["error" result structure](#Error)',
    Level.SHOULD,
)
def error_object(world: World) -> None:
    """An error is one JSON object with code (a number above 0) and msg."""
    container = world.container()
    container.occupy(container.ifname)
    answer = container.try_add().fails()
    error = answer.error()
    code = error.get("code")
    if not isinstance(code, int) or code <= 0 or not isinstance(error.get("msg"), str):
        raise answer.unmet("code and msg in the error", f"{error}")


@row(
    "5, Error",
    '`cniVersion`: The protocol version in use - "1.1.0"',
    Level.SHOULD,
    each_version=True,
)
def error_version(world: World) -> None:
    """An error has the version of the request as cniVersion."""
    container = world.container()
    container.occupy(container.ifname)
    answer = container.try_add().fails()
    told = answer.error().get("cniVersion")
    if told != world.version:
        raise answer.unmet(f"cniVersion is {world.version!r}", f"{told!r}")


@row("5, Error", "The error message must contain the names of invalid variables.")
def missing_variable(world: World) -> None:
    """ADD without one of its variables fails with code 4 and names it; so does DEL."""
    container = world.container()
    for verb, names in (("ADD", ATTACHMENT), ("DEL", ("CNI_CONTAINERID", "CNI_IFNAME"))):
        for name in names:
            missing = {name.removeprefix("CNI_"): ""}
            container.call(verb, **missing).fails_with(4).names(name)


@row("5, Error", "The error message must contain the names of invalid variables.")
def missing_variables(world: World) -> None:
    """ADD without any of its variables names all of them."""
    world.call("ADD").fails_with(4).names(*ATTACHMENT)


@row("5, Error", ENVIRONMENT, Level.SHOULD)
def unknown_command(world: World) -> None:
    """A CNI_COMMAND that is none fails with code 4."""
    world.container().call("CONFORMANCE").fails_with(4)


@row("5, Error", ENVIRONMENT, Level.SHOULD)
def invalid_container(world: World) -> None:
    """A CNI_CONTAINERID that leaves its folder or does not begin with a letter or digit: code 4."""
    for name in ("../conformance", "-conformance", "a b", "a/b"):
        world.container().call("ADD", CONTAINERID=name).fails_with(4)


@row("5, Error", ENVIRONMENT, Level.SHOULD)
def invalid_interface(world: World) -> None:
    """A CNI_IFNAME that the kernel would not have fails with code 4."""
    for name in ("..", "a/b", "a b", "a:b", "a-name-16-bytes-"):
        world.container().call("ADD", IFNAME=name).fails_with(4)


@row(
    "5, Error",
    "`7`|Invalid network config. If some validations on network configs do not pass, this error "
    "will be raised.",
    Level.SHOULD,
)
def invalid_network(world: World) -> None:
    """A network without a name, or with one that leaves its folder, fails with code 7."""
    for name in (None, "", "../conformance", "a b"):
        world.container(name=name).try_add().fails_with(7)


@row("5, Error", "`6`|Failed to decode content.", Level.SHOULD)
def undecodable(world: World) -> None:
    """Standard input that is no JSON object fails with code 6."""
    for text in ("{", "[]", "no JSON"):
        world.container().call("ADD", text).fails_with(6)
