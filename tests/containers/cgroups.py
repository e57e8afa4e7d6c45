"""Control groups of pods: who asks for one removes it, a kubelet as well as podman."""

import errno
import os
from functools import partial
from pathlib import Path

from tests.kernel import judge

GROUPS = Path("/sys/fs/cgroup")


def remove_group(name: str) -> None:
    """Remove a group with those below it, in every hierarchy; what still runs in one fails the test."""
    for folder in (Path(f"{GROUPS}{name}"), *GROUPS.glob(f"*{name}")):
        for below, _, _ in os.walk(folder, topdown=False):
            judge.wait_for(partial(_removed, below), f"nothing runs in {below}")


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
