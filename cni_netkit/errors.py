"""The one seam at which other errors become CNI errors."""

import errno
from collections.abc import Callable
from typing import Any

from cni_netkit.kernel.errors import KernelError, NoNamespace, NoThread, ProgramError
from cni_netkit.spec.errors import CNIError, Code

ADVICE = {
    errno.EPERM: "the plugin must run as root",
    errno.EROFS: "in a container the agent needs /proc/sys mounted writable: "
    "mount -o remount,bind,rw /proc/sys",
}
"""What to do where the kernel refused, by errno."""


def as_cni_error(error: BaseException) -> CNIError:
    """What a runtime is told of an error; error 999 for what nobody thought of."""
    for kind, translate in TRANSLATIONS:
        if isinstance(error, kind):
            return translate(error)
    return CNIError(
        Code.INTERNAL,
        f"internal error: {type(error).__name__}: {error}",
        "this is a fault of cni-netkit; please report it with the log",
    )


def _refused(error: KernelError) -> CNIError:
    if error.errno == errno.EEXIST:
        return CNIError(Code.ALREADY_EXISTS, str(error), "what existed before was left as it is")
    return CNIError(Code.KERNEL_REFUSED, str(error), ADVICE.get(error.errno, ""))


def _unreadable(error: OSError) -> CNIError:
    return CNIError(Code.IO_FAILURE, f"{error.filename or 'input or output'}: {error.strerror}")


def _coded(code: Code, advice: str) -> Callable[[Exception], CNIError]:
    return lambda error: CNIError(code, str(error), advice)


MORE_THREADS = (
    "raise the limit of threads: TasksMax= of the unit, pids.max of the cgroup, ulimit -u, or "
    "/proc/sys/kernel/threads-max"
)
TRANSLATIONS: tuple[tuple[type[Exception], Callable[[Any], CNIError]], ...] = (
    (CNIError, lambda error: error),
    (KernelError, _refused),
    (NoNamespace, _coded(Code.UNKNOWN_CONTAINER, "the container may be gone already")),
    (NoThread, _coded(Code.TRY_AGAIN_LATER, MORE_THREADS)),
    (ProgramError, _coded(Code.BPF_NOT_ATTACHABLE, "cni-netkit doctor looks at the NICs")),
    (OSError, _unreadable),
)
