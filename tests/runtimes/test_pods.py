"""What users do with pods, on each runtime; the judges are ip(8), ping(8), the kernel's own tables."""

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cni_netkit.spec.annotations import CAPABILITY
from tests.kernel import judge
from tests.kernel.conftest import CLONE_NEWNET, libc
from tests.runtimes.conftest import HANDLER, Network
from tests.runtimes.containerd import ContainerdPods
from tests.runtimes.runtime import Asked, Refused
from tests.runtimes.site import Site

MANY = 20
MAC = "02:00:5e:00:53:01"
HOST_PORT, POD_PORT = 8080, 80
SECONDS = 20.0


def test_l3_pair(site: Site, network: Network) -> None:
    """A pair without MAC addresses; the address is IPAM's, the runtime's, and answers."""
    conflist = network()
    pod = site.run("pod")
    assert judge.netkit("eth0", pod.netns)["mode"] == "l3"
    (address,) = pod.addresses
    assert judge.addresses("eth0", pod.netns) == {f"{address}/24"}
    assert judge.pings(address)
    assert site.host_end(pod)["linkinfo"]["info_kind"] == "netkit"
    assert site.has_record(pod)
    assert os.path.exists(f"/var/lib/cni/networks/{conflist['name']}/{address}")
    assert site.runtime.describe(pod) == (True, pod.addresses)
    site.remove(pod)


def test_l2_pair(site: Site, network: Network) -> None:
    """A pair with MAC addresses, and masqueraded."""
    network(mode="l2", ipMasq=True)
    pod = site.run("pod")
    assert judge.netkit("eth0", pod.netns)["mode"] == "l2"
    assert judge.link("eth0", pod.netns)["link_type"] == "ether"
    assert judge.pings(pod.addresses[0])
    assert pod.addresses[0] in judge.run("nft", "list", "table", "inet", "cni-netkit")
    site.remove(pod)


def test_pair_with_leased_queues(site: Site, network: Network) -> None:
    """Two queues of the NIC belong to the pod's device, and again to nobody."""
    nic = site.node.nic()
    network(lease={"device": nic, "count": 2, "queues": "4-7"})
    pod = site.run("pod")
    assert judge.link("eth0", pod.netns)["num_rx_queues"] == 3
    index = judge.link("eth0", pod.netns)["ifindex"]
    leases = judge.leases(nic)
    assert sorted(leases) == [6, 7]
    assert {device for device, _ in leases.values()} == {index}
    assert judge.pings(pod.addresses[0])
    site.remove(pod)
    assert judge.leases(nic) == {}


def test_network_of_a_handler(site: Site, network: Network) -> None:
    """A pod that names a handler, as a RuntimeClass does, has a lease; the next one the ordinary network."""
    assert isinstance(site.runtime, ContainerdPods)
    nic = site.node.nic()
    ordinary = network()
    (plugin,) = ordinary["plugins"]
    ipam = plugin["ipam"] | {"ranges": [[{"subnet": "10.255.0.0/24"}]]}
    lease = {"device": nic, "count": 1, "queues": "4-7"}
    leasing = {"name": HANDLER, "plugins": [plugin | {"ipam": ipam, "lease": lease}]}
    site.runtime.configure_handler(HANDLER, ordinary | leasing)
    pod = site.run("leasing", Asked(handler=HANDLER))
    other = site.run("ordinary")
    assert pod.addresses == ("10.255.0.2",)
    assert sorted(judge.leases(nic)) == [7]
    assert judge.link("eth0", pod.netns)["num_rx_queues"] == 2
    assert judge.link("eth0", other.netns)["num_rx_queues"] == 1
    assert not {*pod.addresses} & {*other.addresses}
    assert all(judge.pings(each.addresses[0]) for each in (pod, other))
    site.remove(pod, other)
    assert judge.leases(nic) == {}


def test_dual_stack(site: Site, network: Network) -> None:
    """Both addresses are the runtime's, and answer at once."""
    network(dual=True)
    pod = site.run("pod")
    assert len(pod.addresses) == 2
    assert {each.split("/")[0] for each in judge.addresses("eth0", pod.netns)} == set(pod.addresses)
    assert all(judge.pings(each) for each in pod.addresses)
    site.remove(pod)


