"""Our XDP program on a NIC: attached and taken away, also when cut off; what it says where it cannot."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.kernel.bpf import libbpf
from cni_netkit.kernel.bpf import xdp as bpf
from cni_netkit.kernel.errors import KernelError, ProgramError
from cni_netkit.kernel.model import Link
from cni_netkit.kernel.namespace import Namespace
from tests.kernel import judge
from tests.kernel.conftest import Node

DRIVER, GENERIC = 1, 2
"""XDP_ATTACHED_DRV and XDP_ATTACHED_SKB of linux/if_link.h."""

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("xdp_program")]


def look(host: Namespace, name: str) -> Link:
    found = host.links.get(name=name)
    assert found
    return found


def xdp(name: str) -> tuple[int, int] | None:
    """Mode and program id, as ip(8) sees them."""
    found = judge.link(name).get("xdp")
    return (found["mode"], found["prog"]["id"]) if found else None


def pins(name: str) -> list[str]:
    return sorted(str(path.relative_to(bpf.PINS)) for path in bpf.PINS.glob(f"{name}*/*"))


def is_right(host: Namespace, name: str) -> bool:
    """The program runs, and both pins are there."""
    link = look(host, name)
    found = xdp(name)
    return (
        found is not None
        and found == (DRIVER, link.xdp_program)
        and pins(name) == [f"{name}/link", f"{name}/xsks"]
        and host.xdp.is_attached(link)
    )


def is_clean(host: Namespace, name: str) -> bool:
    """Nothing runs, and no pin is there."""
    return xdp(name) is None and not list(bpf.PINS.glob("*")) and host.xdp.prepared() == []


def test_attached_and_taken_away_at_once(node: Node, host: Namespace) -> None:
    """Twice is as good as once; nothing is left, and nothing is no failure."""
    nic = node.nic()
    assert not host.xdp.is_attached(look(host, nic))
    host.xdp.attach(look(host, nic))
    assert is_right(host, nic)
    assert host.xdp.prepared() == [nic]
    before = xdp(nic)
    host.xdp.attach(look(host, nic))
    assert xdp(nic) == before
    host.xdp.detach(nic)
    assert is_clean(host, nic)
    host.xdp.detach(nic)
    assert look(host, nic).xdp_program is None


def test_two_nics_do_not_mind_each_other(node: Node, host: Namespace) -> None:
    """One name being the beginning of the other's, and with a dot, which bpffs does not allow."""
    one, two = node.nic(), node.nic()
    judge.run("ip", "link", "set", two, "down")
    judge.run("ip", "link", "set", two, "name", f"{one}.x")
    host.xdp.attach(look(host, one))
    host.xdp.attach(look(host, f"{one}.x"))
    assert host.xdp.prepared() == [one, f"{one}.x"]
    host.xdp.detach(one)
    assert xdp(one) is None
    assert host.xdp.is_attached(look(host, f"{one}.x"))
    host.xdp.detach(f"{one}.x")
    assert is_clean(host, f"{one}.x")


def test_nic_that_comes_back_under_its_name_is_another_one(node: Node, host: Namespace) -> None:
    """Its predecessor's pins are replaced."""
    nic = node.nic()
    host.xdp.attach(look(host, nic))
    node.remove_nic()
    again = node.nic(queues=4)
    assert again == nic
    assert not host.xdp.is_attached(look(host, nic))
    host.xdp.attach(look(host, nic))
    assert is_right(host, nic)


def cut_off(host: Namespace, name: str, work: Callable[[Link], None]) -> Iterator[int]:
    """Have another process do it, killed before its first step, its second, … until it is done."""
    steps = ("_ask", "_ask_for")
    for number in range(1, 60):
        child = os.fork()
        if child == 0:
            left = [number]

            def counted(function: Any, left: list[int] = left) -> Any:
                def call(*arguments: Any, **keys: Any) -> Any:
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **keys)

                return call

            for step in steps:
                setattr(libbpf, step, counted(getattr(libbpf, step)))
            for owner, step in ((Path, "mkdir"), (Path, "unlink"), (Path, "rmdir")):
                setattr(owner, step, counted(getattr(owner, step)))
            try:
                work(look(host, name))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return
        yield number
    pytest.fail("it never comes to its end")


