"""Rings, channels and features of a NIC, set by us and judged by the real ethtool."""

import json
from collections.abc import Callable

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Channels, Feature, FlowRule, Link
from cni_netkit.kernel.namespace import Namespace
from tests.ethtool.fake import NTUPLE, FakeNic
from tests.kernel import judge
from tests.kernel.conftest import Node

pytestmark = pytest.mark.once


def linked(host: Namespace, name: str) -> Link:
    """A device that is there."""
    found = host.links.get(name=name)
    assert found is not None
    return found


def test_rings_and_header_data_split(node: Node, host: Namespace) -> None:
    """What we set ethtool shows, and what ethtool sets we do."""
    nic = linked(host, node.nic())
    host.ethtool.set_rings(nic, rx=1024, data_split="off")
    host.ethtool.set_rings(nic, hds_thresh=64)
    shown = judge.run("ethtool", "-g", nic.name).split("Current")[1].split()
    assert shown[shown.index("RX:") + 1] == "1024"
    judge.run("ethtool", "-G", nic.name, "rx", "256")
    found = host.ethtool.rings(nic)
    assert found is not None
    assert (found.rx, found.rx_max, found.data_split) == (256, 4096, "off")
    assert (found.hds_thresh, found.hds_thresh_max) == (64, 1024)
    with pytest.raises(
        KernelError, match=f"threshold of {nic.name} to 4096: .*EINVAL.*exceeds max"
    ):
        host.ethtool.set_rings(nic, hds_thresh=4096)


def test_channels(node: Node, host: Namespace) -> None:
    """Counted and set; more than there can be is refused in the kernel's words."""
    nic = linked(host, node.nic())
    host.ethtool.set_channels(nic, combined=5)
    shown = judge.run("ethtool", "-l", nic.name).split("Current")[1].split()
    assert shown[shown.index("Combined:") + 1] == "5"
    found = host.ethtool.channels(nic)
    assert found == Channels(0, 0, 5, 0, 0, 8)
    assert found.queues == 5
    with pytest.raises(KernelError, match=f"combined channels of {nic.name} to 9: .*exceeds max"):
        host.ethtool.set_channels(nic, combined=9)


def test_features(node: Node, host: Namespace) -> None:
    """One that can be switched, one that cannot, one that nobody knows."""
    nic = linked(host, node.nic())
    (shown,) = json.loads(judge.run("ethtool", "--json", "-k", nic.name))
    assert host.ethtool.feature(nic, "rx-gro") == Feature(
        on=shown["generic-receive-offload"]["active"], changeable=True
    )
    host.ethtool.set_feature(nic, "rx-gro", False)
    (shown,) = json.loads(judge.run("ethtool", "--json", "-k", nic.name))
    assert shown["generic-receive-offload"]["active"] is False
    assert shown["ntuple-filters"]["active"] is False
    assert shown["ntuple-filters"]["fixed"] is True
    assert host.ethtool.feature(nic, NTUPLE) is None
    assert host.ethtool.feature(nic, "nonsense") is None
    with pytest.raises(
        KernelError, match=r"rx-ntuple-filter .* on: .*the driver left it as it was"
    ):
        host.ethtool.set_feature(nic, NTUPLE, True)


def test_what_netdevsim_has_not(node: Node, host: Namespace) -> None:
    """None where there is no such thing; a device without any ethtool is no fault."""
    nic, lo = linked(host, node.nic()), linked(host, "lo")
    assert host.ethtool.indirection(nic) is None
    assert host.ethtool.contexts(nic) is None
    assert host.ethtool.rings(lo) is None
    assert host.ethtool.channels(lo) is None
    with pytest.raises(KernelError, match=f"list the flow rules of {nic.name}: .*not supported"):
        host.ethtool.rules(nic)


def test_fake_beside_the_kernel(
    node: Node, host: Namespace, fake_nic: Callable[..., FakeNic]
) -> None:
    """The fixture: rules, RSS and the feature are the fake's, all else is netdevsim's."""
    one, two = linked(host, node.nic()), linked(host, node.nic())
    nic = fake_nic(one.name, ntuple=False)
    assert host.ethtool.feature(one, NTUPLE) == Feature(on=False, changeable=True)
    host.ethtool.set_feature(one, NTUPLE, True)
    assert host.ethtool.feature(one, NTUPLE) == Feature(on=True, changeable=True)
    assert nic.ntuple
    context = host.ethtool.create_context(one, (6, 7) * 8)
    assert host.ethtool.contexts(one) == {context: (6, 7) * 8}
    location = host.ethtool.insert_rule(one, FlowRule("tcp", "10.1.0.2", context=context))
    assert set(nic.rules) == {location}
    host.ethtool.set_feature(one, "rx-gro", False)
    assert host.ethtool.feature(one, "rx-gro") == Feature(on=False, changeable=True)
    assert host.ethtool.channels(one) == Channels(0, 0, 8, 0, 0, 8)
    assert host.ethtool.feature(two, NTUPLE) is None
    assert host.ethtool.contexts(two) is None
