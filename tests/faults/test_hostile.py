"""Hostile requests where their structure matters: the examples, changed in every way, by every verb.

Whatever is answered has a code; and when all is over, the world is as it was, down to the settings
under /proc/sys/net. What the first attachment of all leaves has a test of its own: forwarding.
"""

import copy
import json
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.verbs import Answer as Handled
from tests.faults.fuzz import cell, mutation, oracle, seeds
from tests.kernel import judge
from tests.kernel.conftest import JSON, Node, through_agent

REQUESTS = {"process": 2000, "agent": 400}
REQUESTS_OF_A_LONG_RUN = 50_000
SEED = 4711
WEIGHTS = {"ADD": 8, "CHECK": 2, "DEL": 3, "GC": 1, "STATUS": 1, "VERSION": 1}
CONTAINERS = 4
NAMES = ["eth0", "net1", "exactly15bytes_"]
HOSTILE_NAMES = [name for name in mutation.NAMES if "\0" not in name]
"""As environment: there is no NUL in a variable."""

FORWARDING = re.compile(r"settings : (ipv4/ip_forward|ipv[46]/conf/[^/]+/forwarding)")
"""net.ipv4.ip_forward and net.ipv6.conf.all.forwarding, and what the kernel sets along with them."""

REDIRECTS = "settings : ipv4/conf/all/accept_redirects"
"""A router accepts none: the kernel takes it back with forwarding (inet_forward_change())."""

KEPT = re.compile(r"/var/lib/cni/(netkit|networks)(/[^/]+)?(/lock|/last_reserved_ip\.\d)?")
"""Folders of networks, which somebody may be about to write into, locks, and where IPAM goes on."""