@pytest.mark.parametrize("then", ["attach", "detach"])
@pytest.mark.parametrize("work", ["attach", "detach", "replace"])
def test_killed_between_any_two_steps(node: Node, host: Namespace, work: str, then: str) -> None:
    """Whatever was cut off, attaching and taking away do their work afterwards."""
    nic = node.nic()
    cuts = 0

    def done(link: Link) -> None:
        if work == "detach":
            host.xdp.detach(nic)
        else:
            host.xdp.attach(link)

    def arrange() -> None:
        host.xdp.detach(nic)
        if work != "attach":
            host.xdp.attach(look(host, nic))
        if work == "replace":
            (bpf.PINS / nic / "xsks").unlink()

    arrange()
    for _ in cut_off(host, nic, done):
        cuts += 1
        if then == "attach":
            host.xdp.attach(look(host, nic))
            assert is_right(host, nic), cuts
        else:
            host.xdp.detach(nic)
            assert is_clean(host, nic), cuts
        arrange()
    assert cuts >= 5


def test_without_driver_support_the_kernel_does_it_if_asked(node: Node, host: Namespace) -> None:
    """Generic XDP only where somebody said that copying will do; else the driver's own words."""
    nic = node.nic()
    accept = f"/sys/kernel/debug/netdevsim/netdevsim{node.nics[-1]}/ports/0/bpf_xdpdrv_accept"
    judge.run("mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug")
    Path(accept).write_text("N")
    with pytest.raises(KernelError) as refused:
        host.xdp.attach(look(host, nic))
    assert "driver XDP disabled in DebugFS" in str(refused.value)
    assert f"attach our XDP program to {nic}" in str(refused.value)
    assert is_clean(host, nic)
    host.xdp.attach(look(host, nic), copy=True)
    found = xdp(nic)
    assert found
    assert found[0] == GENERIC
    assert host.xdp.is_attached(look(host, nic))
    host.xdp.detach(nic)
    assert is_clean(host, nic)


def test_another_program_is_left_alone(
    node: Node, host: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not ours to remove; the kernel's words say what is in the way."""
    nic = node.nic()
    with monkeypatch.context() as patch:
        patch.setattr(bpf, "PINS", Path("/sys/fs/bpf/others"))
        host.xdp.attach(look(host, nic))
    before = xdp(nic)
    assert not host.xdp.is_attached(look(host, nic))
    with pytest.raises(KernelError) as refused:
        host.xdp.attach(look(host, nic))
    assert "EBUSY" in str(refused.value)
    assert "Can't replace active BPF XDP link" in str(refused.value)
    host.xdp.detach(nic)
    assert xdp(nic) == before


def test_what_is_missing_is_named(
    node: Node,
    host: Namespace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """libbpf, the program, or what libbpf has to say of it; and nothing of that on stderr."""
    nic = node.nic()
    with monkeypatch.context() as patch:
        patch.setattr(libbpf, "LIBRARY", "libbpf.so.0.nowhere")
        libbpf.library.cache_clear()
        with pytest.raises(ProgramError, match="install the package libbpf1"):
            host.xdp.attach(look(host, nic))
    libbpf.library.cache_clear()
    host.xdp.detach(nic)
    with monkeypatch.context() as patch:
        patch.setattr(bpf, "OBJECT", tmp_path / "xsk.bpf.o")
        with pytest.raises(ProgramError, match="there was no clang when this was built"):
            host.xdp.attach(look(host, nic))
        (tmp_path / "xsk.bpf.o").write_text("no program")
        with pytest.raises(ProgramError, match=r"libbpf says: .*not a proper ELF object"):
            host.xdp.attach(look(host, nic))
    assert capfd.readouterr().err == ""
    assert is_clean(host, nic)
    judge.run("umount", "/sys/fs/bpf")
    with pytest.raises(ProgramError, match="mount -t bpf bpf /sys/fs/bpf"):
        host.xdp.attach(look(host, nic))
    assert host.xdp.prepared() == []
    host.xdp.detach(nic)


def test_what_the_driver_can_do(node: Node, host: Namespace) -> None:
    """netdevsim: BASIC and HW_OFFLOAD (drivers/net/netdevsim/netdev.c)."""
    assert host.queues.xdp_features(look(host, node.nic())) == {"basic", "hw-offload"}
    assert host.queues.xdp_features(look(host, "lo")) == frozenset()
