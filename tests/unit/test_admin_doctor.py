"""cni-netkit doctor: verdicts that follow from what was found."""

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import doctor, launcher, leases, verdicts
from cni_netkit.agent import server
from cni_netkit.facts import Nic
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Queue
from cni_netkit.nics import prepare
from cni_netkit.nics.state import NicState
from cni_netkit.plan import LACKING
from tests.unit.test_admin_leases import DOWN, ETH7
from tests.unit.test_admin_list import documented, fields
from tests.unit.test_nics import NIC, preparation

EVERYTHING = frozenset(LACKING)
FREE = replace(ETH7, queues=tuple(Queue(number) for number in range(4)))
USED_UP = replace(ETH7, queues=(Queue(0), Queue(1, user="AF_XDP")))
UNABLE = replace(
    ETH7, refusal=KernelError("see whether eth7 lends queues", 95, "lease device is virtual")
)


def looked(*nics: Nic) -> list[doctor.Looked]:
    """NICs that all are like the one of test_nics."""
    return [(nic, replace(NIC, link=nic.link)) for nic in nics]


def judge(features: frozenset[str], *nics: Nic) -> dict[str, Any]:
    """The verdicts on a node's uses, by what they are about."""
    return {each["about"]: each for each in verdicts.of_uses(features, nics, needed=True)}


def test_a_node_that_can_do_everything() -> None:
    found = judge(EVERYTHING, FREE)
    assert {about: each["ok"] for about, each in found.items()} == {
        "pair (l3, l2)": True,
        "single": True,
        "queues of eth7": True,
    }
    assert {each["command"] for each in found.values()} == {None}


@pytest.mark.parametrize(
    ("lacking", "cannot"),
    [
        (
            {"netkit", "scrub", "single", "queue-create"},
            {"pair (l3, l2)", "single", "queues of eth7"},
        ),
        ({"single", "queue-create"}, {"single", "queues of eth7"}),
        ({"queue-create"}, {"queues of eth7"}),
        ({"scrub"}, set()),
    ],
    ids=str,
)
def test_what_the_kernel_lacks(lacking: set[str], cannot: set[str]) -> None:
    """Each verdict says since when there is what it needs."""
    found = judge(EVERYTHING - lacking, FREE)
    assert {about for about, each in found.items() if not each["ok"]} == cannot
    for about in cannot:
        assert "in Linux since" in found[about]["reason"]
        assert "uname -r" in found[about]["command"]
    made = doctor.report(EVERYTHING - lacking, looked(FREE), found.values())
    assert made["ok"] == ("netkit" not in lacking)
    present = {each["name"]: each["present"] for each in made["kernel"]["features"]}
    assert present == {name: name not in lacking for name in LACKING}


@pytest.mark.parametrize(
    ("nic", "reason", "remedy", "command"),
    [
        (DOWN, "eth8 is down", "bring it up", "ip link set eth8 up"),
        (UNABLE, "lease device is virtual", "must be a physical NIC", "ethtool -i eth7"),
        (USED_UP, "of 2 receive queues", "give the NIC more queues", "cni-netkit leases"),
    ],
    ids=["down", "unable", "used up"],
)
def test_a_nic_that_cannot_lend(nic: Nic, reason: str, remedy: str, command: str) -> None:
    """What to do is told; the node is well all the same."""
    found = judge(EVERYTHING, nic)
    said = found[f"queues of {nic.link.name}"]
    assert not said["ok"]
    assert reason in said["reason"]
    assert remedy in said["remedy"]
    assert said["command"] == command
    assert doctor.report(EVERYTHING, looked(nic), found.values())["ok"]


ZERO_COPY = replace(NIC, link=FREE.link, xdp_features=prepare.ZERO_COPY)
IO_URING = replace(FREE, preparation=preparation(device="eth7", queues="2-3"))
AF_XDP = replace(FREE, preparation=preparation(device="eth7", queues="2-3", role="af_xdp"))
COMMAND = "cni-netkit nic prepare eth7 --role"


