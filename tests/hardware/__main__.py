"""Try cni-netkit on a real NIC: prepare it, lease its queues, use them, and put everything back.

Prints each step as ok, failed, or not run, and a verdict that follows from them; writes the same to a
file, with all outputs in a second one (FILE.json), to be attached to a report. Exit status: 0 works, 1
failed, 2 nothing was done, 3 incomplete (nothing failed, something was not run). Needs root, ethtool,
and a kernel with netkit that leases queues.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack

from tests.hardware import report
from tests.hardware.machine import Machine
from tests.hardware.runner import FAILED, INCOMPLETE, WORKS, Outcome, Runner, Step, verdict
from tests.hardware.safety import faults, hide_what_others_use
from tests.hardware.steps import numbers, plan

REFUSED = 2
STATUS = {WORKS: 0, FAILED: 1, INCOMPLETE: 3}


def main() -> int:
    """Parse, refuse or tell what will be done, do it, report."""
    arguments = _arguments()
    for fault in faults(arguments):
        print(f"hardware: {fault}; nothing was done", file=sys.stderr)
        return REFUSED
    machine = Machine()
    steps = plan(arguments, machine)
    print(_announcement(arguments, steps), flush=True)
    if not arguments.yes:
        print("Nothing was done. To do it: the same command with --yes.")
        return REFUSED
    with ExitStack() as files:
        # Opened before anything is done: that they can be written, and where this process sees them.
        path = arguments.report
        text, raw = (files.enter_context(open(each, "w")) for each in (path, f"{path}.json"))
        hide_what_others_use()
        outcomes = Runner(machine.commands, _say).run(steps)
        print(report.write(arguments, outcomes, text, raw))
    print(f"report: {path}, with all outputs in {path}.json")
    return STATUS[verdict(outcomes)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/hardware/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("device", metavar="DEVICE", help="the port to try; its traffic is interrupted")
    add("--peer", metavar="DEVICE2", help="a port cabled to it, which sends; without addresses")
    add("--queues", default="8-15", help="the pool to lease from (default 8-15)")
    add("--channels", type=int, help="how many queues DEVICE shall have meanwhile")
    add("--role", choices=["io_uring", "af_xdp", "both"], default="both")
    add("--copy", action="store_true", help="af_xdp by copying: the driver has no zero copy")
    add("--report", metavar="FILE", help="default: hardware-DEVICE.txt in this folder")
    add("--simulated", action="store_true", help="DEVICE is a netdevsim; the report says so")
    add("--yes", action="store_true", help="do it; without, only say what would be done")
    arguments = parser.parse_args()
    arguments.report = arguments.report or f"hardware-{arguments.device}.txt"
    try:
        numbers(arguments.queues)
    except ValueError:
        parser.error(f"--queues {arguments.queues}: not of the form 8-11,14")
    return arguments


def _announcement(arguments: argparse.Namespace, steps: Sequence[Step]) -> str:
    peer = arguments.peer and (
        f" {arguments.peer} moves into a network namespace of this run, and comes back at the end."
    )
    said = (
        f"This interrupts the traffic of {arguments.device}: its channels, rings, header-data split, "
        "RSS table, ntuple filters, flow rules and XDP program change, and are put back at the end."
        f"{peer or ''} If it is killed (not interrupted) nothing is put back; "
        "run it again then, it says what to do. Steps: "
        + "; ".join(step.name for step in steps)
        + "."
    )
    return textwrap.fill(said, 100) + (f"\n{report.SIMULATED}" if arguments.simulated else "")


def _say(outcome: Outcome) -> None:
    print(f"{outcome.result:8}{outcome.name}: {outcome.text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
