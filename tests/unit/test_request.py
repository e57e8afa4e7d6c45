"""Environment and standard input of a call (cni_netkit.spec.request)."""

import errno
import json
from typing import Any

import pytest

from cni_netkit.spec import version as versions
from cni_netkit.spec.request import check_ifname
from cni_netkit.verbs import VERBS
from tests.unit.given import conf, read_request, refused

CONTAINER_VERBS = ["ADD", "DEL", "CHECK"]
NETWORK_VERBS = ["GC", "STATUS"]

BAD_IDENTIFIERS = ["_c", ".c", "-c", "c/d", "c:d", "c d", "c\n", "ü", "c;d"]
BAD_IFNAMES = [".", "..", "a/b", "a:b", "a b", "a\tb", "a\u00a0b", "a\u2003b", "x" * 16, "ü" * 8]


def test_a_request_carries_what_the_environment_says() -> None:
    """Variables and configuration arrive in the request as they were given."""
    request = read_request("ADD", CNI_ARGS="IP=10.1.0.9", CNI_NETNS_OVERRIDE="TRUE")
    assert (request.verb, request.version, request.network) == ("ADD", "1.1.0", "net")
    assert (request.container_id, request.ifname) == ("c1", "eth0")
    assert request.netns == "/run/netns/c1"
    assert request.path == ("/opt/cni/bin", "/usr/lib/cni")
    assert request.arguments == {"IP": "10.1.0.9"}
    assert request.netns_override


@pytest.mark.parametrize("unset", [None, ""])
@pytest.mark.parametrize(
    ("verb", "required"),
    [
        ("ADD", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("CHECK", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", ["CNI_CONTAINERID", "CNI_IFNAME"]),
    ],
)
def test_all_missing_variables_are_in_one_error(
    verb: str, required: list[str], unset: str | None
) -> None:
    """Whatever a verb lacks is named in a single error 4, and an empty variable is missing."""
    with refused(4, *required):
        read_request(verb, CNI_CONTAINERID=unset, CNI_NETNS=unset, CNI_IFNAME=unset, CNI_PATH=unset)


@pytest.mark.parametrize("verb", CONTAINER_VERBS)
def test_each_missing_variable_is_an_error_of_its_own(verb: str) -> None:
    """One missing variable suffices for error 4, and only that one is named."""
    for name in VERBS[verb].required:
        with refused(4, f"CNI_{name}") as error:
            read_request(verb, **{f"CNI_{name}": None})
        others = set(VERBS[verb].required) - {name}
        assert not any(f"CNI_{other}" in error.message for other in others)


@pytest.mark.parametrize("netns", [None, "", "/run/netns/gone"])
def test_del_takes_any_namespace(netns: str | None) -> None:
    """DEL is content with a namespace that is absent, empty or gone."""
    assert read_request("DEL", CNI_NETNS=netns).netns == (netns or "")


@pytest.mark.parametrize("verb", NETWORK_VERBS)
@pytest.mark.parametrize("value", [None, "", "not: a /valid one"])
def test_network_verbs_ignore_container_variables(verb: str, value: str | None) -> None:
    """GC and STATUS neither demand nor look at what names a container."""
    request = read_request(
        verb, CNI_CONTAINERID=value, CNI_NETNS=value, CNI_IFNAME=value, CNI_ARGS=value
    )
    assert (request.container_id, request.netns, request.ifname) == ("", "", "")
    assert not request.arguments


@pytest.mark.parametrize("verb", [*CONTAINER_VERBS, *NETWORK_VERBS])
def test_path_may_be_missing(verb: str) -> None:
    """CNI_PATH is needed for delegation only, as the specification has it."""
    assert read_request(verb, CNI_PATH=None).path == ()


def test_empty_elements_of_path_fall_away() -> None:
    """An empty element of CNI_PATH does not stand for the current directory."""
    assert read_request("ADD", CNI_PATH=":/a::/b:").path == ("/a", "/b")


@pytest.mark.parametrize("verb", ["", "add", "ADDD", "GET"])
def test_unknown_verb(verb: str) -> None:
    """A verb that the specification does not have is error 4."""
    with refused(4, repr(verb), "ADD"):
        read_request(verb)


@pytest.mark.parametrize("verb", CONTAINER_VERBS)
@pytest.mark.parametrize("name", BAD_IDENTIFIERS)
def test_bad_container_id(verb: str, name: str) -> None:
    """A container id beginning with or holding a forbidden character is error 4."""
    with refused(4, "CNI_CONTAINERID"):
        read_request(verb, CNI_CONTAINERID=name)


@pytest.mark.parametrize("verb", CONTAINER_VERBS)
@pytest.mark.parametrize("name", BAD_IFNAMES)
def test_bad_ifname(verb: str, name: str) -> None:
    """An interface name that the kernel would refuse is error 4."""
    with refused(4, "CNI_IFNAME"):
        read_request(verb, CNI_IFNAME=name)


def test_bad_values_and_missing_ones_are_in_one_error() -> None:
    """Bad and missing variables are told together."""
    with refused(4, "CNI_NETNS", "CNI_CONTAINERID '/'", "CNI_IFNAME 'a:b'"):
        read_request("ADD", CNI_NETNS=None, CNI_CONTAINERID="/", CNI_IFNAME="a:b")


@pytest.mark.parametrize("name", ["c", "0", "a_b.c-d", "C" * 64])
def test_good_container_id(name: str) -> None:
    """Letters, digits, '_', '.' and '-' make a container id."""
    assert read_request("ADD", CNI_CONTAINERID=name).container_id == name


@pytest.mark.parametrize("name", ["e", "eth0.100", "x" * 15, "ü" * 7, "...", "-", "a@b"])
def test_good_ifname(name: str) -> None:
    """Up to 15 bytes of almost anything make an interface name."""
    assert check_ifname(name) is None


@pytest.mark.parametrize("name", ["", "a\0b", "a\udcffb"])
def test_ifname_that_no_environment_can_hold(name: str) -> None:
    """A name from JSON that is empty, or no C string in UTF-8, is refused as well."""
    assert check_ifname(name)


@pytest.mark.parametrize(
    "text",
    [
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_UID=1",
        "IgnoreUnknown=true;FOO=",
        "FOO=x;IgnoreUnknown=1",
        "IP=10.1.0.9;MAC=02:00:00:00:00:01;GATEWAY=10.1.0.1",
        "IgnoreUnknown=0;IP=10.1.0.9",
        "IP=10.1.0.9;",
    ],
)
def test_good_arguments(text: str) -> None:
    """Known keys are taken, unknown ones where IgnoreUnknown allows them."""
    pairs = dict(pair.split("=") for pair in text.split(";") if pair)
    assert read_request("ADD", CNI_ARGS=text).arguments == pairs


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("FOO", "'FOO'"),
        ("IP=a=b", "'IP=a=b'"),
        ("FOO=1", "FOO"),
        ("IgnoreUnknown=0;FOO=1;BAR=2", "BAR, FOO"),
        ("IgnoreUnknown=2;FOO=1", "FOO"),
        ("IgnoreUnknown=1;FOO", "'FOO'"),
    ],
)
def test_bad_arguments(text: str, word: str) -> None:
    """What is no pair, or an unknown key without IgnoreUnknown, is error 4 and named."""
    with refused(4, "CNI_ARGS", word):
        read_request("ADD", CNI_ARGS=text)