def test_mac(site: Site, network: Network) -> None:
    """The MAC address that a user asks for."""
    network(mode="l2", capabilities={"mac": True})
    pod = site.run("pod", Asked(mac=MAC))
    assert judge.link("eth0", pod.netns)["address"] == MAC
    assert judge.pings(pod.addresses[0])
    site.remove(pod)


def test_ips(site: Site, network: Network) -> None:
    """The addresses that a user asks for, of both families."""
    conflist = network(dual=True, capabilities={"ips": True})
    ranges = conflist["plugins"][0]["ipam"]["ranges"]
    wanted = [
        ranges[0][0]["subnet"].replace("0/24", "77"),
        ranges[1][0]["subnet"].replace("/64", "77"),
    ]
    pod = site.run("pod", Asked(ips=wanted))
    assert {each.split("/")[0] for each in judge.addresses("eth0", pod.netns)} == set(wanted)
    assert set(pod.addresses) == set(wanted)
    assert all(judge.pings(each) for each in wanted)
    site.remove(pod)


def test_annotations(site: Site, network: Network) -> None:
    """What a pod chooses by annotation, and has; one that chooses nothing has what is configured."""
    nic = site.node.nic()
    network(
        capabilities={CAPABILITY: True},
        allowAnnotations=["mode", "mtu", "lease"],
        lease={"device": nic, "queues": "4-7"},
    )
    chosen = {"mode": "l2", "mtu": "1400", "lease": '{"count": 2}'}
    pod = site.run("pod", Asked(annotations={f"cni-netkit/{key}": chosen[key] for key in chosen}))
    device = judge.link("eth0", pod.netns)
    assert judge.netkit("eth0", pod.netns)["mode"] == "l2"
    assert device["mtu"] == 1400
    assert sorted(judge.leases(nic)) == [6, 7]
    assert judge.pings(pod.addresses[0])
    site.remove(pod)
    assert judge.leases(nic) == {}
    ordinary = site.run("ordinary")
    assert judge.netkit("eth0", ordinary.netns)["mode"] == "l3"
    assert sorted(judge.leases(nic)) == [7]
    site.remove(ordinary)


def test_annotation_not_allowed(site: Site, network: Network) -> None:
    """The runtime passes on what is wrong with which annotation; nothing is left."""
    network(capabilities={CAPABILITY: True}, allowAnnotations=["mtu"])
    fault = "annotation cni-netkit/mode: mode is not in allowAnnotations"
    with pytest.raises(Refused, match=fault):
        site.run("pod", Asked(annotations={"cni-netkit/mode": "l2"}))


def test_host_ports(site: Site, network: Network) -> None:
    """A port of the host leads to the pod: portmap, chained behind our pair."""
    # By itself portmap takes iptables where that is installed.
    portmap = {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}}
    network(chained=(portmap,))
    client = site.node.container()
    judge.run("ip", "link", "add", "outside", "type", "veth", "peer", "eth0", "netns", client)
    for device, address, netns in (("outside", "192.0.2.1", ""), ("eth0", "192.0.2.2", client)):
        where = ["-n", netns] if netns else []
        judge.run("ip", *where, "addr", "add", f"{address}/24", "dev", device)
        judge.run("ip", *where, "link", "set", device, "up")
    pod = site.run("pod", Asked(ports={HOST_PORT: POD_PORT}))
    with (
        socket_in(pod.netns) as server,
        socket_in(client) as asking,
    ):
        server.bind(("", POD_PORT))
        server.listen()
        asking.connect(("192.0.2.1", HOST_PORT))
        accepted, source = server.accept()
        with accepted:
            assert source[0] == "192.0.2.2"
            assert accepted.getsockname() == (pod.addresses[0], POD_PORT)
    site.remove(pod)
    assert pod.addresses[0] not in judge.run("nft", "list", "ruleset")
    judge.run("ip", "link", "del", "outside")
    judge.run("ip", "netns", "del", client)


