"""A process that is killed at a system call: just before it, or just after it.

The child is forked from this process, so everything is loaded there already, and traced with all its
threads (ptrace(2)), which stop only at calls that can change something outside of the process
(seccomp(2)). Killed at its entry, a call is not carried out; at its exit it was, and the process
never heard of it.
"""

import contextlib
import ctypes
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

TRACEME, CONTINUE, GETREGS, TO_EXIT, SETOPTIONS = 0, 7, 12, 24, 0x4200
TRACESYSGOOD, TRACECLONE, TRACESECCOMP, EXITKILL = 0x01, 0x08, 0x80, 0x100000
ALL_CHILDREN = 0x40000000
"""__WALL of waitpid(2): threads, too."""
AT_EXIT = signal.SIGTRAP | 0x80
AT_ENTRY = signal.SIGTRAP | 7 << 8
"""PTRACE_EVENT_SECCOMP, as waitpid(2) has it above the lowest byte."""

REGISTERS = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
]  # fmt: skip

CHANGING = {
    1: "write", 16: "ioctl", 18: "pwrite", 20: "writev", 42: "connect", 44: "sendto",
    46: "sendmsg", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate",
    77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 86: "link",
    87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown",
    162: "sync", 165: "mount", 166: "umount", 257: "openat", 258: "mkdirat", 263: "unlinkat",
    264: "renameat", 272: "unshare", 280: "utimensat", 306: "syncfs", 307: "sendmmsg",
    308: "setns", 316: "renameat2", 321: "bpf",
}  # fmt: skip
"""Of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl)."""

CREATES = os.O_CREAT | os.O_TRUNC
LOCKS = {6, 7, 37, 38}
"""F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW."""
TERMINAL = range(0x5400, 0x5500)

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


SET_SECCOMP, FILTER = 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
TRACE, ALLOW = 0x7FF00000, 0x7FFF0000
"""linux/prctl.h, linux/bpf_common.h, linux/seccomp.h."""


class Program(ctypes.Structure):
    """Struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _stop_at_changes() -> None:
    """Have this process stop at the calls in `CHANGING`, and at no others."""
    instructions = [(LOAD, 0, 0, 0)]  # the number of the call
    for left, number in zip(range(len(CHANGING), 0, -1), CHANGING, strict=True):
        instructions.append((EQUAL, left, 0, number))
    instructions += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, TRACE)]
    filter_ = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    program = Program(len(instructions), filter_)
    if libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


class Registers(ctypes.Structure):
    """Struct user_regs_struct."""

    _fields_ = tuple((name, ctypes.c_ulong) for name in REGISTERS)

    @property
    def changes(self) -> str:
        """The call's name, if it can change something; else nothing."""
        number, second, third = self.orig_rax, self.rsi & 0xFFFFFFFF, self.rdx & 0xFFFFFFFF
        name = CHANGING.get(number, "")
        if (
            (name == "openat" and not third & CREATES)
            or (name == "fcntl" and second not in LOCKS)
            or (name == "ioctl" and second in TERMINAL)
        ):
            return ""
        return name


@dataclass(frozen=True)
class Point:
    """The moment to kill at: before or after the so many'th changing call, counted from 0."""

    number: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.number}"


@dataclass
class Ended:
    """What a child called, whether it was killed at the point, or else its exit status."""

    calls: list[str] = field(default_factory=list)
    killed: bool = False
    status: int | None = None
    other: int | None = None
    """The exit status of another child that ran meanwhile."""


def run(action: Callable[[], int], point: Point | None = None) -> Ended:
    """Have a child carry out `action`, whose value is its exit status; kill it at `point`."""
    return Tracer(fork(action), point).follow()


def fork(action: Callable[[], int], *, traced: bool = True) -> int:
    """A child in a process group of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setpgid(0, 0)
        if traced:
            libc.ptrace(TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            _stop_at_changes()
        status = action()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class Tracer:
    """Follows a child that `fork` made, until it has ended."""

    def __init__(self, child: int, point: Point | None = None) -> None:
        self.ended = Ended()
        self._child, self._point = child, point
        self._registers = Registers()
        os.waitpid(child, ALL_CHILDREN)
        self._ask(SETOPTIONS, child, TRACESYSGOOD | TRACECLONE | TRACESECCOMP | EXITKILL)
        self._go_on(child)

    def follow(self, other: int = 0) -> Ended:
        """Until it has ended, and an `other` child, too, with which it ends at the latest."""
        running = {self._child, other} - {0}
        while running:
            who, status = os.waitpid(-1, ALL_CHILDREN)
            if os.WIFSTOPPED(status):
                self._stopped(who, status)
            elif who in running:
                running.remove(who)
                self._ended(who, os.waitstatus_to_exitcode(status))
        return self.ended

    def _ended(self, who: int, status: int) -> None:
        if who == self._child:
            self.ended.status = status
            return
        self.ended.other = status
        # Its end may be under way, or have been told.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)

    def _kill(self) -> None:
        self.ended.killed = True
        os.kill(self._child, signal.SIGKILL)

    def _stopped(self, who: int, status: int) -> None:
        number = os.WSTOPSIG(status)
        if status >> 8 == AT_ENTRY:
            self._enters(who)
        elif number == AT_EXIT:
            self._kill()  # this stop was asked for where the point is, and there only
        elif number in (signal.SIGTRAP, signal.SIGSTOP):  # a thread begins
            self._go_on(who)
        else:
            self._go_on(who, signal=number)

    def _enters(self, who: int) -> None:
        self._ask(GETREGS, who, ctypes.addressof(self._registers))
        call = self._registers.changes
        if call:
            self.ended.calls.append(call)
        at = len(self.ended.calls) - 1
        if call and self._point == Point(at, after=False):
            self._kill()
        else:
            due = bool(call) and self._point == Point(at, after=True)
            self._go_on(who, TO_EXIT if due else CONTINUE)

    def _go_on(self, who: int, how: int = CONTINUE, *, signal: int = 0) -> None:
        # It may have been killed meanwhile.
        libc.ptrace(how, who, None, signal)

    def _ask(self, what: int, who: int, data: int) -> None:
        if libc.ptrace(what, who, None, data) < 0:
            problem = ctypes.get_errno()
            raise OSError(problem, f"ptrace: {os.strerror(problem)}")
