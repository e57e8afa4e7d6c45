"""What `cni-netkit dra` says of a node's NICs, beside what becomes of them."""

from contextlib import closing

from cni_netkit.claims import Share
from cni_netkit.dra.inventory import Device, devices
from cni_netkit.kernel.namespace import Namespace
from tests.kernel import judge
from tests.kernel.conftest import Command, Conf, Node
from tests.kernel.promises import ARGUMENTS, prepare


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


def test_what_is_claimed_is_of_the_pool_and_what_is_added_is_not(
    node: Node, conf: Conf, cni_netkit: Command
) -> None:
    """The scheduler counts what claims have; what an administrator gives the same pod is nobody's."""
    nic, c = node.nic(), node.container()
    node.prepare(nic, "io_uring", "4-7")
    prepare(Share("queues", nic, 2, {"workload": "io_uring", "flows": "none"}))
    config = conf(pairing="single", ipam=None, claims=True)
    node.add(config, c, args=ARGUMENTS)
    assert (looked_at()[nic].queues, len(looked_at()[nic].leased)) == (4, 2)
    more = ("--device", nic, "--flows", "none", "--ifname", "more0")
    cni_netkit("lease", "add", f"container-{c}", *more)
    assert (looked_at()[nic].queues, len(looked_at()[nic].leased)) == (3, 3)
    assert node.call("DEL", config, c, args=ARGUMENTS).ok
    assert (looked_at()[nic].queues, looked_at()[nic].leased) == (4, {})
