"""Our XDP program on a NIC: loaded by libbpf, attached by a BPF link, found again by its pins.

`PINS/NAME` has the link and the map of NIC NAME. The link is made and pinned after the map, and
removed before it: where there is a link, the map beside it is the one that its program looks into.
A process that is killed before the link is pinned takes the link, and so the program, with it.

Follows bpf(2), include/uapi/linux/bpf.h, and libbpf's libbpf.h and bpf.h of version 1.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from cni_netkit.kernel.errors import KernelError, ProgramError
from cni_netkit.kernel.link import device as link
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.netlink.socket import opened
from cni_netkit.kernel.netns import Netns
from cni_netkit.kernel.uapi import (
    BPF_LINK_TYPE_XDP,
    BPF_XDP,
    NETLINK_ROUTE,
    XDP_FLAGS_DRV_MODE,
    XDP_FLAGS_SKB_MODE,
)

PINS = Path("/sys/fs/bpf/cni-netkit")
OBJECT = Path(__file__).parent / "xsk.bpf.o"
PROGRAM, MAP = b"netkit_xsk", b"xsks"
LIBRARY = "libbpf.so.1"
LINE_BYTES = 4096
LIBBPF_WARN = 0

_said = threading.local()
"""libbpf tells one function for the whole process what went wrong, in the thread that called it."""

_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _LinkInfo(ctypes.Structure):
    """The beginning of struct bpf_link_info, as it is for BPF_LINK_TYPE_XDP."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]


class _MapInfo(ctypes.Structure):
    """The beginning of struct bpf_map_info."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
    ]


class _LinkOptions(ctypes.Structure):
    """The beginning of struct bpf_link_create_opts."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]


def attach(nic: Link, *, copy: bool = False) -> None:
    """Have a NIC of this namespace run our program, with an empty map of all of its queues.

    `copy`: where the driver has no XDP, let the kernel do it, behind the driver. What runs already
    is left as it is, and so are the sockets in the map; what an earlier attempt left half done is
    replaced. Raises `ProgramError` where libbpf, the program or the BPF file system is not there,
    `KernelError` where the kernel or the driver refuses.
    """
    queues = nic.rx_queues or 1
    if is_attached(nic) and _entries(nic.name) == queues:
        return
    detach(nic.name)
    pins = _pins(nic.name)
    try:
        pins.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ProgramError(
            f"make the folder {pins}: {error.strerror}; it takes the BPF file system, writable: "
            "mount -t bpf bpf /sys/fs/bpf"
        ) from None
    try:
        with _loaded(queues) as (program, map_):
            _pin(map_, pins / "xsks")
            attached = _create_link(nic, program, copy)
            try:
                _pin(attached, pins / "link")
            finally:
                os.close(attached)
    except BaseException:
        _unpin(pins)
        raise


def detach(name: str) -> None:
    """Remove our program, its map and its pins from the NIC of that name; what is gone is gone."""
    pins = _pins(name)
    if (attached := _opened(pins / "link")) is not None:
        try:
            # Removing the last reference would do, but only some time later, from a work queue.
            _ask(f"detach our XDP program from {name}", _libbpf().bpf_link_detach, attached)
        finally:
            os.close(attached)
    _unpin(pins)


def is_attached(nic: Link) -> bool:
    """Whether our program, by the link that is pinned, is what a NIC runs."""
    if nic.xdp_program is None or (pinned := _opened(_pins(nic.name) / "link")) is None:
        return False
    info = _LinkInfo()
    _read_info(f"look at the XDP link of {nic.name}", pinned, info)
    return (info.type, info.prog_id, info.ifindex) == (
        BPF_LINK_TYPE_XDP,
        nic.xdp_program,
        nic.index,
    )


def prepared() -> list[str]:
    """The names of the NICs that have pins, whether complete or not."""
    try:
        return sorted(name.replace("%2E", ".") for name in os.listdir(PINS))
    except FileNotFoundError:
        return []


def insert(name: str, queue: int, descriptor: int) -> None:
    """Give the frames of a NIC's queue to the AF_XDP socket behind `descriptor`.

    It takes the place of one that is there; the kernel removes it when it is closed.
    """
    asked = f"give the frames of queue {queue} of {name} to an AF_XDP socket"
    if (map_ := _opened(_pins(name) / "xsks")) is None:
        raise KernelError(asked, errno.ENOENT)
    key, value = ctypes.c_uint32(queue), ctypes.c_uint32(descriptor)
    try:
        update = _libbpf().bpf_map_update_elem
        _ask(asked, update, map_, ctypes.byref(key), ctypes.byref(value), ctypes.c_uint64(0))
    finally:
        os.close(map_)


def _pins(name: str) -> Path:
    """The folder of a NIC: bpffs keeps names with a dot to itself, and devices have no '%'."""
    return PINS / name.replace(".", "%2E")


def _unpin(pins: Path) -> None:
    for pin in ("link", "xsks"):
        (pins / pin).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        pins.rmdir()


def _pin(descriptor: int, path: Path) -> None:
    _ask(f"pin {path}", _libbpf().bpf_obj_pin, descriptor, bytes(path))


