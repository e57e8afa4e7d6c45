"""What the kernel refuses about leases comes out as an error that says whose fault it is.

The rows of the table are those of net/core/netdev-genl.c (netdev_nl_queue_create_doit()) and
drivers/net/netkit.c (netkit_queue_create()). What a configuration can cause is caused by one; the
rest by the step itself, acting on a world that has changed under it.
"""

import errno
import json
import subprocess
from collections.abc import Iterator

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.context import Context
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.outcome import Outcome
from cni_netkit.spec.errors import CNIError
from cni_netkit.state import Store
from cni_netkit.steps.lease import Leases
from tests.kernel import judge
from tests.kernel.conftest import Conf, Node, executable


@pytest.fixture
def context(node: Node) -> Iterator[Context]:
    """A container whose eth0 is a netkit peer with room for two leases; nk0 is its primary."""
    c = node.container()
    judge.run(
        *("ip", "link", "add", "nk0", "type", "netkit", "mode", "l3"),
        *("peer", "name", "eth0", "numrxqueues", "3", "netns", c),
    )
    host, container = Namespace.current(), Namespace.at(f"/run/netns/{c}")
    yield Context(
        attachment=Attachment("net", "c", "eth0"),
        host=host,
        container=container,
        ipam=None,
        store=Store(),
        record=None,
    )
    host.close()
    container.close()


def lease(context: Context, nic: str, count: int = 1, pool: tuple[int, ...] = (7, 6, 5)) -> Outcome:
    """Take a lease for eth0 of the container."""
    assert context.container is not None
    found = context.container.links.get(name="eth0")
    assert found is not None
    outcome = Outcome(container_index=found.index)
    Leases(nic, "eth0", count, pool).do(context, outcome)
    return outcome


def refusal(context: Context, nic: str, **more: object) -> CNIError:
    """The error of a lease that must fail."""
    with pytest.raises(CNIError) as caught:
        lease(context, nic, **more)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.once
def test_without_the_capability(node: Node, conf: Conf) -> None:
    """Without CAP_NET_ADMIN: error 104, EPERM, run as root."""
    nic, c = node.nic(), node.container()
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": f"/run/netns/{c}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        "PATH": "/usr/sbin:/usr/bin",
    }
    before = judge.world(c)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *executable()],
        input=json.dumps(conf(lease={"device": nic})).encode(),
        env=environment,
        capture_output=True,
    )
    assert done.returncode == 1
    error = json.loads(done.stdout)
    assert error["code"] == 104
    assert "EPERM" in error["msg"]
    assert "root" in error["details"]
    assert judge.world(c) == before


def test_nic_absent(node: Node, conf: Conf) -> None:
    """Error 102 names the device that lease.device asks for."""
    error = node.call("ADD", conf(lease={"device": "mlx9"}), node.container()).error
    assert error["code"] == 102
    assert "mlx9" in error["msg"]


def test_nic_vanishes_at_that_moment(context: Context) -> None:
    """The step itself finds no NIC: error 102."""
    assert refusal(context, "mlx9").code == 102


def test_device_absent(node: Node, context: Context) -> None:
    """ENODEV for the virtual device: error 102 with the kernel's errno."""
    nic = node.nic()
    with pytest.raises(CNIError) as caught:
        Leases(nic, "eth0", 1, (7,)).do(context, Outcome(container_index=4711))
    assert caught.value.code == 102
    assert "ENODEV" in caught.value.message


def test_unknown_namespace_id(node: Node, context: Context) -> None:
    """ENONET says that the NIC's namespace is not known by that id."""
    nic = node.nic()
    assert context.container is not None
    found, lessor = context.container.links.get(name="eth0"), context.host.links.get(name=nic)
    assert found is not None
    assert lessor is not None
    with pytest.raises(KernelError) as caught:
        context.container.queues.lease("lease queue 7", found.index, lessor.index, 7, 4711)
    assert caught.value.errno == errno.ENONET


def test_device_is_a_real_nic(node: Node, context: Context) -> None:
    """EINVAL "Device is not a virtual device": error 104 with the text."""
    nic = node.nic()
    other = node.nic()
    judge.run("ip", "link", "set", other, "netns", context.inside.netns.path)
    found = context.inside.links.get(name=other)
    assert found is not None
    with pytest.raises(CNIError) as caught:
        Leases(nic, other, 1, (7,)).do(context, Outcome(container_index=found.index))
    assert caught.value.code == 104
    assert "not a virtual device" in caught.value.message


