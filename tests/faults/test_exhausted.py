"""What a verb needs is used up, or disturbed: storage, descriptors, threads, socket buffers, lists.

As with every fault: the verb worked, or there is a clear error and the world is as it was; then DEL and
GC leave nothing. EDQUOT is not among them, since the lab kernel has no quotas: a limit of the size of files
takes its place, where write(2) fails in the same way.
"""

import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.kernel.netlink import socket
from cni_netkit.kernel.netlink.socket import DUMP_ATTEMPTS, Ask, NetlinkSocket
from tests.faults.bench import Bench, Told, bench, faults, sum_up
from tests.faults.examples import CASES, NAMES
from tests.kernel import judge
from tests.kernel.conftest import Answer, Node
from tests.unit.given import descriptors_left

__all__ = ["bench", "faults"]

STORE = "/var/lib/cni"
FILLER = Path(STORE, "lock.filler")
"""`judge.world` passes over files of locks."""

PATIENT = ("12-dual-stack", "21-pair-and-single-with-leases-1")
"""Two kinds that have all steps between them."""

CHOSEN = [case for case, name in zip(CASES, NAMES, strict=True) if name in PATIENT]
MOST_DESCRIPTORS = 40
TOTALS: dict[str, Told] = {}


@contextmanager
def full() -> Iterator[None]:
    """Not a byte is left on the file system of the state."""
    judge.run("mount", "-o", "remount,size=256k", STORE)
    descriptor = os.open(FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
    with suppress(OSError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.close(descriptor)
    try:
        yield
    finally:
        FILLER.unlink()


@contextmanager
def without_inodes() -> Iterator[None]:
    """No file can be made any more."""
    FILLER.mkdir()
    judge.run("mount", "-o", "remount,nr_inodes=100", STORE)
    made = []
    with suppress(OSError):
        for number in count():
            (FILLER / str(number)).touch()
            made.append(number)
    try:
        yield
    finally:
        for number in made:
            (FILLER / str(number)).unlink()
        FILLER.rmdir()


@contextmanager
def read_only() -> Iterator[None]:
    """As a file system becomes after an error."""
    judge.run("mount", "-o", "remount,ro", STORE)
    try:
        yield
    finally:
        judge.run("mount", "-o", "remount,rw", STORE)


@contextmanager
def files_limited() -> Iterator[None]:
    """Nothing can be written to a file, as where a quota is used up."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def without_threads(folder: Path) -> Iterator[None]:
    """The cgroup has as many as it may have."""
    here, top = folder / "faults", folder / "cgroup.procs"
    here.mkdir(exist_ok=True)
    (here / "cgroup.procs").write_text(str(os.getpid()))
    (here / "pids.max").write_text((here / "pids.current").read_text())
    try:
        yield
    finally:
        (here / "pids.max").write_text("max")
        top.write_text(str(os.getpid()))
        here.rmdir()


@contextmanager
def small_buffers(size: int) -> Iterator[None]:
    """Sockets that are made from now on have so many bytes for answers that nobody has read."""
    host = ("nsenter", "--net=/proc/1/ns/net", "sysctl")
    before = judge.run(*host, "-n", "net.core.rmem_default").strip()
    judge.run(*host, "-qw", f"net.core.rmem_default={size}")
    try:
        yield
    finally:
        judge.run(*host, "-qw", f"net.core.rmem_default={before}")


@contextmanager
def signals() -> Iterator[None]:
    """Whatever can be interrupted by a signal is, a thousand times a second."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


STORAGE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "no space": full,
    "no inodes": without_inodes,
    "read only": read_only,
    "no quota": files_limited,
}
DELETION_WORKS = ("no space", "no inodes", "no quota")
"""Removing a container takes no room."""


@pytest.mark.parametrize("name", STORAGE)
@pytest.mark.parametrize("bench", CHOSEN, ids=PATIENT, indirect=True)
def test_storage(bench: Bench, name: str, figures: list[str]) -> None:
    """Records and addresses cannot be written: ADD fails, and what is there can be removed."""
    answers = each_verb(bench, name, STORAGE[name])
    bench.expect(answers["ADD"], "an ADD without room worked")
    if name in DELETION_WORKS:
        bench.expect(not answers["DEL"], f"DEL: {answers}")
        bench.expect(not answers["GC"], f"GC: {answers}")
    close(bench, name, figures)


@pytest.mark.parametrize("bench", CHOSEN, ids=PATIENT, indirect=True)
def test_descriptors(bench: Bench, figures: list[str]) -> None:
    """None can be opened; then one, two, three, until all verbs work."""
    for left in range(MOST_DESCRIPTORS):
        answers = each_verb(bench, "no descriptors", partial(descriptors_left, left))
        if not any(answers.values()):
            break
    else:
        bench.expect(False, f"{MOST_DESCRIPTORS} descriptors are not enough: {answers}")
    bench.expect(left > 1, "descriptors are not what is missing")
    close(bench, "no descriptors", figures)


@pytest.mark.parametrize("bench", CHOSEN, ids=PATIENT, indirect=True)
def test_threads(bench: Bench, figures: list[str], tmp_path: Path) -> None:
    """None can be started: whatever has to enter the container says so."""
    judge.run("mount", "-t", "cgroup2", "none", str(tmp_path))
    (tmp_path / "cgroup.subtree_control").write_text("+pids")
    answers = each_verb(bench, "no threads", partial(without_threads, tmp_path))
    bench.expect(answers["ADD"] == {11}, f"no thread can be started: {answers}")
    close(bench, "no threads", figures)


@pytest.mark.parametrize("size", [2304, 3000, 5000, 8000])
@pytest.mark.parametrize("bench", CHOSEN, ids=PATIENT, indirect=True)
def test_small_buffers(bench: Bench, size: int, figures: list[str]) -> None:
    """Answers are lost since the socket cannot hold them (ENOBUFS); of some requests, or of most."""
    each_verb(bench, "small buffers", partial(small_buffers, size))
    close(bench, "small buffers", figures)


@pytest.mark.parametrize("bench", CHOSEN, ids=PATIENT, indirect=True)
def test_signals(bench: Bench, figures: list[str], long: bool) -> None:
    """What a signal interrupts (EINTR) goes on."""
    for _ in range(200 if long else 5):
        answers = each_verb(bench, "signals", signals)
        bench.expect(not any(answers.values()), f"interrupted: {answers}")
    close(bench, "signals", figures)


def each_verb(
    bench: Bench, name: str, trouble: Callable[[], AbstractContextManager[None]]
) -> dict[str, set[int]]:
    """Every verb in trouble, and what is promised then; the codes of the errors by verb."""
    attached, told = bench.attached, {verb: set[int]() for verb in VERBS}

    def ask(verb: str, **keys: object) -> Answer:
        answer = bench.within(trouble(), name, verb, keys)
        assert answer is not None
        told[verb] |= {answer.error["code"]} if answer.status else set()
        return answer

    attached.add_before()
    before = bench.kernel.world()
    answer = ask("ADD")
    if answer.status:
        bench.is_as_or_on_record(answer, before, f"ADD, {name}")
    assert attached.call("DEL").ok
    bench.is_as(before, f"DEL, {name}")
    bench.add()
    there = bench.kernel.world()
    ask("CHECK", prevResult=bench.result)
    ask("STATUS")
    bench.is_as(there, f"CHECK and STATUS, {name}")
    if ask("DEL").status:
        assert attached.call("DEL").ok
    bench.is_as(before, f"DEL, {name}")
    bench.add()
    if ask("GC").status:
        assert attached.call("GC").ok
    bench.is_as(bench.empty, f"GC, {name}")
    return told


VERBS = ("ADD", "CHECK", "STATUS", "DEL", "GC")


def close(bench: Bench, name: str, figures: list[str]) -> None:
    """Tell what was done, and whether all held."""
    sum_up(figures, TOTALS, name, bench.told)
    bench.verdict()


MANY_LINKS = 400
INTERRUPTIONS = 5


@contextmanager
def churn(folder: Path) -> Iterator[None]:
    """Devices come and go beside many that stay."""
    batch = folder / "batch"
    pairs = (
        f"link add x{number % 50} type dummy\nlink del x{number % 50}\n" for number in range(9999)
    )
    batch.write_text("".join(pairs))
    with subprocess.Popen(["ip", "-force", "-batch", batch], stderr=subprocess.DEVNULL) as process:
        try:
            yield
            assert process.poll() is None, "it ended before"
        finally:
            process.kill()
    for each in judge.ip("link"):
        if each["ifname"].startswith("x"):
            judge.run("ip", "link", "del", each["ifname"])


@pytest.mark.parametrize("attempts", [1, DUMP_ATTEMPTS])
def test_lists_that_change(
    node: Node,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: list[str],
    attempts: int,
) -> None:
    """One that was interrupted (NLM_F_DUMP_INTR) is asked for again, and never told as it is."""
    many = tmp_path / "many"
    many.write_text("".join(f"link add y{number} type dummy\n" for number in range(MANY_LINKS)))
    judge.run("ip", "-batch", str(many))
    interrupted = []
    ask = NetlinkSocket.ask

    def note(self: NetlinkSocket, *batch: Ask, tolerated: Collection[int] = ()) -> Any:
        answers = ask(self, *batch, tolerated=tolerated)
        interrupted.append(self.interrupted)
        return answers

    monkeypatch.setattr(NetlinkSocket, "ask", note)
    monkeypatch.setattr(socket, "DUMP_ATTEMPTS", attempts)
    refused = 0
    with closing(Namespace.current()) as host, churn(tmp_path):
        while sum(interrupted) < INTERRUPTIONS:
            try:
                stay = {each.name for each in host.links.all() if each.name.startswith("y")}
            except KernelError as error:
                refused += error.errno == errno.EAGAIN
            else:
                assert len(stay) == MANY_LINKS
    # Where everything takes long even twenty attempts may be too few.
    assert attempts > 1 or refused == INTERRUPTIONS
    figures.append(
        f"lists that change, {attempts} attempts: asked for {len(interrupted)} times, "
        f"interrupted {sum(interrupted)}, refused {refused}"
    )
