"""Measure the verbs beside the reference plugins and beside the kernel alone.

Everything happens in network and mount namespaces of its own, with an agent of its own: nothing of
the machine is touched. On a kernel without netkit all make veth pairs; with --lab, or where the
kernel has netkit, ours are netkit pairs. Needs root. Parts "memory" and "observed" take minutes, part "pods" fetches
a containerd: these are done only when they are named.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench import report
from tests.bench.contenders import Cast, build, has_netkit, reference_plugins
from tests.bench.node import ROOT
from tests.bench.parts import PARTS, Rows, Sizes
from tests.bench.pods import pods

BY_DEFAULT = [name for name in PARTS if name not in ("memory", "observed")]
ALL = {**PARTS, "pods": pods}
LAB_SECONDS = 3600
ON_DISK = "/var/tmp"
"""Not where TMPDIR says: nodes hide /run, and the reference plugins are not in memory either."""


def main() -> int:
    """Parse the command line, measure, print."""
    arguments = _arguments()
    if arguments.lab:
        _continue_in_lab()
    if os.geteuid() != 0:
        print("bench: network namespaces need root", file=sys.stderr)
        return 1
    # So that a terminated run cleans up, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sizes = Sizes(arguments.runs, arguments.containers, arguments.cycles)
    rows: Rows = []
    with tempfile.TemporaryDirectory(prefix="cni-netkit-bench-", dir=ON_DISK) as folder:
        launcher, empty = build(Path(folder))
        kind = "netkit" if has_netkit() else "veth"
        cast = Cast(launcher, empty, reference_plugins(), kind)
        facts = report.surroundings(cast, sizes)
        print("\n".join(f"{name + ':':12}{text}" for name, text in facts.items()), flush=True)
        for name in arguments.only or BY_DEFAULT:
            measured = ALL[name](cast, sizes)
            print(report.table(measured), flush=True)
            rows += measured
    print(report.promised(rows))
    if arguments.json:
        report.save(arguments.json, facts, rows)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=40, help="samples of each row (default 40)")
    parser.add_argument(
        "--only",
        action="append",
        choices=ALL,
        help=f"a part; may be repeated (default {', '.join(BY_DEFAULT)})",
    )
    parser.add_argument(
        "--containers", type=int, default=1000, help="part crowd: how many (default 1000)"
    )
    parser.add_argument(
        "--cycles", type=int, default=10_000, help="part memory: ADD+DEL (default 10000)"
    )
    parser.add_argument("--lab", action="store_true", help="on the lab kernel, which has netkit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample there")
    return parser.parse_args()


def _continue_in_lab() -> None:
    """Start again inside the lab; what needs the Internet is fetched out here."""
    os.environ["CNI_NETKIT_REFERENCE_PLUGINS"] = str(reference_plugins())
    others = [each for each in sys.argv[1:] if each != "--lab"]
    lab = str(ROOT / "tests" / "lab" / "run")
    bench = [sys.executable, "-m", "tests.bench", *others]
    os.execv(lab, [lab, "--seconds", str(LAB_SECONDS), *bench])


if __name__ == "__main__":
    sys.exit(main())