def test_pod_to_pod(site: Site, network: Network) -> None:
    """Each of two pods reaches the other, over IPv4 and IPv6."""
    network(dual=True)
    one, other = site.run("one"), site.run("other")
    for source, target in ((one, other), (other, one)):
        assert all(judge.pings(each, source.netns) for each in target.addresses)
    site.remove(one, other)


def test_twenty_pods_at_once(site: Site, network: Network) -> None:
    """Begun together, they all run with an address each; removed together."""
    network(ipMasq=True)
    with ThreadPoolExecutor(MANY) as executor:
        pods = list(executor.map(site.run, [f"pod{number}" for number in range(MANY)]))
        assert len({pod.addresses for pod in pods}) == MANY
        assert all(site.host_end(pod) and site.has_record(pod) for pod in pods)
        for pod in pods:
            assert judge.pings(pod.addresses[0])
        assert judge.pings(pods[0].addresses[0], pods[-1].netns)
        list(executor.map(site.remove, pods))


def test_stopped_twice(site: Site, network: Network) -> None:
    """The first stop releases everything, the second and the removal find nothing, and work."""
    network(ipMasq=True)
    pod = site.run("pod")
    site.runtime.stop(pod)
    assert not site.host_end(pod)
    assert not site.has_record(pod)
    assert not site.runtime.describe(pod)[0]
    site.runtime.stop(pod)
    site.remove(pod)


def test_killed_and_restarted(site: Site, network: Network) -> None:
    """Pods outlive their runtime; the next one knows them, starts others, and removes them all."""
    network()
    pod = site.run("pod")
    site.runtime.kill()
    assert judge.pings(pod.addresses[0])
    site.runtime.start()
    assert site.runtime.describe(pod) == (True, pod.addresses)
    other = site.run("other")
    assert judge.pings(pod.addresses[0], other.netns)
    site.remove(pod, other)


def test_agent_restarted(site: Site, network: Network) -> None:
    """Pods started with an agent, without one and with the next are removed by that."""
    assert site.agent
    network()
    first = site.run("first")
    site.agent.kill()
    went = len(site.in_process())
    second = site.run("second")
    assert site.in_process()[went:].count("ADD") == 1
    site.agent.start()
    third = site.run("third")
    for pod in (first, second, third):
        assert judge.pings(pod.addresses[0])
    went = len(site.in_process())
    site.remove(first, second, third)
    assert len(site.in_process()) == went


def test_namespace_gone(site: Site, network: Network) -> None:
    """The pod's namespace lost its name, as after a crash: stopping releases everything all the same."""
    network(ipMasq=True)
    pod = site.run("pod")
    judge.run("ip", "netns", "del", pod.netns)
    site.remove(pod)
    assert not site.host_end(pod)


def test_refused(site: Site, network: Network) -> None:
    """Without a free queue there is no pod; the user reads why, and the one that has it keeps it."""
    nic = site.node.nic()
    network(lease={"device": nic, "queues": "5"})
    pod = site.run("pod")
    before = judge.world()
    with pytest.raises(Refused, match=f"(?s)queue.*{nic}|{nic}.*queue"):
        site.run("other")
    judge.wait_for(lambda: judge.world() == before, "nothing is left of the other")
    assert sorted(judge.leases(nic)) == [5]
    site.remove(pod)


def test_network_status(site: Site, network: Network) -> None:
    """The network is ready; where the runtime asks the plugin, a missing NIC makes it not ready."""
    network()
    assert site.runtime.network_fault() == ""
    network(lease={"device": "absent0"})
    if site.runtime.newest == "1.0.0":
        assert site.runtime.network_fault() == ""
    else:
        judge.wait_for(lambda: "absent0" in site.runtime.network_fault(), "it is not ready")
    network()
    judge.wait_for(lambda: not site.runtime.network_fault(), "it is ready")


def socket_in(netns: str) -> socket.socket:
    """A TCP socket in a pod's namespace, made by a thread that is thrown away."""
    made: list[socket.socket] = []

    def enter() -> None:
        descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            assert libc.setns(descriptor, CLONE_NEWNET) == 0
        finally:
            os.close(descriptor)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    _in_a_thread(enter)
    made[0].settimeout(SECONDS)
    return made[0]


def _in_a_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
