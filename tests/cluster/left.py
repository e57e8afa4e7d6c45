"""What attachments leave on a node, as others see it."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.cluster.machine import Machine


@dataclass(frozen=True)
class Left:
    """By name; the rules as nft(8) shows them."""

    records: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    rules: str = ""


def left_on(machine: Machine) -> Left:
    """What there is now."""
    devices = [each.get("ifalias", "") for each in machine.ip("link")]
    addresses = {each for each in _files(machine, "networks") if each[0].isdigit() or ":" in each}
    return Left(
        frozenset(each for each in _files(machine, "netkit") if ":" in each),
        frozenset(_files(machine, "netkit/claims")),
        frozenset(addresses),
        frozenset(each for each in devices if each.startswith("cni-netkit")),
        machine.run("sh", "-c", "nft list table inet cni-netkit 2>/dev/null || true"),
    )


def what_is_left(machines: Iterable[Machine]) -> str:
    """In words, by node."""
    found = {each.name: left_on(each) for each in machines}
    return "; ".join(f"{name}: {left}" for name, left in found.items() if left != Left())


def nothing_left(machines: Iterable[Machine]) -> bool:
    """Whether there is nothing of any attachment on any of them."""
    return all(left_on(machine) == Left() for machine in machines)


def _files(machine: Machine, folder: str) -> list[str]:
    found = machine.run(
        "find", f"/var/lib/cni/{folder}", "-type", "f", "-printf", "%f\n", check=False
    )
    return found.split()
