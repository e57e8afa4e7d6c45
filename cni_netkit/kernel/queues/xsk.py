"""What an AF_XDP socket is bound to, told by its descriptor alone.

AF_XDP has no getsockname(2) (net/xdp/xsk.c, sock_no_getname). But sock_diag(7) lists the AF_XDP
sockets of a namespace with what they are bound to, and each socket's cookie tells which it is.
Follows include/uapi/linux/sock_diag.h and xdp_diag.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.netlink.message import Attributes
from cni_netkit.kernel.netlink.socket import opened
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import (
    AF_XDP,
    NETLINK_SOCK_DIAG,
    SO_COOKIE,
    SOCK_DIAG_BY_FAMILY,
    XDP_DIAG_INFO,
    XDP_SHOW_INFO,
)

COOKIE = struct.Struct("=Q")
REQUEST = struct.Struct("=BBHII8x")
"""struct xdp_diag_req: family, protocol, padding, inode, what to show, cookie."""

MESSAGE = struct.Struct("=BBHIQ")
"""struct xdp_diag_msg: family, type, padding, inode, cookie."""

INFO = struct.Struct("=II")
"""struct xdp_diag_info: interface index, queue."""


class Unusable(Exception):
    """A descriptor with which no frames can be received; the text says why."""


@dataclass(frozen=True)
class Bound:
    """The device (its index in the socket's namespace) and its queue."""

    index: int
    queue: int


def namespace_of(descriptor: int) -> Netns:
    """The namespace of an AF_XDP socket. Raises `Unusable` where it is something else."""
    try:
        if _option(descriptor, socket.SO_DOMAIN) != AF_XDP:
            raise Unusable("the descriptor is a socket, but not of AF_XDP")
    except OSError:
        raise Unusable("the descriptor is not one of a socket") from None
    return Netns.of_socket(descriptor, "of the AF_XDP socket")


def bound(descriptor: int, netns: Netns) -> Bound:
    """What an AF_XDP socket of a namespace is bound to. Raises `Unusable`, `KernelError`."""
    cookie = _option(descriptor, SO_COOKIE, COOKIE.size)
    try:
        for found, where in sockets(netns):
            if COOKIE.pack(found) == cookie:
                return where
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise Unusable(
                "this node's kernel does not tell what an AF_XDP socket is bound to: "
                "it was built without CONFIG_XDP_SOCKETS_DIAG (module xsk_diag)"
            ) from None
        raise
    raise Unusable(
        "the AF_XDP socket is not bound, as far as the kernel shows: bind it to its device and a "
        "queue first, and close those whose device is gone, for they hide older ones"
    )


def can_list(netns: Netns) -> bool:
    """Whether the kernel lists AF_XDP sockets; asked for it, it loads what does."""
    try:
        next(sockets(netns), None)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def sockets(netns: Netns) -> Iterator[tuple[int, Bound]]:
    """The AF_XDP sockets of a namespace that are bound and open: cookie, and what to.

    As the kernel tells them: whoever owns the namespace decides how many there are.
    """
    request = REQUEST.pack(AF_XDP, 0, 0, 0, XDP_SHOW_INFO)
    diag = opened(netns, NETLINK_SOCK_DIAG)
    try:
        for answer in diag.each("list the AF_XDP sockets", request, SOCK_DIAG_BY_FAMILY):
            info = Attributes(answer[MESSAGE.size :]).raw(XDP_DIAG_INFO) or bytes(INFO.size)
            where = Bound(*INFO.unpack(info))
            if where.index:
                yield MESSAGE.unpack_from(answer)[-1], where
    finally:
        diag.close()


def _option(descriptor: int, option: int, size: int = 0) -> int | bytes:
    own = os.dup(descriptor)
    try:
        # Python wants to know the family only for making addresses of it.
        given = socket.socket(socket.AF_UNIX, socket.SOCK_RAW, 0, fileno=own)
    except OSError:
        os.close(own)
        raise
    with given:
        if size:
            return given.getsockopt(socket.SOL_SOCKET, option, size)
        return given.getsockopt(socket.SOL_SOCKET, option)
