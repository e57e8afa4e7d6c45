"""Where hostile input is let loose: namespaces whose file systems can only be read, but for a few.

The process must have been started by `COMMAND`. Nothing can be executed after `lock_up`, no device
be opened, and no file be written but those below `WRITABLE`, which are new and empty.
"""

import _thread
import ctypes
import os
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

COMMAND = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
WRITABLE = ("/run", "/var/lib/cni")
WATCHED = ("/var/lib/cni", "/run/netns", "/run/cni-netkit")
"""A log is written elsewhere below /run."""

NETNS = "/run/netns/fuzz"
SETTINGS = "/proc/sys/net"

AT_RECURSIVE = 0x8000
MS_BIND = 0x1000
CLONE_NEWNET = 0x40000000
MOUNT_SETATTR = 442
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""MOUNT_ATTR_* of include/uapi/linux/mount.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter(work: Path) -> int:
    """Make the file systems, the NIC `nic0` and the namespace `NETNS`; the thread that is in it."""
    _mount(str(work), str(work), flags=MS_BIND)
    _mount(SETTINGS, SETTINGS, flags=MS_BIND)
    for folder in WRITABLE:
        os.makedirs(folder, exist_ok=True)
        _mount("tmpfs", folder, "tmpfs")
    _mount("sysfs", "/sys", "sysfs")
    for words in (
        "link set lo up",
        "link add nic0 type veth peer name nic1",
        "link set nic0 addrgenmode none",
        "link set nic1 addrgenmode none up",
        "link set nic0 up",
        "addr add 192.0.2.1/24 dev nic0",
        "route add default via 192.0.2.2",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    # What the first ADD brings about anyway, and stays: then all else can be compared.
    for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path(SETTINGS, family).write_text("1")
    return _container()


def lock_up(work: Path) -> None:
    """From here on nothing can be executed, nothing be written elsewhere."""
    _attributes("/", AT_RECURSIVE, RDONLY | NOSUID | NODEV | NOEXEC, 0)
    for folder in (*WRITABLE, SETTINGS, str(work)):
        _attributes(folder, 0, 0, RDONLY)


def protect(*writable: str) -> None:
    """Have this mount namespace be one to read only, but for some folders and settings."""
    for folder in (*writable, SETTINGS):
        if not os.path.ismount(folder):
            _mount(folder, folder, flags=MS_BIND)
    _attributes("/", AT_RECURSIVE, RDONLY, 0)
    for folder in (*writable, SETTINGS):
        _attributes(folder, 0, 0, RDONLY)


def _container() -> int:
    """A namespace as a runtime makes one, and a thread that stays there to look around."""
    os.makedirs(os.path.dirname(NETNS))
    Path(NETNS).touch()
    ready = threading.Event()
    threads: list[int] = []

    def live_there() -> None:
        _call(_libc.unshare, CLONE_NEWNET)
        threads.append(threading.get_native_id())
        _mount(f"/proc/{os.getpid()}/task/{threads[0]}/ns/net", NETNS, flags=MS_BIND)
        ready.set()
        for_ever = _thread.allocate_lock()
        for_ever.acquire()
        for_ever.acquire()

    threading.Thread(target=live_there, daemon=True).start()
    assert ready.wait(20), "no container's namespace"
    return threads[0]


def _mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    _call(_libc.mount, source.encode(), target.encode(), kind.encode() or None, flags, None)


def _attributes(path: str, recursively: int, put: int, take: int) -> None:
    """mount_setattr(2)."""
    wanted = struct.pack("=4Q", put, take, 0, 0)
    _call(_libc.syscall, MOUNT_SETATTR, -100, path.encode(), recursively, wanted, len(wanted))


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(arguments))


def world(inside: int) -> dict[str, object]:
    """What there is in the cell: files, and what /proc tells of both namespaces."""
    seen: dict[str, object] = {}
    for folder in WATCHED:
        for where, _, names in os.walk(folder):
            for name in names:
                path = f"{where}/{name}"
                if not name.startswith("last_reserved_ip.") and name != "lock":
                    seen[path] = _content(path)
    for thread in ("thread-self", f"self/task/{inside}"):
        for name in ("dev", "route", "if_inet6", "ipv6_route"):
            seen[f"{thread} {name}"] = _names(f"/proc/{thread}/net/{name}")
    return seen


def _content(path: str) -> object:
    status = os.lstat(path)
    if os.path.islink(path):
        return os.readlink(path)
    try:
        return status.st_mode, Path(path).read_bytes() if os.path.isfile(path) else None
    except OSError:  # a namespace
        return status.st_mode


def _names(path: str) -> list[str]:
    """Of each line what does not count packets or users; link-local addresses come by themselves."""
    lines = Path(path).read_text().splitlines()
    columns = {
        "dev": (0,),
        "route": (0, 1, 2, 7),
        "if_inet6": (0, 2, 5),
        "ipv6_route": (0, 1, 4, 9),
    }
    found = []
    for words in map(str.split, lines):
        if words and not words[0].startswith(("fe80", "ff00", "Iface")):
            kept = [words[each] for each in columns[os.path.basename(path)] if each < len(words)]
            found.append(" ".join(kept).partition(":")[0])
    return sorted(found)
