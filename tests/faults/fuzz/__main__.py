"""Inside the cell: fuzz a target, or try its files once. `tests.faults.fuzz.run` calls this."""

import importlib
import os
import pkgutil
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import cni_netkit
from tests.faults.fuzz import cell

LONGEST = 16384
"""Bytes of an input; what has to be longer is built by tests/faults/test_hostile.py."""


def main() -> int:
    """TARGET WORK replay FILE ... | TARGET WORK fuzz OPTION ... (those of libFuzzer)."""
    name, work, what, *rest = sys.argv[1:]
    tempfile.tempdir = work
    inside = cell.enter(Path(work))
    if what == "replay":
        target = _load(name)
        _begin(target, inside, Path(work))
        return _replay(target, rest)
    return _fuzz(name, inside, Path(work), rest)


def _load(name: str) -> ModuleType:
    # All of it now: where nothing can be executed, no library can be loaded.
    for module in pkgutil.walk_packages(cni_netkit.__path__, "cni_netkit."):
        importlib.import_module(module.name)
    return importlib.import_module(f"tests.faults.fuzz.targets.{name}")


def _begin(target: ModuleType, inside: int, work: Path) -> None:
    if not getattr(target, "EXECUTES", False):
        cell.lock_up(work)
    if hasattr(target, "prepare"):
        target.prepare(inside)


def _replay(target: ModuleType, files: Sequence[str]) -> int:
    """Try each file once. A failure is told with the file's name."""
    for name in files:
        try:
            target.one(Path(name).read_bytes())
        except BaseException:
            traceback.print_exc()
            print(f"FOUND BY {name}", file=sys.stderr, flush=True)
            return 1
    return 0


def _fuzz(name: str, inside: int, work: Path, options: Sequence[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["cni_netkit"], enable_loader_override=False):
        target = _load(name)
    begun: list[bool] = []

    def one(data: bytes) -> None:
        if not begun:  # not earlier: the fuzzer has libraries to load
            begun.append(True)
            _begin(target, inside, work)
        target.one(data)

    def as_bytes(data: bytes, most: int) -> bytes:
        return bytes(atheris.Mutate(data, most))  # another one than before Fuzz()

    more = {}
    if hasattr(target, "mutate"):
        more["custom_mutator"] = _mutator(target.mutate, as_bytes)
    atheris.Setup([sys.argv[0], *options, f"-max_len={LONGEST}"], one, **more)
    atheris.Fuzz()  # exits
    return 1


def _mutator(
    mutate: Callable[[bytes, int], bytes | None], as_bytes: Callable[[bytes, int], bytes]
) -> Callable[[bytes, int, int], bytes]:
    """By structure where there is one, else as libFuzzer does it."""

    def change(data: bytes, most: int, seed: int) -> bytes:
        if random.Random(seed).random() < 0.75:
            changed = mutate(data, seed)
            if changed is not None and len(changed) <= most:
                return changed
        return as_bytes(data, most)

    return change


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as end:
        status = int(end.code or 0) & 0xFF
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    # Not in the usual way: the thread that stays in the container would keep us.
    os._exit(status)
