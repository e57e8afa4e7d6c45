"""The one seam at which other errors become CNI errors."""

import errno

from cni_netkit.kernel.errors import KernelError, NoNamespace, ProgramError
from cni_netkit.spec.errors import CNIError, Code

ADVICE = {
    errno.EPERM: "the plugin must run as root",
    errno.EROFS: "in a container the agent needs /proc/sys mounted writable: "
    "mount -o remount,bind,rw /proc/sys",
}
"""What to do where the kernel refused, by errno."""


def as_cni_error(error: BaseException) -> CNIError:
    """What a runtime is told of an error; error 999 for what nobody thought of."""
    if isinstance(error, CNIError):
        return error
    if isinstance(error, KernelError):
        return _refused(error)
    if isinstance(error, NoNamespace):
        return CNIError(Code.UNKNOWN_CONTAINER, str(error), "the container may be gone already")
    if isinstance(error, ProgramError):
        return CNIError(Code.BPF_NOT_ATTACHABLE, str(error), "cni-netkit doctor looks at the NICs")
    if isinstance(error, OSError):
        return CNIError(Code.IO_FAILURE, f"{error.filename or 'input or output'}: {error.strerror}")
    return CNIError(
        Code.INTERNAL,
        f"internal error: {type(error).__name__}: {error}",
        "this is a fault of cni-netkit; please report it with the log",
    )


def _refused(error: KernelError) -> CNIError:
    if error.errno == errno.EEXIST:
        return CNIError(Code.ALREADY_EXISTS, str(error), "what existed before was left as it is")
    return CNIError(Code.KERNEL_REFUSED, str(error), ADVICE.get(error.errno, ""))
