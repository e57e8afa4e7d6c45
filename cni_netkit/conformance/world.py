"""What a row works with: a host, the plugin on it, containers, and a look at all that is there."""

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cni_netkit.conformance import look, namespaces, plugin
from cni_netkit.conformance.plugin import JSON, Answer, Unmet

SECONDS_OF_GRACE = 10.0
"""For what the kernel ends by itself later on, such as devices of a namespace that is gone."""


@dataclass(frozen=True)
class Subject:
    """Who is examined: an executable with a configuration, and what has to be there before."""

    executable: Path
    configuration: JSON
    path: str
    setup: str = ""
    exclusive: bool = False


@dataclass
class World:
    """A fresh host for one row; `version` is the one that the configuration is given."""

    subject: Subject
    version: str
    answers: list[Answer] = field(default_factory=list)
    path: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _own: set[int] = field(default_factory=set)

    def prepare(self) -> None:
        """Enter the host and run the setup command there."""
        namespaces.adopt_orphans()
        self.path = self.subject.path
        kept = [self.subject.executable.parent, *map(Path, filter(None, self.path.split(":")))]
        namespaces.enter_fresh_host(kept)
        look.run("ip", "link", "set", "lo", "up")
        if self.subject.setup:
            done = subprocess.run(
                ["/bin/sh", "-c", self.subject.setup], check=False, stdout=subprocess.DEVNULL
            )
            if done.returncode:
                raise look.Unprepared(f"the setup command ended with status {done.returncode}")
        self._own = set(look.children())

    def configuration(self, **keys: Any) -> JSON:
        """The request's configuration; a key that is None is left out."""
        made = {**self.subject.configuration, "cniVersion": self.version, **keys}
        return {key: value for key, value in made.items() if value is not None}

    def call(self, verb: str, configuration: JSON | str | None = None, **more: str) -> Answer:
        """One call without a container: VERSION, GC, STATUS, or a request that is not sound."""
        parameters = {"CNI_COMMAND": verb, "CNI_PATH": self.path}
        parameters |= {f"CNI_{name}": value for name, value in more.items()}
        given = self.configuration() if configuration is None else configuration
        stdin = given if isinstance(given, str) else json.dumps(given)
        answer = plugin.call(str(self.subject.executable), parameters, stdin)
        self.answers.append(answer)
        return answer

    def container(self, **keys: Any) -> "Container":
        """A fresh container; `keys` are added to its configuration each time."""
        number = next(self._numbers)
        path = namespaces.add_container(f"c{number}")
        return Container(self, f"conformance-{number}-{os.getpid()}", path, keys=keys)

    def attached(self, **keys: Any) -> "Container":
        """A fresh container after an ADD that has to work; `keys` as in `container`."""
        container = self.container(**keys)
        container.add()
        return container

    def at_once(self, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """The answers of several calls that run beside each other."""
        with ThreadPoolExecutor(len(calls)) as pool:
            return [each.result() for each in [pool.submit(call) for call in calls]]

    def snapshot(self) -> look.Snapshot:
        """All of the host that a plugin may leave something in."""
        return look.everything(self._own)

    def links(self) -> dict[str, JSON]:
        """The host's interfaces, by name."""
        return {each["ifname"]: each for each in look.ip("addr")}

    def settled(self) -> look.Snapshot:
        """The host after one container came and went: what belongs to the network stays there."""
        container = self.attached()
        answer = container.delete().succeeds()
        if container.ifname in container.links():
            raise answer.unmet(f"no {container.ifname} in the container", "it is there")
        return self.snapshot()

    def nothing_less_than(self, before: look.Snapshot, answer: Answer) -> None:
        """Demand that all is there that was."""
        if gone := look.more(before, self.snapshot()):
            told = "; ".join(f"{kind} {each}" for kind, each in gone)
            raise answer.unmet("what was there stays", f"missing: {told}")

    def nothing_more_than(self, before: look.Snapshot, answer: Answer) -> None:
        """Demand that nothing new is there; what the kernel ends by itself is given a moment."""
        deadline = time.monotonic() + SECONDS_OF_GRACE
        while left := look.more(self.snapshot(), before):
            staying = look.staying(left)
            if staying or time.monotonic() > deadline:
                told = "; ".join(f"{kind} {each}" for kind, each in staying or left)
                raise answer.unmet("nothing of it is left on the host", told)

    def end(self) -> None:
        """End what still runs: the namespaces go with this process."""
        while children := [*look.children(dead=True)]:
            for each in children:
                os.kill(each, signal.SIGKILL)
                os.waitpid(each, 0)


@dataclass
class Container:
    """A container, as the runtime names it, and its attachment."""

    world: World
    id: str
    netns: Path
    ifname: str = "eth0"
    keys: Mapping[str, Any] = field(default_factory=dict)
    prev_result: JSON | None = None

    def call(
        self,
        verb: str,
        configuration: JSON | str | None = None,
        empty: Sequence[str] = (),
        **more: str,
    ) -> Answer:
        """One call with this container's parameters; one that is to be missing is given as ""."""
        parameters = {"CONTAINERID": self.id, "NETNS": str(self.netns), "IFNAME": self.ifname}
        given = {name: value for name, value in {**parameters, **more}.items() if value}
        if configuration is None:
            configuration = self.world.configuration(**self.keys)
        return self.world.call(verb, configuration, **{**given, **dict.fromkeys(empty, "")})

    def try_add(self, **keys: Any) -> Answer:
        """An ADD, whatever comes of it; CHECK and DEL are given its result if there is one."""
        answer = self.call("ADD", self.world.configuration(**self.keys, **keys))
        if answer.status == 0:
            self.prev_result = answer.result()
        return answer

    def add(self, **keys: Any) -> JSON:
        """An ADD that has to work; its result, which CHECK and DEL are given."""
        return self.try_add(**keys).result()

    def with_result(self, **keys: Any) -> JSON:
        """The configuration with the result of ADD in it, from CNI 0.4.0 on."""
        has = self.prev_result is not None and self.world.version >= "0.4.0"
        own = {"prevResult": self.prev_result} if has else {}
        return self.world.configuration(**{**self.keys, **own, **keys})

    def check(self, **keys: Any) -> Answer:
        """CHECK with the result of ADD."""
        return self.call("CHECK", self.with_result(**keys))

    def delete(self, **more: str) -> Answer:
        """DEL with the result of ADD."""
        return self.call("DEL", self.with_result(), **more)

    def ip(self, *arguments: str) -> Any:
        """What `ip -json` says of the container."""
        return look.ip("-n", self.netns.name, *arguments)

    def links(self) -> dict[str, JSON]:
        """The container's interfaces with their addresses, by name."""
        return {each["ifname"]: each for each in self.ip("addr")}

    def must_have(self, ifname: str, answer: Answer | None = None) -> JSON:
        """Demand an interface in the container."""
        links = self.links()
        if ifname not in links:
            there = ", ".join(sorted(links)) or "none"
            raise Unmet(f"an interface {ifname} in the container", f"only {there}", answer)
        return links[ifname]

    def must_answer(self, answer: Answer) -> None:
        """Demand that it is attached as before, by CHECK where there is one."""
        self.must_have(self.ifname, answer)
        if self.world.version >= "0.4.0":
            self.check().succeeds()

    def beside(self, ifname: str) -> "Container":
        """The same container with another interface."""
        return replace(self, ifname=ifname, prev_result=None)

    def routes(self) -> set[str]:
        """Destinations of the container's routes, in all tables."""
        found = {each["dst"] for each in self.ip("-4", "route", "show", "table", "all")}
        if "default" in found:
            found.add("0.0.0.0/0")
        six = {each["dst"] for each in self.ip("-6", "route", "show", "table", "all")}
        return found | six | ({"::/0"} if "default" in six else set())

    def lose(self, ifname: str) -> None:
        """Have an interface gone, as whoever is root in the container can."""
        self.ip("link", "del", ifname)

    def occupy(self, ifname: str) -> None:
        """Have an interface there that the plugin did not make."""
        self.ip("link", "add", ifname, "type", "veth", "peer", "name", "other-end")

    def remove(self) -> None:
        """Take the network namespace away."""
        namespaces.remove_container(self.netns)
