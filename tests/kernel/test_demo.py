"""./demo, as far as it runs on the kernel: the main job from preparing a NIC to the last look."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.once
def test_main_job_is_shown() -> None:
    """Each verb, the device, the lease, a frame that arrives; no escape, since this is no terminal."""
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--propagation", "private"),
            *(sys.executable, "-m", "tests.lab.show"),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    for verb in ("ADD", "CHECK", "DEL"):
        assert f"CNI_COMMAND={verb} " in done.stdout
    _, lent, after = done.stdout.partition(
        "netlink: queue 7 of eth0 is leased to queue 1 of device "
    )
    _, arrived, after = after.partition("pod: ")
    assert lent
    assert arrived
    assert after.splitlines()[0].endswith("hello, queue")
    assert after.endswith("netlink: no queue of eth0 is leased\n")
