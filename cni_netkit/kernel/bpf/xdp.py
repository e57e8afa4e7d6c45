"""Our XDP program on a NIC: attached by a BPF link, found again by its pins.

`PINS/NAME` has the link and the map of NIC NAME. The link is made and pinned after the map, and
removed before it: where there is a link, the map beside it is the one that its program looks into.
A process that is killed before the link is pinned takes the link, and so the program, with it.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

from cni_netkit.kernel.bpf import libbpf
from cni_netkit.kernel.errors import KernelError, ProgramError
from cni_netkit.kernel.link import device
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.netlink.socket import NetlinkSocket
from cni_netkit.kernel.uapi import (
    BPF_LINK_TYPE_XDP,
    XDP_FLAGS_DRV_MODE,
    XDP_FLAGS_SKB_MODE,
)

PINS = Path("/sys/fs/bpf/cni-netkit")
OBJECT = Path(__file__).parent / "xsk.bpf.o"
PROGRAM, MAP = b"netkit_xsk", b"xsks"


class Xdp:
    """On NICs of the namespace of an rtnetlink socket: that of this process, the host's."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket

    def attach(self, nic: Link, *, copy: bool = False) -> None:
        """Have a NIC of this namespace run our program, with an empty map of all of its queues.

        `copy`: where the driver has no XDP, let the kernel do it, behind the driver. What runs
        already is left as it is, and so are the sockets in the map; what an earlier attempt left
        half done is replaced. Raises `ProgramError` where libbpf, the program or the BPF file
        system is not there, `KernelError` where the kernel or the driver refuses.
        """
        queues = nic.rx_queues or 1
        if self.is_attached(nic) and _entries(nic.name) == queues:
            return
        self.detach(nic.name)
        pins = _pins(nic.name)
        try:
            pins.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ProgramError(
                f"make the folder {pins}: {error.strerror}; it takes the BPF file system, "
                "writable: mount -t bpf bpf /sys/fs/bpf"
            ) from None
        try:
            with libbpf.loaded(OBJECT, PROGRAM, MAP, queues) as (program, map_):
                libbpf.pin(map_, pins / "xsks")
                attached = self._create_link(nic, program, copy)
                try:
                    libbpf.pin(attached, pins / "link")
                finally:
                    os.close(attached)
        except BaseException:
            _unpin(pins)
            raise

    def detach(self, name: str) -> None:
        """Remove our program, its map and its pins from a NIC by name; what is gone is gone."""
        pins = _pins(name)
        if (attached := libbpf.open_pinned(pins / "link")) is not None:
            try:
                # Removing the last reference would do, but only some time later, from a work queue.
                libbpf.detach_link(f"detach our XDP program from {name}", attached)
            finally:
                os.close(attached)
        _unpin(pins)

    def is_attached(self, nic: Link) -> bool:
        """Whether our program, by the link that is pinned, is what a NIC runs."""
        if nic.xdp_program is None:
            return False
        if (pinned := libbpf.open_pinned(_pins(nic.name) / "link")) is None:
            return False
        info = libbpf.LinkInfo()
        libbpf.read_info(f"look at the XDP link of {nic.name}", pinned, info)
        return (info.type, info.prog_id, info.ifindex) == (
            BPF_LINK_TYPE_XDP,
            nic.xdp_program,
            nic.index,
        )

    def prepared(self) -> list[str]:
        """The names of the NICs that have pins, whether complete or not."""
        try:
            return sorted(name.replace("%2E", ".") for name in os.listdir(PINS))
        except FileNotFoundError:
            return []

    def insert(self, name: str, queue: int, descriptor: int) -> None:
        """Give the frames of a NIC's queue to the AF_XDP socket behind `descriptor`.

        It takes the place of one that is there; the kernel removes it when it is closed.
        """
        asked = f"give the frames of queue {queue} of {name} to an AF_XDP socket"
        if (map_ := libbpf.open_pinned(_pins(name) / "xsks")) is None:
            raise KernelError(asked, errno.ENOENT)
        try:
            libbpf.update_map(asked, map_, queue, descriptor)
        finally:
            os.close(map_)

    def _create_link(self, nic: Link, program: int, copy: bool) -> int:
        asked = f"attach our XDP program to {nic.name}"
        mode = XDP_FLAGS_DRV_MODE
        try:
            try:
                return libbpf.create_xdp_link(asked, program, nic.index, mode)
            except KernelError as error:
                if not copy or error.errno != errno.EOPNOTSUPP:
                    raise
            mode = XDP_FLAGS_SKB_MODE
            return libbpf.create_xdp_link(asked, program, nic.index, mode)
        except KernelError as error:
            raise self._in_words(nic, program, mode, error) from None

    def _in_words(self, nic: Link, program: int, mode: int, refusal: KernelError) -> KernelError:
        """A refusal with the driver's words, if it has any."""
        socket, index = self._socket, nic.index
        return device.refuses_xdp(socket, refusal.asked, index, program, mode) or refusal


def _pins(name: str) -> Path:
    """The folder of a NIC: bpffs keeps names with a dot to itself, and devices have no '%'."""
    return PINS / name.replace(".", "%2E")


def _unpin(pins: Path) -> None:
    for pin in ("link", "xsks"):
        (pins / pin).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        pins.rmdir()


def _entries(name: str) -> int:
    """How many queues the map of a NIC has a place for; 0 where there is none."""
    if (map_ := libbpf.open_pinned(_pins(name) / "xsks")) is None:
        return 0
    info = libbpf.MapInfo()
    libbpf.read_info(f"look at the map of {name}", map_, info)
    return int(info.max_entries)
