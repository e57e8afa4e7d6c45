"""Pods through containerd's CRI: what of their time is the plugin's."""

import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.contenders import AGENT, PTP, Cast, compiler
from tests.bench.node import SOCKET, nodes
from tests.bench.parts import WARM_UP, Row, Rows, Sizes
from tests.runtimes.runtime import Asked, Place, write_list

if TYPE_CHECKING:
    from tests.runtimes.containerd import ContainerdPods

JSON = dict[str, Any]
VERBS = ("RunPodSandbox", "StopPodSandbox")
GROUP = "a pod of containerd"
ON_DISK = "/var/tmp"

NOTHING = "a plugin that does nothing"
NOTHING_SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A valid answer to ADD, which containerd insists on; silence else. */
int main(void)
{
    char input[65536];
    const char *verb = getenv("CNI_COMMAND"), *netns = getenv("CNI_NETNS");

    while (read(0, input, sizeof input) > 0)
        ;
    if (verb && !strcmp(verb, "ADD"))
        printf("{\"cniVersion\": \"1.0.0\","
               " \"interfaces\": [{\"name\": \"eth0\", \"sandbox\": \"%s\"}],"
               " \"ips\": [{\"address\": \"192.0.2.2/32\", \"interface\": 0}]}\n",
               netns ? netns : "");
    return 0;
}
"""


@dataclass
class Handler:
    """A runtime handler of containerd with a network of its own: each pod chooses its plugin."""

    name: str
    label: str
    plugin: JSON
    rows: dict[str, Row] = field(default_factory=dict)


def pods(cast: Cast, sizes: Sizes) -> Rows:
    """One pod after the other on one containerd, the plugins taking turns pod by pod."""
    # Imported here: the other parts need neither gRPC nor a containerd.
    from tests.runtimes.containerd import ContainerdPods

    handlers = _handlers()
    with (
        tempfile.TemporaryDirectory(prefix="cni-netkit-pods-", dir=ON_DISK) as folder,
        nodes(),
    ):
        containerd = ContainerdPods(*_prepared(Path(folder), cast, handlers))
        try:
            containerd.start()
            for turn in range(sizes.runs + WARM_UP):
                for place in range(len(handlers)):
                    who = handlers[(turn + place) % len(handlers)]
                    for verb, took in _life(containerd, f"pod{turn}", who.name).items():
                        if turn >= WARM_UP:
                            who.rows[verb].samples.append(took)
        finally:
            containerd.end()
    return [each.rows[verb] for verb in VERBS for each in handlers]


def _life(containerd: "ContainerdPods", name: str, handler: str) -> dict[str, float]:
    """Milliseconds for starting a pod and for stopping it; removing it is not timed."""
    began = time.perf_counter()
    pod = containerd.run(name, Asked(handler=handler))
    runs = time.perf_counter()
    containerd.stop(pod)
    stopped = time.perf_counter()
    containerd.remove(pod)
    return dict(zip(VERBS, ((runs - began) * 1e3, (stopped - runs) * 1e3), strict=True))


def _handlers() -> list[Handler]:
    ours: JSON = {"type": "netkit", "fallback": "veth", "log": {"level": "error"}}
    made = [
        Handler("ptp", PTP, {"type": "ptp"}),
        Handler("ours", AGENT, ours),
        Handler("nothing", NOTHING, {"type": "nothing"}),
    ]
    for verb in VERBS:
        reference = Row(GROUP, verb, PTP)
        made[0].rows[verb] = reference
        for each in made[1:]:
            each.rows[verb] = Row(GROUP, verb, each.label, against=reference)
    return made


def _prepared(
    folder: Path, cast: Cast, handlers: list[Handler]
) -> tuple["Place", str, dict[str, Path]]:
    """A place for containerd 2, with a network for each handler."""

    networks = {each.name: folder / each.name for each in handlers}
    for number, each in enumerate(handlers, 1):
        networks[each.name].mkdir()
        write_list(networks[each.name], network(number, each.plugin))
    (folder / "runtime").mkdir()
    plugins = _plugins(folder / "plugins", cast)
    environment = {"CNI_NETKIT_SOCKET": SOCKET}
    place = Place(folder / "runtime", plugins, networks[handlers[0].name], environment)
    return place, "2", networks


def network(number: int, plugin: JSON) -> JSON:
    """A network of a plugin, with addresses of its own."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.{number}.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{**plugin, "ipam": ipam}]
    return {"cniVersion": "1.0.0", "name": f"bench{number}", "plugins": plugins}


def _plugins(folder: Path, cast: Cast) -> Path:
    folder.mkdir()
    (folder / "netkit").symlink_to(cast.launcher)
    for name in ("ptp", "host-local", "loopback"):
        (folder / name).symlink_to(cast.reference / name)
    source = folder.with_suffix(".c")
    source.write_text(NOTHING_SOURCE)
    command = [*compiler(), "-O2", "-static", "-o", str(folder / "nothing"), str(source)]
    subprocess.run(command, check=True)
    return folder