@pytest.mark.parametrize("verb", ["DEL", "CHECK"])
def test_arguments_cannot_keep_a_container_from_going(verb: str) -> None:
    """Only ADD reads CNI_ARGS, so that a bad one does not fail the verbs after it."""
    assert read_request(verb, CNI_ARGS="nonsense").arguments == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("true", True), ("TRUE", True), ("0", False), ("", False), (None, False)],
)
def test_namespace_override(value: str | None, expected: bool) -> None:
    """CNI_NETNS_OVERRIDE is on with 1 and TRUE."""
    assert read_request("ADD", CNI_NETNS_OVERRIDE=value).netns_override is expected


@pytest.mark.parametrize("verb", [*CONTAINER_VERBS, *NETWORK_VERBS])
def test_unreadable_input(verb: str) -> None:
    """Standard input that cannot be read is error 5."""

    def stdin() -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with refused(5, "Input/output error"):
        read_request(verb, stdin=stdin)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"{} {}", b"[" * 100_000],
    ids=lambda data: repr(data[:10]),
)
@pytest.mark.parametrize("verb", [*CONTAINER_VERBS, *NETWORK_VERBS])
def test_undecodable_input(verb: str, data: bytes) -> None:
    """Standard input that is no JSON object is error 6."""
    with refused(6, "JSON"):
        read_request(verb, stdin=lambda: data)


@pytest.mark.parametrize("version", ["1", "1.1", "1.1.0.0", "a.b.c", "1.1.x", "-1.0.0", 1, 1.1, []])
def test_unreadable_version(version: object) -> None:
    """A version that is not of the form 1.2.3 is error 6."""
    with refused(6, "cniVersion", json.dumps(version)):
        read_request("ADD", conf(cniVersion=version))


@pytest.mark.parametrize("version", ["0.0.1", "0.3.2", "1.0.1", "1.2.0", "2.0.0", "01.1.0"])
def test_unsupported_version(version: str) -> None:
    """A version that we do not speak is error 1, which names it and those we speak."""
    with refused(1, version, *versions.SUPPORTED):
        read_request("ADD", conf(cniVersion=version))


@pytest.mark.parametrize("version", versions.SUPPORTED)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_every_version_attaches_and_detaches(verb: str, version: str) -> None:
    """ADD and DEL exist in all seven versions."""
    assert read_request(verb, conf(cniVersion=version)).version == version


@pytest.mark.parametrize("config", [{"name": "net"}, conf(cniVersion=None), conf(cniVersion="")])
def test_no_version_is_the_oldest(config: dict[str, Any]) -> None:
    """Without a version, with null and with "" the configuration is of version 0.1.0."""
    assert read_request("ADD", config).version == "0.1.0"


