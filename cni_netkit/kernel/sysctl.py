"""Settings under /proc/sys/net, of any namespace."""

import errno
import os
from collections.abc import Mapping

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.netns import Netns

SETTING_BYTES = 64


def write(netns: Netns, values: Mapping[str, str], *, optional: bool = False) -> None:
    """Write settings ("ipv4/ip_forward": "1") where they differ; `optional`: if they exist."""

    def inside() -> None:
        for name, value in values.items():
            path = f"/proc/sys/net/{name}"
            try:
                _write(path, value.encode())
            except OSError as error:
                if error.errno != errno.ENOENT or not optional:
                    raise KernelError(f"set {path} to {value}", error.errno or 0) from None

    netns.run(inside)


def _write(path: str, value: bytes) -> None:
    # Where /proc/sys may only be read, what is right already must be no failure.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.read(descriptor, SETTING_BYTES).strip() == value:
            return
    finally:
        os.close(descriptor)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)
