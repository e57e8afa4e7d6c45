"""libbpf 1, the distribution's, by ctypes: what our XDP program needs of it.

Follows libbpf's libbpf.h and bpf.h, bpf(2), include/uapi/linux/bpf.h. Nothing here knows which
program it is, or where it is pinned.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cni_netkit.kernel.errors import KernelError, ProgramError
from cni_netkit.kernel.uapi import BPF_XDP

LIBRARY = "libbpf.so.1"
LINE_BYTES = 4096
LIBBPF_WARN = 0

_said = threading.local()
"""libbpf tells one function for the whole process what went wrong, in the thread that called it."""

_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class LinkInfo(ctypes.Structure):
    """The beginning of struct bpf_link_info, as it is for BPF_LINK_TYPE_XDP."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]


class MapInfo(ctypes.Structure):
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


@contextmanager
def loaded(path: Path, program: bytes, map_: bytes, entries: int) -> Iterator[tuple[int, int]]:
    """Descriptors of a program and its map in an object file, for as long as needed.

    `entries`: how many the map shall have. Raises `ProgramError` and `KernelError`.
    """
    if not path.exists():
        raise ProgramError(
            f"load the XDP program: {path} is not there, since there was no clang when this was "
            "built; install a wheel that has it, or build one where clang is installed"
        )
    libbpf = library()
    asked = f"load the XDP program {path}"
    opened = _ask_for(asked, libbpf.bpf_object__open_file, bytes(path), None)
    try:
        found_map = _ask_for(asked, libbpf.bpf_object__find_map_by_name, opened, map_)
        found = _ask_for(asked, libbpf.bpf_object__find_program_by_name, opened, program)
        _ask(asked, libbpf.bpf_map__set_max_entries, found_map, entries)
        _ask(asked, libbpf.bpf_object__load, opened)
        yield (
            _ask(asked, libbpf.bpf_program__fd, found),
            _ask(asked, libbpf.bpf_map__fd, found_map),
        )
    finally:
        libbpf.bpf_object__close(opened)


def create_xdp_link(asked: str, program: int, index: int, mode: int) -> int:
    """Attach a program to a device (XDP_FLAGS_*_MODE); the link's descriptor."""
    options = _LinkOptions(ctypes.sizeof(_LinkOptions), mode)
    create = library().bpf_link_create
    return _ask(asked, create, program, index, BPF_XDP, ctypes.byref(options))


def detach_link(asked: str, descriptor: int) -> None:
    """Detach what a link attaches; the link itself remains."""
    _ask(asked, library().bpf_link_detach, descriptor)


def pin(descriptor: int, path: Path) -> None:
    """Give a link or a map a name in the BPF file system."""
    _ask(f"pin {path}", library().bpf_obj_pin, descriptor, bytes(path))


def open_pinned(path: Path) -> int | None:
    """A descriptor for what is pinned; None where nothing is."""
    # libbpf is not needed to know that there is nothing.
    if not path.exists():
        return None
    try:
        return _ask(f"open {path}", library().bpf_obj_get, bytes(path))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def read_info(asked: str, descriptor: int, info: LinkInfo | MapInfo) -> None:
    """Fill `info`, and close the descriptor."""
    length = ctypes.c_uint32(ctypes.sizeof(info))
    try:
        read = library().bpf_obj_get_info_by_fd
        _ask(asked, read, descriptor, ctypes.byref(info), ctypes.byref(length))
    finally:
        os.close(descriptor)


def update_map(asked: str, descriptor: int, key: int, value: int) -> None:
    """Put a number into a map of numbers."""
    where, what = ctypes.c_uint32(key), ctypes.c_uint32(value)
    update = library().bpf_map_update_elem
    _ask(asked, update, descriptor, ctypes.byref(where), ctypes.byref(what), ctypes.c_uint64(0))


@cache
def library() -> ctypes.CDLL:
    """Libbpf. Raises `ProgramError` where there is none."""
    try:
        libbpf = ctypes.CDLL(LIBRARY, use_errno=True)
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
        function = getattr(libbpf, name)
        function.restype, function.argtypes = result, arguments
    libbpf.libbpf_set_print.argtypes = (_Print,)
    libbpf.libbpf_set_print(_NOTE)
    return libbpf


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