def _opened(path: Path) -> int | None:
    """A descriptor for what is pinned; None where nothing is."""
    # libbpf is not needed to know that there is nothing.
    if not path.exists():
        return None
    try:
        return _ask(f"open {path}", _libbpf().bpf_obj_get, bytes(path))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _entries(name: str) -> int:
    """How many queues the map of a NIC has a place for; 0 where there is none."""
    if (map_ := _opened(_pins(name) / "xsks")) is None:
        return 0
    info = _MapInfo()
    _read_info(f"look at the map of {name}", map_, info)
    return int(info.max_entries)


def _read_info(asked: str, descriptor: int, info: ctypes.Structure) -> None:
    """Fill `info`, and close the descriptor."""
    length = ctypes.c_uint32(ctypes.sizeof(info))
    try:
        read = _libbpf().bpf_obj_get_info_by_fd
        _ask(asked, read, descriptor, ctypes.byref(info), ctypes.byref(length))
    finally:
        os.close(descriptor)


def _create_link(nic: Link, program: int, copy: bool) -> int:
    asked = f"attach our XDP program to {nic.name}"
    create = _libbpf().bpf_link_create

    def attached(mode: int) -> int:
        options = _LinkOptions(ctypes.sizeof(_LinkOptions), mode)
        return _ask(asked, create, program, nic.index, BPF_XDP, ctypes.byref(options))

    mode = XDP_FLAGS_DRV_MODE
    try:
        try:
            return attached(mode)
        except KernelError as error:
            if not copy or error.errno != errno.EOPNOTSUPP:
                raise
        mode = XDP_FLAGS_SKB_MODE
        return attached(mode)
    except KernelError as error:
        raise _in_words(nic, program, mode, error) from None


def _in_words(nic: Link, program: int, mode: int, refusal: KernelError) -> KernelError:
    """A refusal with the driver's words, if it has any."""
    here = Netns.current()
    try:
        socket = opened(here, NETLINK_ROUTE)
        try:
            return link.refuses_xdp(socket, refusal.asked, nic.index, program, mode) or refusal
        finally:
            socket.close()
    finally:
        here.close()


@contextmanager
def _loaded(queues: int) -> Iterator[tuple[int, int]]:
    """Descriptors of program and map, loaded into the kernel for as long as needed."""
    if not OBJECT.exists():
        raise ProgramError(
            f"load the XDP program: {OBJECT} is not there, since there was no clang when this was "
            "built; install a wheel that has it, or build one where clang is installed"
        )
    library = _libbpf()
    asked = f"load the XDP program {OBJECT}"
    opened = _ask_for(asked, library.bpf_object__open_file, bytes(OBJECT), None)
    try:
        map_ = _ask_for(asked, library.bpf_object__find_map_by_name, opened, MAP)
        program = _ask_for(asked, library.bpf_object__find_program_by_name, opened, PROGRAM)
        _ask(asked, library.bpf_map__set_max_entries, map_, queues)
        _ask(asked, library.bpf_object__load, opened)
        yield (
            _ask(asked, library.bpf_program__fd, program),
            _ask(asked, library.bpf_map__fd, map_),
        )
    finally:
        library.bpf_object__close(opened)


def _ask(asked: str, function: "ctypes._NamedFuncPointer", *arguments: object) -> int:
    """Call a function of libbpf that answers with a negative errno where it fails."""
    _said.lines = []
    answer = int(function(*arguments))
    if answer < 0:
        raise _failure(asked, -answer)
    return answer


def _ask_for(asked: str, function: "ctypes._NamedFuncPointer", *arguments: object) -> int:
    """Call a function of libbpf that answers with a pointer, or NULL and errno."""
    _said.lines = []
    if answer := function(*arguments):
        return int(answer)
    raise _failure(asked, ctypes.get_errno())


def _failure(asked: str, number: int) -> KernelError | ProgramError:
    """In libbpf's words where it had any: then it is not sure that the kernel was asked at all."""
    if _said.lines:
        return ProgramError(f"{asked}: libbpf says: {'; '.join(_said.lines)}")
    return KernelError(asked, number)


@cache
def _libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise ProgramError(
            f"load {LIBRARY}: {error}; AF_XDP takes libbpf 1: install the package libbpf1 (Debian, "
            "Ubuntu), libbpf (Fedora, RHEL) or libbpf1 (SUSE)"
        ) from None
    pointer = ctypes.c_void_p
    for name, result, *arguments in (
        ("bpf_object__open_file", pointer, ctypes.c_char_p, pointer),
        ("bpf_object__find_map_by_name", pointer, pointer, ctypes.c_char_p),
        ("bpf_object__find_program_by_name", pointer, pointer, ctypes.c_char_p),
        ("bpf_map__set_max_entries", ctypes.c_int, pointer, ctypes.c_uint32),
        ("bpf_object__load", ctypes.c_int, pointer),
        ("bpf_program__fd", ctypes.c_int, pointer),
        ("bpf_map__fd", ctypes.c_int, pointer),
        ("bpf_object__close", None, pointer),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print.argtypes = (_Print,)
    library.libbpf_set_print(_NOTE)
    return library


def _note(level: int, form: bytes, arguments: int) -> int:
    """Keep what libbpf would write to standard error."""
    if level != LIBBPF_WARN:
        return 0
    line = ctypes.create_string_buffer(LINE_BYTES)
    ctypes.CDLL(None).vsnprintf(line, ctypes.c_size_t(LINE_BYTES), form, ctypes.c_void_p(arguments))
    lines = getattr(_said, "lines", [])
    lines.append(line.value.decode(errors="replace").removeprefix("libbpf: ").strip())
    return 0


_NOTE = _Print(_note)
