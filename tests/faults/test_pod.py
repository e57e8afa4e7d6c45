"""A pod that is root in its namespace plays pranks: it harms nobody else, and is got rid of all the same."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.kernel import judge
from tests.kernel.conftest import DUAL_STACK, JSON, Conf, Node

KINDS: dict[str, JSON] = {
    "l3 pair": {"ipMasq": True},
    "l2 pair": {"mode": "l2"},
    "pair with a lease": {"lease": {"count": 1}},
    "single": {"pairing": "single"},
    "single with leases": {"pairing": "single", "lease": {"count": 2}},
}
PRANKS = {
    "renames its device": "ip link set eth0 down; ip link set eth0 name x0",
    "puts another in its place": """
        ip link set eth0 down; ip link set eth0 name x0; ip link add eth0 type dummy""",
    "deletes its device": "ip link delete eth0",
    "puts one with its mark in its place": """
        ip link delete eth0; ip link add eth0 type dummy; ip link set eth0 alias "$OWN" """,
    "wears the mark of another": 'ip link set eth0 alias "$OTHER"',
    "wears no mark": 'ip link set eth0 alias ""',
    "plants devices with the marks of others": """
        for i in $(seq 40); do ip link add d$i type dummy; ip link set d$i alias "$OTHER"; done""",
    "plants a pair with the mark of another": """
        ip link add "$DEVICE" type netkit peer name p0; ip link set "$DEVICE" alias "$OTHER" """,
    "goes by another name": """
        ip link set eth0 down; ip link set eth0 name x0; ip link add d0 type dummy
        ip link property add dev d0 altname eth0; ip link property add dev d0 altname "$DEVICE" """,
    "takes its addresses off": """
        ip link set eth0 down; ip link set eth0 mtu 1280; ip address flush dev eth0
        ip address add 10.1.0.200/24 dev eth0""",
    "hides it in a namespace of its own": "ip link set eth0 netns $HIDDEN",
    "puts it under another": """
        ip link add br0 type bridge; ip link set eth0 master br0; ip link set br0 up; true""",
    "routes for others": """
        ip route replace "$VICTIM" dev eth0; ip address add "$VICTIM" dev lo""",
}


@dataclass
class Pod:
    """A container, its configuration, and what its ADD brought."""

    name: str
    conf: JSON
    result: JSON

    @property
    def mark(self) -> str:
        """What stands on its devices."""
        return f"cni-netkit net container-{self.name} eth0"


def attached(node: Node, conf: Conf, nic: str, kind: str) -> Pod:
    """A new container of a kind."""
    keys = dict(KINDS[kind])
    if "lease" in keys:
        keys["lease"] = {**keys["lease"], "device": nic}
    configuration, name = conf(ipam=DUAL_STACK, **keys), node.container()
    return Pod(name, configuration, node.add(configuration, name))


@contextmanager
def hidden_namespace() -> Iterator[str]:
    """A namespace without a name, that a process is in; the process."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as process:
        own = os.stat("/proc/self/ns/net").st_ino
        judge.wait_for(
            lambda: os.stat(f"/proc/{process.pid}/ns/net").st_ino != own, "it has left ours"
        )
        try:
            yield str(process.pid)
        finally:
            process.kill()


def play(prank: str, pod: Pod, other: Pod, hidden: str) -> None:
    """As root of the pod's namespace."""
    alias = next((each.get("ifalias") for each in judge.ip("link", netns=other.name)), None)
    environment = {
        "PATH": os.environ["PATH"],
        "OWN": pod.mark,
        "OTHER": alias or other.mark,
        "DEVICE": other.result["interfaces"][0]["name"],
        "VICTIM": other.result["ips"][0]["address"].partition("/")[0],
        "HIDDEN": hidden,
    }
    subprocess.run(
        ["ip", "netns", "exec", pod.name, "sh", "-euc", prank], env=environment, check=True
    )


@pytest.mark.parametrize("prank", PRANKS)
def test_prank(node: Node, conf: Conf, prank: str, long: bool) -> None:
    """CHECK tells, DEL and GC work, and nothing that is another's changes; in the end nothing is left."""
    nic = node.nic()
    begin = judge.world()
    others = [attached(node, conf, nic, each) for each in ("l3 pair", "single with leases")]
    names = [each.name for each in others]
    before = judge.world(*names)
    valid = [{"containerID": f"container-{name}", "ifname": "eth0"} for name in names]
    for kind in KINDS if long else random.sample(list(KINDS), 2):
        pod = attached(node, conf, nic, kind)
        with hidden_namespace() as hidden:
            for other in others:
                # Where a kind does not allow it, the prank ends there.
                with suppress(subprocess.CalledProcessError):
                    play(PRANKS[prank], pod, other, hidden)
            answer = node.check(pod.conf, pod.name, pod.result)
            assert answer.status == 0 or answer.error["code"] == 105, kind
            for other in others:
                assert node.check(other.conf, other.name, other.result).ok, kind
            assert node.call("DEL", pod.conf, pod.name).ok, kind
            assert node.call("DEL", pod.conf, "", cid=f"container-{pod.name}").ok, kind
            assert node.call("GC", {**pod.conf, "cni.dev/valid-attachments": valid}).ok, kind
            assert judge.world(*names) == before, kind
            for other in others:
                assert node.check(other.conf, other.name, other.result).ok, kind
            assert judge.pings(others[0].result["ips"][0]["address"].partition("/")[0])
    assert node.call("GC", {**pod.conf, "cni.dev/valid-attachments": []}).ok
    assert judge.world() == begin
