"""Whatever runs on a node is killed, or the node itself: all converge, and nothing stays behind."""

import signal
from collections.abc import Callable

import pytest

from tests.cluster.cluster import READY, Cluster, addresses_of, wait_for
from tests.cluster.left import nothing_left
from tests.cluster.machine import Machine

AGENT = "cni-netkit agent"
NODE = "cni-netkit node"


def kubelet(machine: Machine) -> None:
    machine.kubelet.end(signal.SIGKILL)
    machine.kubelet.start()


def containerd(machine: Machine) -> None:
    machine.containerd.kill()
    machine.containerd.start()


def killed(command: str) -> Callable[[Machine], None]:
    def kill(machine: Machine) -> None:
        before = processes(machine, command)
        assert before, f"no {command} runs on {machine.name}"
        machine.run("pkill", "-KILL", "-f", command)
        wait_for(
            lambda: (now := processes(machine, command)) and not now & before,
            f"{command} runs again",
            READY,
        )

    return kill


def reboot(machine: Machine) -> None:
    machine.power_off()
    machine.boot()
    machine.start()


def processes(machine: Machine, command: str) -> set[str]:
    return set(machine.run("pgrep", "-f", command, check=False).split())


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(kubelet, id="kubelet"),
        pytest.param(containerd, id="containerd"),
        pytest.param(killed(AGENT), id="agent"),
        pytest.param(killed(NODE), id="node"),
        pytest.param(reboot, id="reboot"),
    ],
)
def test_restarted(cluster: Cluster, happens: Callable[[Machine], None]) -> None:
    """A pod that was there is reached afterwards, or comes back; a new one is reached; all of it goes."""
    one, two, _ = cluster.machines.values()
    names = [cluster.create_pod(each.name) for each in (one, two)]
    pods = cluster.running(names)
    happens(two)
    wait_for(lambda: two.name in cluster.ready(), f"{two.name} is ready", READY)
    names.append(cluster.create_pod(two.name))
    cluster.running(names, READY)

    def reached() -> bool:
        pods.update(cluster.running(names, READY))
        inside = cluster.namespace_of(one, addresses_of(pods[names[0]])[0])
        others = [address for name in names[1:] for address in addresses_of(pods[name])]
        assert len(set(others)) == 4
        return all(cluster.ping(one, inside, each) for each in others)

    # After a reboot the kubelet needs a while to see that what it knew of is gone.
    wait_for(reached, "all pods are reached", READY)
    cluster.delete_pods(names)
    wait_for(lambda: nothing_left([two]), f"nothing is left on {two.name}")
