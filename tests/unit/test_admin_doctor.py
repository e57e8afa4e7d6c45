"""cni-netkit doctor: verdicts that follow from what was found."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import facts, sockets
from cni_netkit.admin import advice, doctor, launcher, leases, verdicts
from cni_netkit.agent import server
from cni_netkit.facts import Nic
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.model import Queue
from cni_netkit.nics import prepare
from cni_netkit.nics.state import NicState
from cni_netkit.plan import LACKING
from tests.unit.given import terminal
from tests.unit.test_admin_leases import DOWN, ETH7
from tests.unit.test_admin_list import documented, fields
from tests.unit.test_nics import NIC, preparation
from tests.unit.test_server import served

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
    monkeypatch.setattr(facts, "SYSFS", tmp_path)
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


def test_the_agent_logs_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often somebody asks what there is."""
    path = f"{tmp_path}/agent.sock"
    monkeypatch.setenv("CNI_NETKIT_SOCKET", path)
    with server.listen(path) as listener, served(listener):
        for _ in range(3):
            assert verdicts.of_agent()["ok"]
    assert capsys.readouterr().err == ""


def test_an_agent_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket that somebody holds is no agent yet: systemd's is there before it can start."""
    path = f"{tmp_path}/agent.sock"
    monkeypatch.setenv("CNI_NETKIT_SOCKET", path)
    monkeypatch.setattr(verdicts, "AGENT_SECONDS", 0.1)
    with server.listen(path):
        said = verdicts.of_agent()
    assert said["reason"] == f"ask the agent at {path}: the answer was not received in time"
    assert said["command"] == "journalctl -u cni-netkit-agent.service"


def test_an_agent_that_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own words are told."""
    path = f"{tmp_path}/agent.sock"
    monkeypatch.setenv("CNI_NETKIT_SOCKET", path)
    monkeypatch.setattr(sockets, "peer", lambda _: (os.getpid(), 65534))
    with server.listen(path) as listener, served(listener):
        said = verdicts.of_agent()
    assert said["reason"] == f"the agent at {path} refuses: only root may use the agent"


def test_the_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found where it listens, and it minds nothing; else where it was looked for."""
    path = f"{tmp_path}/agent.sock"
    monkeypatch.setenv("CNI_NETKIT_SOCKET", path)
    missing = verdicts.of_agent()
    assert (missing["ok"], missing["needed"]) == (False, False)
    assert f"connect to {path}: No such file" in missing["reason"]
    assert missing["command"].startswith("systemctl start cni-netkit-agent.socket")
    with server.listen(path) as listener, served(listener):
        assert verdicts.of_agent()["ok"]
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


def explained(monkeypatch: pytest.MonkeyPatch, judged: list[dict[str, Any]]) -> list[str]:
    """What is printed below the tables, on 80 columns."""
    screen = terminal(monkeypatch)
    advice.print_advice(judged)
    assert all(len(line) <= 80 or line.startswith("    $ ") for line in screen.lines())
    return screen.lines()


def test_a_remedy_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a kernel without netkit; with what it is for. A veth pair is proposed for a pair alone."""
    judged = [
        *verdicts.of_uses(frozenset(), [FREE], needed=True),
        *verdicts.of_workloads(frozenset(), FREE, ZERO_COPY),
    ]
    command = '    $ uname -r; grep CONFIG_NETKIT "/boot/config-$(uname -r)"'
    assert explained(monkeypatch, judged) == [
        "",
        "pair (l3, l2): this kernel has no netkit devices (CONFIG_NETKIT), which type",
        '"netkit" needs (in Linux since 6.7)',
        '    build the kernel with CONFIG_NETKIT=y, or set fallback to "veth"',
        command,
        "",
        "single, queues of eth7, io_uring on eth7, af_xdp on eth7: this kernel has no",
        'netkit devices (CONFIG_NETKIT), which type "netkit" needs (in Linux since 6.7)',
        "    run Linux 7.1 or later, built with CONFIG_NETKIT=y",
        command,
    ]


def test_commands_of_one_remedy_stand_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each for what it names; reasons that differ are told each."""
    judged = [*verdicts.of_workloads(EVERYTHING, FREE, ZERO_COPY), verdicts.verdict("single")]
    assert explained(monkeypatch, judged) == [
        "",
        'io_uring on eth7: lease.workload: eth7 is not prepared for "io_uring"',
        'af_xdp on eth7: lease.workload: eth7 is not prepared for "af_xdp"',
        "    prepare the NIC for one role, once; this can interrupt its traffic for a",
        "    moment",
        "    $ cni-netkit nic prepare eth7 --role io_uring --queues 2-3",
        "    $ cni-netkit nic prepare eth7 --role af_xdp --queues 2-3",
    ]


CONFLIST = "/etc/cni/net.d/10.conflist"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ([verdicts.verdict(f"{CONFLIST}: plugin 0", needed=True)], ["works here"]),
        (
            [
                verdicts.verdict(f"{CONFLIST}: plugin 0", needed=True),
                verdicts.verdict(
                    f"{CONFLIST}: plugin 2", needed=True, reason="no eth9", remedy="get one"
                ),
            ],
            ["does not work here", "", "plugin 2: no eth9", "    get one"],
        ),
        (
            [verdicts.verdict(CONFLIST, needed=True, reason=f"read {CONFLIST}: No such file")],
            ["does not work here", "", f"the file: read {CONFLIST}: No such file"],
        ),
    ],
    ids=["works", "does not", "is not there"],
)
def test_what_was_asked_is_answered_first(
    monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]], answer: list[str]
) -> None:
    """And not again among the verdicts on the node, which has faults of its own."""
    screen = terminal(monkeypatch)
    node = [verdicts.verdict("agent", reason="there is none")]
    doctor._print(doctor.report(EVERYTHING, [], [*node, *asked]), CONFLIST)
    lines = screen.lines()
    assert lines[: len(answer) + 1] == [f"{CONFLIST}: {answer[0]}", *answer[1:], ""]
    assert "plugin" not in "".join(lines[len(answer) :])
    assert lines[-1] == "agent: there is none"


def test_without_a_nic(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in the place of the table."""
    screen = terminal(monkeypatch, 140)
    doctor._print(doctor.report(EVERYTHING, [], []))
    assert leases.NO_NIC in screen.lines()
