"""What a user attaches: a table of the steps with a verdict, and all that was said."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tests.hardware.runner import FAILED, NOT_RUN, OK, Outcome, verdict

ROOT = Path(__file__).parents[2]
SIMULATED = "A SIMULATED NIC: this verdict says nothing about any hardware."


def write(
    arguments: argparse.Namespace, outcomes: Sequence[Outcome], text: TextIO, raw: TextIO
) -> str:
    """Write both files; the last lines."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    version = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    found = verdict(outcomes)
    head = {
        "commit": version or "unknown",
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "arguments": " ".join(sys.argv[1:]),
        "simulated": arguments.simulated,
    }
    counts = [
        f"{sum(each.result == word for each in outcomes)} {word}" for word in (OK, FAILED, NOT_RUN)
    ]
    last = f"verdict: {found} ({', '.join(counts)})"
    last += f"\n{SIMULATED}" if arguments.simulated else ""
    width = max(len(each.name) for each in outcomes)
    lines = ["cni-netkit on a NIC", *(f"{name}: {value}" for name, value in head.items()), ""]
    lines += [f"{each.name:{width}}  {each.result:7}  {each.text}" for each in outcomes]
    text.write("\n".join([*lines, "", last, ""]))
    json.dump({**head, "verdict": found, "steps": [vars(each) for each in outcomes]}, raw, indent=1)
    return last
