"""The ioctl of ethtool: struct ifreq, which points at a structure that begins with a command.

Follows include/uapi/linux/ethtool.h and net/ethtool/ioctl.c. The kernel says no more than an errno.
"""

import ctypes
import errno
import fcntl
import socket
import struct

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import SIOCETHTOOL

IFREQ = struct.Struct("@16sP16x")
"""struct ifreq (include/uapi/linux/if.h): the device's name, and ifr_data."""


class EthtoolIoctl:
    """Any socket of a namespace will do for it."""

    def __init__(self, netns: Netns) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        try:
            self._socket = netns.run(lambda: socket.socket(socket.AF_INET, kind))
        except OSError as error:
            asked = f"open a socket in the network namespace {netns.path}"
            raise KernelError(asked, error.errno or errno.EIO) from None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, asked: str, device: str, request: bytes) -> bytes:
        """Send a structure; return what the kernel made of it. Raises `KernelError`."""
        data = ctypes.create_string_buffer(request, len(request))
        ifreq = IFREQ.pack(device.encode(), ctypes.addressof(data))
        try:
            fcntl.ioctl(self._socket, SIOCETHTOOL, ifreq)
        except OSError as error:
            raise KernelError(asked, error.errno or errno.EIO) from None
        return data.raw