def settings(netns: str = "") -> dict[str, str]:
    """Everything under /proc/sys/net that can be read, of a namespace."""
    text = judge.run(
        *("find", "/proc/sys/net", "-type", "f", "-readable", "-exec", "grep", "-H", "", "{}", "+"),
        netns=netns,
        check=False,
    )
    pairs = (line.removeprefix("/proc/sys/net/").partition(":") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def whole_world(containers: list[str]) -> dict[str, Any]:
    """What `judge.world` has, and besides settings, neighbours, rules, queueing disciplines, sockets."""
    seen = judge.world(*containers)
    for netns in ("", *containers):
        where = ["-n", netns] if netns else []
        seen[f"settings {netns}"] = settings(netns)
        seen[f"rules {netns}"] = judge.run("ip", *where, "rule")
        seen[f"rules of IPv6 {netns}"] = judge.run("ip", *where, "-6", "rule")
        seen[f"neighbours {netns}"] = judge.run("ip", *where, "neigh", "show", "nud", "permanent")
        seen[f"disciplines {netns}"] = judge.run("tc", *where, "qdisc", "show")
        seen[f"link-local {netns}"] = judge.run("ip", *where, "-6", "-br", "addr")
    seen["mounts"] = Path("/proc/self/mounts").read_text()
    paths = (str(path) for path in Path("/var/lib/cni").rglob("*"))
    seen["files of another kind"] = sorted(path for path in paths if not KEPT.fullmatch(path))
    return seen


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two worlds differ, by path."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**before, **after}:
        one, other = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= {f"{key}: {name}": pair for name, pair in differences(one, other).items()}
        elif one != other:
            found[key] = (one, other)
    return found


@pytest.fixture
def protected(node: Node) -> None:
    """No file elsewhere can be touched: a configuration may name any."""
    cell.protect("/var/lib/cni", "/run/netns", "/sys", tempfile.gettempdir())


@pytest.fixture
def configurations(node: Node) -> list[JSON]:
    """What a runtime passes of every example, with a NIC of the lab in the place of theirs."""
    nic = node.nic()
    made = []
    for _, config in [*seeds.configurations(), *seeds.variations()]:
        if "lease" in config:
            config["lease"].pop("workload", None)
            config["lease"] |= {"device": nic, "flows": "none"}
        if config.get("fallback") == "veth":
            config.pop("fallback")
        made.append(config)
    return made


class Runtime:
    """One that has lost its mind. What it attached to what it remembers, to take it back in the end."""

    def __init__(self, node: Node, configurations: list[JSON], chance: random.Random) -> None:
        self.node, self.configurations, self.chance = node, configurations, chance
        self.containers = [node.container() for _ in range(CONTAINERS)]
        self.asked: dict[tuple[str, str, str], bytes] = {}
        self.results: list[JSON] = [seeds.PREVIOUS]
        self.answered = dict.fromkeys(WEIGHTS, 0)
        self.codes: dict[int, int] = {}

    def ask(self) -> None:
        """One request, mostly not as it should be."""
        verb = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        config = json.loads(json.dumps(self.chance.choice(self.configurations)))
        if verb == "CHECK" or self.chance.random() < 0.1:
            config["prevResult"] = copy.deepcopy(self.chance.choice(self.results))
        if verb == "GC" and self.chance.random() < 0.5:
            config["cni.dev/valid-attachments"] = self._valid()
        hostile = self.chance.random() < 0.8
        stdin = mutation.mutated(config, self.chance) if hostile else json.dumps(config).encode()
        environment = self._environment(verb)
        answer = self.send(environment, stdin)
        if verb == "ADD" and answer.status == 0:
            assert answer.output is not None
            self.results.append(answer.output)
            network = oracle.loose(stdin)["name"]
            key = (network, environment["CNI_CONTAINERID"], environment["CNI_IFNAME"])
            self.asked[key] = stdin

    def send(self, environment: dict[str, str], stdin: bytes) -> Handled:
        """Whatever it is, the answer is sound."""
        told = self.node.request(environment, stdin)
        answer = Handled(told.status, told.output)
        try:
            document = oracle.judge(answer)
        except AssertionError as wrong:
            raise AssertionError(f"{environment} {stdin[:3000]!r}: {wrong}") from wrong
        self.answered[environment["CNI_COMMAND"]] += 1
        code = document.get("code", 0)
        self.codes[code] = self.codes.get(code, 0) + 1
        return answer

    def take_back(self) -> None:
        """DEL of all that was attached, as a runtime does; then GC of every network."""
        for (_, container, ifname), stdin in self.asked.items():
            environment = self._named("DEL", container, ifname)
            answer = self.send(environment, stdin)
            assert answer.status == 0, (environment, stdin, answer)
        for network in {network for network, _, _ in self.asked}:
            config = {"cniVersion": "1.1.0", "name": network, "type": "netkit"}
            answer = self.send(self._named("GC", "", ""), json.dumps(config).encode())
            assert answer.status == 0, (network, answer)

    def _valid(self) -> list[JSON]:
        pairs = [(container, name) for container in self.containers for name in NAMES]
        return [{"containerID": container, "ifname": name} for container, name in pairs]

    def _environment(self, verb: str) -> dict[str, str]:
        container = self.chance.choice(self.containers)
        made = self._named(verb, container, self.chance.choice(NAMES))
        made["CNI_NETNS"] = f"/run/netns/{container}"
        if self.chance.random() < 0.2:
            name = self.chance.choice(["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"])
            made[name] = self.chance.choice(HOSTILE_NAMES)
            if any("\ud800" <= each <= "\udc7f" for each in made[name]):
                made[name] = "\udcff\udc80"  # as bytes come that are no UTF-8
        return made

    def _named(self, verb: str, container: str, ifname: str) -> dict[str, str]:
        named = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": ifname}
        return {**named, "CNI_PATH": "/nowhere", "PATH": "/usr/sbin:/usr/bin"}


@pytest.fixture(params=list(REQUESTS))
def way(request: pytest.FixtureRequest, node: Node, protected: None) -> Iterator[str]:
    """In-process, and through launcher and agent."""
    with ExitStack() as stack:
        if request.param == "agent":
            launcher = request.getfixturevalue("launcher")
            node.request = stack.enter_context(through_agent(launcher))
        yield request.param


def test_what_the_first_attachment_leaves(node: Node) -> None:
    """Forwarding, for that is how a container is reached, and nothing else: no device has it off again.

    Switched off by the last DEL it would take other containers' network away.
    """
    c = node.container()
    before = whole_world([c])
    node.add(usual := seeds.usual(), c)
    assert node.call("DEL", usual, c).ok
    found = differences(before, whole_world([c]))
    assert found.pop(REDIRECTS, ("1", "0")) == ("1", "0")
    assert {name for name in found if not FORWARDING.fullmatch(name)} == set()
    assert set(found.values()) == {("0", "1")}


def test_the_world_is_as_before(
    way: str, node: Node, configurations: list[JSON], long: bool, figures: list[str]
) -> None:
    """After thousands of requests that are changed in structure, nothing is left."""
    chance = random.Random() if long else random.Random(SEED)
    runtime = Runtime(node, configurations, chance)
    first = node.container()
    node.add(usual := seeds.usual(), first)
    assert node.call("DEL", usual, first).ok
    before = whole_world(runtime.containers)
    for _ in range(REQUESTS_OF_A_LONG_RUN if long else REQUESTS[way]):
        runtime.ask()
    runtime.take_back()
    assert differences(before, whole_world(runtime.containers)) == {}
    codes = dict(sorted(runtime.codes.items()))
    figures.append(f"hostile requests ({way}): {runtime.answered}, codes {codes}; nothing left")
