"""The NIC named by the runtime (deviceID), as Multus does it for devices that a pod was given.

netdevsim stands on a bus of its own, so what is shown here for a device of that bus is what happens
to a PCI address: both are looked up under /sys/bus.
"""

from pathlib import Path

import pytest

from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node

LEASE = {"count": 2, "queues": "4-7"}


def identifier(node: Node) -> str:
    """What the newest NIC's device is called on its bus."""
    return f"netdevsim{node.nics[-1]}"


def two_ports(node: Node) -> list[str]:
    """A NIC whose one device has two network devices, both up."""
    before = {each["ifname"] for each in judge.ip("link")}
    node.nic()
    Path(f"/sys/bus/netdevsim/devices/{identifier(node)}/new_port").write_text(
        "2 02:00:00:00:00:02"
    )
    found = judge.wait_for(
        lambda: (
            (now := {each["ifname"] for each in judge.ip("link")} - before)
            and len(now) == 2
            and sorted(now)
        ),
        "the second port appears",
    )
    for name in found:
        judge.run("ip", "link", "set", name, "up")
    return list(found)


@pytest.mark.parametrize("given", ["capability", "deviceID", "pciBusID", "name"])
def test_lease_from_the_nic_that_the_runtime_names(node: Node, conf: Conf, given: str) -> None:
    """By bus address as a capability or beside our keys, or by the network device's name."""
    node.nic()
    nic, c = node.nic(), node.container()
    keys: dict[str, JSON] = {
        "capability": {"runtimeConfig": {"deviceID": identifier(node)}},
        "deviceID": {"deviceID": identifier(node)},
        "pciBusID": {"pciBusID": identifier(node)},
        "name": {"runtimeConfig": {"deviceID": nic}},
    }
    before = judge.world(c)
    configuration = conf(lease=LEASE, **keys[given])
    result = node.add(configuration, c)
    index = judge.link("eth0", c)["ifindex"]
    assert judge.leases(nic) == {7: (index, 1), 6: (index, 2)}
    assert node.check(configuration, c, result).ok
    # Later DELs come without what the runtime knew.
    assert node.call("DEL", conf(lease=LEASE), c).ok
    assert judge.world(c) == before


def test_the_nic_in_the_configuration_is_the_same(node: Node, conf: Conf) -> None:
    """Named twice is named once; two different ones are error 7, which names both."""
    other = node.nic()
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    lease = {**LEASE, "device": other}
    error = node.call("ADD", conf(lease=lease, deviceID=identifier(node)), c).error
    assert error["code"] == 7
    assert f"lease.device is {other}" in error["msg"]
    assert f"{identifier(node)} is {nic}" in error["msg"]
    assert judge.world(c) == before
    node.add(conf(lease={**LEASE, "device": nic}, deviceID=identifier(node)), c)
    assert set(judge.leases(nic)) == {6, 7}


def test_a_device_without_a_network_device(node: Node, conf: Conf) -> None:
    """Error 102 says where to look; nothing is left."""
    c = node.container()
    before = judge.world(c)
    error = node.call("ADD", conf(lease=LEASE, deviceID="0000:03:00.0"), c).error
    assert error["code"] == 102
    assert "0000:03:00.0 has no network device" in error["msg"]
    assert "vfio-pci" in error["details"]
    assert judge.world(c) == before


def test_a_device_with_two_ports(node: Node, conf: Conf) -> None:
    """Error 102 names them, and lease.device chooses."""
    one, two = two_ports(node)
    c = node.container()
    error = node.call("ADD", conf(lease=LEASE, deviceID=identifier(node)), c).error
    assert error["code"] == 102
    assert f"{one}, {two}" in error["msg"]
    assert "lease.device" in error["details"]
    node.add(conf(lease={**LEASE, "device": two}, deviceID=identifier(node)), c)
    assert judge.leases(one) == {}
    assert set(judge.leases(two)) == {6, 7}


def test_nobody_names_the_nic(node: Node, conf: Conf) -> None:
    """An ADD is told both ways to do it; STATUS and GC, which never have it, do without."""
    c = node.container()
    before = judge.world(c)
    error = node.call("ADD", conf(lease=LEASE), c).error
    assert error["code"] == 7
    assert "lease.device" in error["details"]
    assert "deviceID" in error["details"]
    assert node.call("STATUS", conf(lease=LEASE)).ok
    assert node.call("GC", conf(lease=LEASE)).ok
    assert judge.world(c) == before


def test_gc_of_what_the_runtime_named(node: Node, conf: Conf) -> None:
    """GC knows nothing of the NIC and gives the queues back all the same."""
    nic, c = node.nic(), node.container()
    before = judge.world(c)
    node.add(conf(lease=LEASE, deviceID=identifier(node)), c)
    assert set(judge.leases(nic)) == {6, 7}
    assert node.call("GC", conf(lease=LEASE)).ok
    assert judge.world(c) == before


def test_a_device_that_is_of_no_use(node: Node, conf: Conf) -> None:
    """Multus writes the id into every plugin of a list: without a lease it means nothing."""
    c = node.container()
    node.add(conf(deviceID="0000:03:00.0", runtimeConfig={"deviceID": "0000:03:00.0"}), c)
    assert judge.pings("10.1.0.2")


def test_no_device_information_is_written(node: Node, conf: Conf, tmp_path: Path) -> None:
    """CNIDeviceInfoFile is understood; a file that is there is left as it is (docs/decisions/D-17.md)."""
    node.nic()
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text('{"type": "pci"}')
    for path in (new, old):
        c = node.container()
        configuration = conf(
            lease=LEASE,
            deviceID=identifier(node),
            capabilities={"CNIDeviceInfoFile": True},
            runtimeConfig={"CNIDeviceInfoFile": str(path)},
        )
        node.add(configuration, c)
        assert node.call("DEL", configuration, c).ok
    assert not new.exists()
    assert old.read_text() == '{"type": "pci"}'
