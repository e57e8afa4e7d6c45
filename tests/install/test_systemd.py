"""install.sh and the units on a node that systemd has booted, on a kernel that has netkit: the lab's.

The steps are carried out and judged in the guest, by guest.py, in two boots; here each one's report is
looked at.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.install import guest, roots
from tests.install.machine import Machine, boot

STEPS = [
    guest.booted,
    guest.hardened,
    guest.names_of_namespaces,
    guest.delegated_ipam,
    guest.af_xdp,
    guest.killed,
    guest.upgrade,
    guest.nothing_to_do,
    guest.rollback,
    guest.what_is_stopped_stays_stopped,
    guest.broken_agent,
    guest.records_across_versions,
    guest.uninstall,
    guest.fresh_install,
    guest.before_a_reboot,
]
AFTER_REBOOT = [guest.after_a_reboot]
SECONDS = 900


@pytest.fixture(scope="module")
def reports(_installed: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What went wrong in each step, on a machine that was installed before its first boot."""
    root = tmp_path_factory.mktemp("node") / "root"
    roots.run("cp", "--archive", roots.node_root(), root)
    roots.run("cp", "--archive", "--no-target-directory", _installed.upper, root)
    shutil.copytree(_installed.media, root / "media", dirs_exist_ok=True)
    shutil.copy(Path(guest.__file__), root / "guest.py")
    shutil.copy(roots.ROOT / "examples" / "xsk_receive.py", root)
    lines = []
    for steps in (STEPS, AFTER_REBOOT):
        names = " ".join(step.__name__ for step in steps)
        output = boot(root, f"python3 /guest.py {names}", SECONDS)
        print(output)
        lines += [json.loads(line) for line in output.splitlines() if line.startswith('{"step"')]
    return {line["step"]: line["problem"] for line in lines}


@pytest.mark.parametrize("step", [*STEPS, *AFTER_REBOOT], ids=lambda step: step.__name__)
def test_step(reports: dict[str, str | None], step: object) -> None:
    """Carried out, and no problem found."""
    name = step.__name__  # type: ignore[attr-defined]
    assert name in reports, "the guest has not come to it"
    assert reports[name] is None, reports[name]