@pytest.mark.parametrize("version", versions.SUPPORTED)
@pytest.mark.parametrize(
    ("verb", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")]
)
def test_verbs_exist_since_a_version(verb: str, since: str, version: str) -> None:
    """A verb that a version does not have is error 1, from its first version on it is read."""
    if versions.SUPPORTED.index(version) >= versions.SUPPORTED.index(since):
        assert read_request(verb, conf(cniVersion=version)).verb == verb
    else:
        with refused(1, verb, since, version):
            read_request(verb, conf(cniVersion=version))


@pytest.mark.parametrize("verb", [*CONTAINER_VERBS, *NETWORK_VERBS])
@pytest.mark.parametrize("name", [None, "", 5, ["net"], "../net", *BAD_IDENTIFIERS])
def test_bad_network_name(verb: str, name: object) -> None:
    """A network name that is missing or would lead out of the store is error 7."""
    with refused(7, "name"):
        read_request(verb, conf(name=name))


def test_the_environment_is_judged_before_the_input() -> None:
    """With both at fault the error is that of the environment, and standard input is not read."""

    def stdin() -> bytes:
        raise AssertionError("was read")

    with refused(4):
        read_request("ADD", stdin=stdin, CNI_IFNAME=None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"cniVersion": "0.4.0"}', "0.4.0"),
        (b'{"cniVersion": "9.9.9"}', "1.1.0"),
        (b'{"cniVersion": []}', "1.1.0"),
        (b"{}", "1.1.0"),
        (b"", "1.1.0"),
        (b"[1]", "1.1.0"),
        (b"\xff", "1.1.0"),
    ],
)
def test_version_answers_whatever_the_input(data: bytes, expected: str) -> None:
    """VERSION answers in the version of the input where we speak it, else in the newest."""
    request = read_request("VERSION", stdin=lambda: data, CNI_CONTAINERID="", CNI_IFNAME="dummy")
    assert (request.verb, request.version) == ("VERSION", expected)


def test_version_answers_without_input() -> None:
    """VERSION does not need standard input, as with the reference plugins."""

    def stdin() -> bytes:
        raise OSError(errno.EBADF, "Bad file descriptor")

    assert read_request("VERSION", stdin=stdin).version == "1.1.0"


LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}, {"type": "netkit"}]}


@pytest.mark.parametrize("verb", [*CONTAINER_VERBS, *NETWORK_VERBS])
def test_a_whole_list(verb: str) -> None:
    """Somebody typed `<10-netkit.conflist`: what it is, and the command that takes the entry out."""
    with refused(
        7,
        "a whole list of plugins (bridge, netkit)",
        "jq '{cniVersion, name} + .plugins[1]'",
        "cnitool",
    ):
        read_request(verb, LIST)


@pytest.mark.parametrize("plugins", [[], ["netkit", 5], [{"type": 5}]])
def test_a_list_of_anything(plugins: list[Any]) -> None:
    """It is not looked into."""
    with refused(7, "a whole list of plugins"):
        read_request("ADD", {**LIST, "plugins": plugins})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON: it is empty"),
        (b" \n", "is not JSON: it is empty"),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes (line 1, column 2)"),
        (b'{"a": "\xff"}', "is not JSON: it is not UTF-8 (byte 8)"),
        (b"[" * 100_000, "is not JSON: no program could read it"),
        (b'{"mtu": ' + b"9" * 5000 + b"}", "is not JSON: no program could read it"),
        (b"[1]", "is not a JSON object (found the list [1])"),
        (b"null", "is not a JSON object (found null)"),
    ],
    ids=lambda value: repr(value[:10]),
)
def test_why_input_cannot_be_decoded(data: bytes, words: str) -> None:
    """In words for whoever wrote it."""
    with refused(6, words):
        read_request("ADD", stdin=lambda: data)


def test_no_name() -> None:
    """It is said to be missing, not to be something."""
    with refused(7, "the network configuration has no name", '"name": "net"'):
        read_request("ADD", {"cniVersion": "1.0.0"})


@pytest.mark.parametrize("more", [{}, {"cniVersion": None}, {"cniVersion": ""}])
def test_without_a_version(more: dict[str, Any]) -> None:
    """It stands for the oldest, and an error on the version says so."""
    config = {"name": "net", **more}
    assert not read_request("ADD", config).has_version
    with refused(1, "the network configuration asks for 0.1.0, as it has no cniVersion"):
        read_request("STATUS", config)
    assert read_request("ADD", {**config, "cniVersion": "0.1.0"}).has_version
    with refused(1, "the network configuration asks for 0.1.0") as error:
        read_request("STATUS", {**config, "cniVersion": "0.1.0"})
    assert "has no cniVersion" not in error.message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_no_numbers_of_javascript(word: str) -> None:
    """Python alone reads them: passed on in a result, no runtime could."""
    data = f'{{"cniVersion": "1.1.0", "name": "net", "prevResult": {{"a": {word}}}}}'.encode()
    with refused(6, word):
        read_request("ADD", stdin=lambda: data)


def test_a_version_of_thousands_of_digits() -> None:
    """Python refuses to turn them into a number."""
    with refused(6):
        read_request("ADD", conf(cniVersion="1.0." + "9" * 5000))