def test_device_is_no_netkit(node: Node, context: Context) -> None:
    """EINVAL "Device does not support queue creation": error 104 with the text."""
    nic = node.nic()
    judge.run("ip", "link", "add", "d0", "netns", context.inside.netns.path, "type", "dummy")
    found = context.inside.links.get(name="d0")
    assert found is not None
    with pytest.raises(CNIError) as caught:
        Leases(nic, "d0", 1, (7,)).do(context, Outcome(container_index=found.index))
    assert caught.value.code == 104
    assert "does not support queue creation" in caught.value.message


@pytest.mark.parametrize("kind", ["dummy", "veth", "bridge"])
def test_nic_is_virtual(node: Node, conf: Conf, context: Context, kind: str) -> None:
    """Error 102, by the configuration and, should it slip through, by the kernel's word."""
    judge.run("ip", "link", "add", "v0", "type", kind)
    judge.run("ip", "link", "set", "v0", "up")
    error = node.call("ADD", conf(lease={"device": "v0"}), node.container()).error
    assert error["code"] == 102
    assert "virtual" in error["msg"]
    caught = refusal(context, "v0", pool=(0,))
    assert caught.code == 102
    assert "virtual device" in caught.message


def test_nic_without_queue_management(node: Node, conf: Conf) -> None:
    """A NIC whose driver cannot lend queues (here a virtual function): 102 from ADD, 50 from STATUS."""
    nic = node.virtual_function()
    c = node.container()
    before = judge.world(c)
    configuration = conf(lease={"device": nic, "queues": [0]})
    error = node.call("ADD", configuration, c).error
    assert error["code"] == 102
    assert "does not support queue management" in error["msg"]
    assert judge.world(c) == before
    assert node.call("STATUS", configuration).error["code"] == 50


def test_nic_is_down(node: Node, conf: Conf) -> None:
    """Error 102 says how to bring it up."""
    nic = node.nic(up=False)
    error = node.call("ADD", conf(lease={"device": nic}), node.container()).error
    assert error["code"] == 102
    assert error["details"] == f"ip link set {nic} up"


def test_queue_number_too_high(node: Node, conf: Conf, context: Context) -> None:
    """Error 102, by the configuration and by the kernel's ERANGE; STATUS says 50."""
    nic = node.nic(queues=4)
    configuration = conf(lease={"device": nic, "queues": "2-5"})
    error = node.call("ADD", configuration, node.container()).error
    assert error["code"] == 102
    assert "4 receive queues" in error["msg"]
    assert "4, 5" in error["msg"]
    assert node.call("STATUS", configuration).error["code"] == 50
    caught = refusal(context, nic, pool=(5,))
    assert caught.code == 102
    assert "ERANGE" in caught.message


def test_queue_taken_by_a_lease(node: Node, conf: Conf, context: Context) -> None:
    """EBUSY moves on to the next queue; with none left it is error 101 that names the holder."""
    nic, c = node.nic(), node.container()
    node.add(conf(lease={"device": nic}), c)
    error = refusal(context, nic, pool=(7,))
    assert error.code == 101
    assert f"queue 7 is held by eth0 of container container-{c}" in error.details
    assert lease(context, nic, pool=(7, 6)).leases == [[6, 1]]


def test_second_nic(node: Node, context: Context) -> None:
    """All leases of a device come from one NIC: error 104 with the kernel's text."""
    one, two = node.nic(), node.nic()
    lease(context, one)
    error = refusal(context, two)
    assert error.code == 104
    assert "Leasing queues from different devices not supported" in error.message
    assert "one NIC" in error.details


def test_primary_of_a_pair(node: Node, context: Context) -> None:
    """Only the peer end leases: error 104 with the kernel's text."""
    nic = node.nic()
    judge.run("ip", "link", "set", "nk0", "netns", context.inside.netns.path)
    found = context.inside.links.get(name="nk0")
    assert found is not None
    with pytest.raises(CNIError) as caught:
        Leases(nic, "nk0", 1, (7,)).do(context, Outcome(container_index=found.index))
    assert caught.value.code == 104
    assert "netkit can only lease against the peer device" in caught.value.message


def test_more_leases_than_the_device_has_room_for(node: Node, context: Context) -> None:
    """num_rx_queues is the limit: error 104 with the kernel's text."""
    nic = node.nic()
    error = refusal(context, nic, count=3, pool=(7, 6, 5))
    assert error.code == 104
    assert "maximum queue limit reached" in error.message
