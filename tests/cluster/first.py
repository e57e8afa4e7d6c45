"""The first process of a node: sets up what a machine has at boot, then reaps whoever ends.

    python first.py NAME DISK

In namespaces of its own (network, mount, pid, uts, ipc), in a control group of its own, which is going to
be the root of what it sees. Below DISK are file systems that outlive it, as disks do.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

ON_DISK = ("/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet", "/etc/cni", "/opt/cni")
EMPTY = ("/run", "/var/log")
CONTROLLERS = "+cpu +cpuset +memory +pids"
CLONE_NEWCGROUP = 0x02000000


def main(name: str, disk: Path) -> None:
    """Set it up, say so, and go on reaping."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    # As what runs machines in containers does: the root of the groups is the node's, and holds no process.
    group = Path("/sys/fs/cgroup", name)
    hand_on_controllers()
    (group / "init").mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text("0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWCGROUP):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWCGROUP)")
    (group / "init" / "cgroup.procs").write_text("0")
    run("hostname", name)
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    hand_on_controllers()
    for folder in EMPTY:
        run("mount", "-t", "tmpfs", "tmpfs", folder)
    for folder in ON_DISK:
        # File systems of their own, and in one place each: by its device the kubelet finds where one is.
        Path(folder).mkdir(parents=True, exist_ok=True)
        run("mount", "--move", str(disk / folder.lstrip("/")), folder)
    run("mount", "--make-rshared", "/")
    for folder in ("/run/netns", "/run/tmp"):
        Path(folder).mkdir()
    describe_processors()
    Path("/run/up").touch()
    while True:
        signal.sigwait({signal.SIGCHLD})
        reap()


def hand_on_controllers() -> None:
    """To the groups below the root that is seen here."""
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(CONTROLLERS)


def describe_processors() -> None:
    """User-Mode Linux says nothing of clock or cores, without which the kubelet does not start."""
    found = Path("/proc/cpuinfo").read_text()
    if "cpu MHz" not in found:
        lines = []
        for line in found.splitlines():
            lines.append(line)
            if line.startswith("processor"):
                number = line.partition(":")[2].strip()
                lines += ["cpu MHz\t\t: 3000.000", "physical id\t: 0", f"core id\t\t: {number}"]
        Path("/run/cpuinfo").write_text("\n".join(lines) + "\n")
        run("mount", "--bind", "/run/cpuinfo", "/proc/cpuinfo")


def reap() -> None:
    """Bury children, our own and those that were left to us."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return


def run(*command: str) -> None:
    """Run a command that must work."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    main(sys.argv[1], Path(sys.argv[2]))
