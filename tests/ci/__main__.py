"""All parts of continuous integration: see .ci/run, which calls this."""

import os
import sys
from pathlib import Path

from tests.ci.runner import Part, main

ROOT = Path(__file__).parents[2]
TOOLS = "iproute2 plugins flannel kubectl cnitool liburing prometheus"
RUNTIMES = "containerd-1.6 containerd-1.7 containerd-2 runc podman cri-api"


def prepared(*steps: str) -> list[str]:
    """The command that gets what tests/lab/prepare knows."""
    script = 'root=$1; shift; . "$root/tests/lab/prepare"; prepare "$@"'
    return ["bash", "-euc", script, "prepare", str(ROOT), *steps]


def command(path: str, *arguments: str) -> list[str]:
    """A command of the checkout."""
    return [str(ROOT / path), *arguments]


# One more saves five minutes on two processors, and costs the deadlines of single tests.
SEATS = max(len(os.sched_getaffinity(0)), 2)
READY = ("environment", "tools", "kernel")
PYTHON = str(Path(os.environ.get("VIRTUAL_ENV", sys.prefix), "bin", "python"))
PARTS = [
    Part("environment", prepared("environment:test")),
    Part("tools", prepared(*TOOLS.split(), *RUNTIMES.split())),
    Part("kernel", prepared("kernel"), seats=2, after=["environment"]),
    Part("programs", prepared("kubernetes"), after=["tools"]),
    Part("roots", [PYTHON, "-m", "tests.install.roots"], after=["environment"]),
    # The longest of one seat; all others of one seat go beside it.
    Part("cluster", command("tests/cluster/run"), after=[*READY, "programs"]),
    # The README's test command, then what is too long for it. Two guests at a time take two seats.
    Part("test", command("test"), seats=2, after=READY),
    Part("endurance", command("test", "tests/endurance"), after=["environment", "tools"]),
    Part("faults", command("tests/faults/run"), after=READY),
    Part("install", command("test", "tests/install"), after=[*READY, "roots"]),
    # Alone: its guests are busy, and what it waits for has a deadline.
    Part("runtimes", command("tests/runtimes/run"), seats=SEATS, after=READY),
    Part("kubernetes", command("tests/kubernetes/run"), after=READY),
]

if __name__ == "__main__":
    if len(os.sched_getaffinity(0)) < 4:
        os.environ["CNI_NETKIT_LAB_CPUS"] = "1"
    sys.exit(main(PARTS, seats=SEATS))
