"""What attachments leave on a node, as others see it."""

from dataclasses import dataclass

from tests.cluster.machine import Machine


@dataclass(frozen=True)
class Left:
    """Names and texts; two of them are equal if nothing has come or gone."""

    records: frozenset[str]
    addresses: frozenset[str]
    devices: frozenset[str]
    rules: str


def left_on(machine: Machine) -> Left:
    """What there is now."""
    devices = [each.get("ifalias", "") for each in machine.ip("link")]
    addresses = {each for each in _files(machine, "networks") if each[0].isdigit() or ":" in each}
    return Left(
        frozenset(each for each in _files(machine, "netkit") if ":" in each),
        frozenset(addresses),
        frozenset(each for each in devices if each.startswith("cni-netkit")),
        machine.run("sh", "-c", "nft list table inet cni-netkit 2>/dev/null || true"),
    )


def _files(machine: Machine, folder: str) -> list[str]:
    found = machine.run(
        "find", f"/var/lib/cni/{folder}", "-type", "f", "-printf", "%f\n", check=False
    )
    return found.split()
