"""What `cni-netkit dra` says of a node's NICs, beside what becomes of them."""

from contextlib import closing

from cni_netkit.dra.inventory import Device, devices
from cni_netkit.kernel.namespace import Namespace
from tests.kernel import judge
from tests.kernel.conftest import Conf, Node


def looked_at() -> dict[str, Device]:
    with closing(Namespace.current()) as host:
        return {each.nic: each for each in devices(host)}


def test_a_nic_is_offered_while_it_is_well(node: Node, conf: Conf) -> None:
    """Prepared, up and with link, whatever it lends; what somebody holds without a claim is not offered."""
    nic, c = node.nic(), node.container()
    assert looked_at() == {}
    node.prepare(nic, "io_uring", "4-7")
    found = looked_at()[nic]
    assert found.offered
    assert (found.queues, found.leased) == (4, {})
    assert found.attributes["role"] == "io_uring"
    assert found.attributes["mtu"] == judge.link(nic)["mtu"]
    lease = {"device": nic, "count": 1, "workload": "io_uring", "flows": "none"}
    node.add(conf(lease=lease), c)
    found = looked_at()[nic]
    assert (found.queues, list(found.leased)) == (3, list(judge.leases(nic)))
    other, far = node.nic(), node.container()
    judge.run("ip", "link", "set", other, "netns", far)
    judge.link_nics(nic, other, far)
    for where, state, problem in (
        (("-n", far, "link", "set", other), "up", ""),
        (("link", "set", nic), "down", f"NIC {nic} is down"),
        (("link", "set", nic), "up", ""),
        (("-n", far, "link", "set", other), "down", f"NIC {nic} has no link"),
        (("-n", far, "link", "set", other), "up", ""),
    ):
        judge.run("ip", *where, state)
        now = looked_at()[nic]
        assert now.problem == problem
        assert (now == found) == (not problem)
    node.remove_nic(node.nics[0])
    assert looked_at()[nic].problem == f"NIC {nic} is gone"
    assert not looked_at()[nic].offered