@pytest.mark.parametrize(
    ("nic", "state", "io_uring", "af_xdp"),
    [
        (FREE, ZERO_COPY, f"{COMMAND} io_uring --queues 2-3", f"{COMMAND} af_xdp --queues 2-3"),
        (FREE, NIC, f"{COMMAND} io_uring --queues 2-3", "it lacks basic, ndo-xmit, redirect, xsk"),
        (IO_URING, ZERO_COPY, None, 'is prepared for "io_uring", not for "af_xdp"'),
        (AF_XDP, ZERO_COPY, 'is prepared for "af_xdp", not for "io_uring"', None),
        (
            replace(IO_URING, lacking=("header-data split is off, needed: on",)),
            NIC,
            f"{COMMAND} io_uring --queues 2-3",
            "it lacks",
        ),
        (UNABLE, ZERO_COPY, "lease device is virtual", "lease device is virtual"),
    ],
    ids=["not prepared", "no zero copy", "io_uring", "af_xdp", "no longer", "lends none"],
)
def test_workloads(nic: Nic, state: NicState, io_uring: str | None, af_xdp: str | None) -> None:
    """For each NIC a verdict on each, with the command to type where one helps."""
    found = {each["about"]: each for each in verdicts.of_workloads(EVERYTHING, nic, state)}
    assert set(found) == {"io_uring on eth7", "af_xdp on eth7"}
    for about, expected in (("io_uring", io_uring), ("af_xdp", af_xdp)):
        said = found[f"{about} on eth7"]
        assert said["ok"] == (expected is None)
        assert not said["needed"]
        assert (expected or "") in f"{said['reason']} {said['command']}"


def test_counts_of_a_nic() -> None:
    """Leased and free; what is bound to something is neither."""
    (nic,) = doctor.report(EVERYTHING, looked(ETH7), [])["nics"]
    assert (nic["rxQueues"], nic["leased"], nic["free"]) == (6, 3, 1)
    (nic,) = doctor.report(EVERYTHING, looked(DOWN), [])["nics"]
    assert (nic["rxQueues"], nic["up"]) == (None, False)


def test_driver_and_numa_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As sysfs has them (Documentation/ABI); -1 is no node."""
    monkeypatch.setattr(leases, "SYSFS", tmp_path)
    (tmp_path / "mlx5_core").mkdir()
    for name, node in (("eth7", "1\n"), ("eth8", "-1\n")):
        (tmp_path / name / "device").mkdir(parents=True)
        (tmp_path / name / "device" / "driver").symlink_to(tmp_path / "mlx5_core")
        (tmp_path / name / "device" / "numa_node").write_text(node)
    found = doctor.report(EVERYTHING, looked(ETH7, DOWN), [])["nics"]
    assert [(nic["driver"], nic["numaNode"]) for nic in found] == [
        ("mlx5_core", 1),
        ("mlx5_core", None),
    ]


def test_the_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found where it listens, and it minds nothing; else where it was looked for."""
    path = f"{tmp_path}/agent.sock"
    monkeypatch.setenv("CNI_NETKIT_SOCKET", path)
    missing = verdicts.of_agent()
    assert (missing["ok"], missing["needed"]) == (False, False)
    assert f"connect to {path}: No such file" in missing["reason"]
    assert missing["command"].startswith("systemctl start cni-netkit-agent.socket")
    with server.listen(path) as listener:
        agent = server.Agent(listener)
        serving = threading.Thread(target=agent.serve)
        serving.start()
        try:
            assert verdicts.of_agent()["ok"]
        finally:
            agent.stop()
            serving.join()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/dead.sock")
    monkeypatch.setenv("CNI_NETKIT_SOCKET", f"{tmp_path}/dead.sock")
    assert "Connection refused" in verdicts.of_agent()["reason"]


def test_the_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Built, or not."""
    monkeypatch.setattr(launcher, "LAUNCHER", tmp_path / "netkit")
    assert "no C compiler" in verdicts.of_launcher()["reason"]
    (tmp_path / "netkit").touch()
    assert verdicts.of_launcher()["ok"]


def test_every_field_is_documented() -> None:
    """And there is none in the document that is not in the output."""
    made = doctor.report(
        EVERYTHING, looked(UNABLE), verdicts.of_uses(EVERYTHING, [UNABLE], needed=True)
    )
    assert fields(json.loads(json.dumps(made))) == documented("doctor")


def test_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every "no" has its reason, its remedy and its command, each whole on a line of its own."""
    monkeypatch.setenv("COLUMNS", "20")
    doctor._print(doctor.report(EVERYTHING, looked(DOWN), judge(EVERYTHING, DOWN).values()))
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["eth8", "-", "no", "1500", "-", "-", "0", "0"] in lines
    assert ["queues", "of", "eth8", "no"] in lines
    assert ["pair", "(l3,", "l2)", "yes"] in lines
    explained = text[text.index("\nqueues of eth8: ") :].splitlines()[1:]
    assert explained == [
        "queues of eth8: lease.device: eth8 is down, its queues cannot be seen",
        "    bring it up",
        "    $ ip link set eth8 up",
    ]
