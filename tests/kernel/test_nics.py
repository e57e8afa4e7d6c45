"""NICs with a role: prepared, verified by ADD and STATUS, put back; cut off at any point."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.kernel.model import FlowRule
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics import record, settings
from cni_netkit.nics.prepare import prepare, restore, to_change
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.nics import Preparation
from tests.ethtool.fake import FakeNic
from tests.kernel import judge
from tests.kernel.conftest import Command, Conf, Node

KILLED = 9
IO_URING = {"role": "io_uring", "queues": "4-7"}
AF_XDP = {"role": "af_xdp", "queues": "4-7", "copy": True}


def wanted(nic: str, **keys: Any) -> Preparation:
    """A preparation."""
    return Preparation.model_validate({"device": nic, **keys})


def seen(nic: str) -> Any:
    """All that preparing may change, as others see it."""
    (link,) = judge.ip("link", "show", "dev", nic)
    pins = Path("/sys/fs/bpf/cni-netkit", nic)
    return {
        **judge.rings(nic),
        "channels": judge.channels(nic),
        "xdp": link.get("xdp", {}).get("mode"),
        "pins": sorted(path.name for path in pins.glob("*")),
        "record": [json.loads(text) for text in judge.files("/var/lib/cni/netkit/nics").values()],
    }


def test_io_uring_is_arranged_and_put_back(node: Node, host: Namespace) -> None:
    """Header-data split explicitly on, threshold 0, channels and ring as asked; then as before."""
    nic = node.nic(16)
    judge.set_rings(nic, tcp_data_split=1, hds_thresh=100)
    before = seen(nic)
    changes = prepare(host, wanted(nic, role="io_uring", queues="8-11", channels=12, ring=256))
    assert {change.key for change in changes} == {
        "role",
        "queues",
        "channels",
        "ring",
        "tcpDataSplit",
        "hdsThresh",
    }
    found = seen(nic)
    assert (found["tcp_data_split"], found["hds_thresh"], found["rx"]) == (2, 0, 256)
    assert found["channels"]["combined"] == 12
    restore(host, nic)
    assert seen(nic) == before


def test_what_is_right_is_not_touched(node: Node, host: Namespace) -> None:
    """The second time nothing is changed; and what was before the first time is not forgotten."""
    nic = node.nic()
    judge.set_rings(nic, tcp_data_split=1, hds_thresh=100)
    before = seen(nic)
    assert prepare(host, wanted(nic, **IO_URING))
    after = seen(nic)
    assert to_change(host, wanted(nic, **IO_URING)) == []
    assert prepare(host, wanted(nic, **IO_URING)) == []
    assert seen(nic) == after
    assert [str(each) for each in prepare(host, wanted(nic, **IO_URING, ring=128))] == [
        f"receive ring: {before['rx']} -> 128"
    ]
    restore(host, nic)
    assert seen(nic) == before


def test_another_pool_is_a_change(node: Node, host: Namespace, cni_netkit: Command) -> None:
    """Said as others are, where no setting of the NIC follows from it; and done."""
    nic = node.nic()
    options = ("nic", "prepare", nic, "--role", "af_xdp", "--copy", "--queues")
    first = cni_netkit(*options, "4-7")
    for words in ("role: none -> af_xdp", "pool for containers: none -> queues 4-7"):
        assert f"    {words}\n" in first
    assert "    copying: no -> yes\n" in first
    assert cni_netkit(*options, "4-7") == (
        f"{nic} for af_xdp, queues 4-7: nothing to change\nprepared\n"
    )
    said = f"{nic} for af_xdp, queues 2-7:\n    pool for containers: queues 4-7 -> queues 2-7\n"
    changes = [{"key": "queues", "found": [4, 5, 6, 7], "wanted": [2, 3, 4, 5, 6, 7]}]
    before = seen(nic)
    assert cni_netkit(*options, "2-7", "--dry-run") == said
    planned = cni_netkit.json(*options, "2-7", "--dry-run")
    assert planned == {"device": nic, "done": False, "changes": changes}
    assert seen(nic) == before
    assert cni_netkit.json(*options, "2-7") == planned | {"done": True}
    assert seen(nic)["record"][0]["preparation"]["queues"] == [2, 3, 4, 5, 6, 7]
    cni_netkit(*options, "4-7")
    assert cni_netkit(*options, "2-7") == f"{said}prepared\n"
    restored = cni_netkit("nic", "restore", nic)
    for words in ("role: af_xdp -> none", "pool for containers: queues 2-7 -> none"):
        assert f"    {words}\n" in restored


def test_what_was_cut_off_was_for_nothing(node: Node, host: Namespace) -> None:
    """Prepared again, the role is a change; no role is given up where there was none."""
    nic = node.nic(16)
    preparation = wanted(nic, **IO_URING, channels=12)
    assert killed_at(1, preparation)
    (found,) = (each for each in to_change(host, preparation) if each.key == "role")
    assert (found.found, found.wanted) == (None, "io_uring")
    assert "role" not in {each.key for each in restore(host, nic).changed}


def test_a_drivers_default_is_made_explicit(node: Node, host: Namespace, tmp_path: Path) -> None:
    """netdevsim splits by default, which the kernel does not count: whether XDP is taken shows it."""
    nic = node.nic()
    assert judge.rings(nic)["tcp_data_split"] == 2
    assert takes_xdp(nic, tmp_path)
    changes = prepare(host, wanted(nic, **IO_URING))
    change = "header-data split: on, perhaps as the driver's default -> on, explicitly"
    assert change in map(str, changes)
    assert not takes_xdp(nic, tmp_path)
    restore(host, nic)
    assert judge.rings(nic)["tcp_data_split"] == 2
    assert takes_xdp(nic, tmp_path)


def takes_xdp(nic: str, folder: Path) -> bool:
    """Whether the kernel takes a program for whole frames; it does not beside explicit splitting."""
    source, program = folder / "pass.c", folder / "pass.o"
    source.write_text('__attribute__((section("xdp"), used)) int pass(void *x) { return 2; }')
    judge.run("clang", "-O2", "-target", "bpf", "-c", str(source), "-o", str(program))
    done = subprocess.run(
        ["ip", "link", "set", nic, "xdpdrv", "obj", str(program), "sec", "xdp"],
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        judge.run("ip", "link", "set", nic, "xdpdrv", "off")
        return True
    assert "tcp-data-split" in done.stderr, done.stderr
    return False


def test_what_somebody_else_changed_since_is_left(node: Node, host: Namespace) -> None:
    """Restoring is of our own changes only."""
    nic = node.nic()
    judge.set_rings(nic, tcp_data_split=1, hds_thresh=100)
    prepare(host, wanted(nic, **IO_URING))
    judge.set_rings(nic, hds_thresh=300)
    assert [each.setting.key for each in restore(host, nic).left] == ["hdsThresh"]
    assert judge.rings(nic)["hds_thresh"] == 300
    assert judge.rings(nic)["tcp_data_split"] == 1


@pytest.mark.once
@pytest.mark.parametrize("role", [IO_URING, AF_XDP], ids=["io_uring", "af_xdp"])
def test_killed_at_any_point_then_prepared_again_or_restored(
    node: Node, host: Namespace, role: dict[str, Any]
) -> None:
    """Between any two of: writing the record, changing a setting."""
    nic = node.nic(16)
    judge.set_rings(nic, tcp_data_split=1, hds_thresh=100)
    before = seen(nic)
    preparation = wanted(nic, **role, channels=12, ring=256)
    prepare(host, preparation)
    prepared = seen(nic)
    restore(host, nic)
    points = 0
    while killed_at(points, preparation):
        restore(host, nic)
        assert seen(nic) == before, f"restored after {points}"
        assert killed_at(points, preparation)
        prepare(host, preparation)
        assert seen(nic) == prepared, f"prepared after {points}"
        assert to_change(host, preparation) == []
        restore(host, nic)
        assert seen(nic) == before, f"restored after preparing after {points}"
        points += 1
    assert points > 8
    restore(host, nic)
    assert seen(nic) == before


def test_restored_after_a_program_was_half_attached(
    node: Node, host: Namespace, xdp_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the map was pinned and the NIC had no program yet: the pin goes, too."""
    from cni_netkit.kernel.bpf.xdp import Xdp

    nic = node.nic()
    before = seen(nic)
    monkeypatch.setattr(Xdp, "_create_link", dying(Xdp._create_link, iter(())))
    assert killed_at(99, wanted(nic, **AF_XDP))
    assert seen(nic)["pins"] == ["xsks"]
    restore(host, nic)
    assert seen(nic) == before


def killed_at(point: int, preparation: Preparation) -> bool:
    """Prepare in a process that dies before its so many-th write or change; False: it did not."""
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                counted = iter(range(point))
                for owner, name in places():
                    patch.setattr(owner, name, dying(getattr(owner, name), counted))
                own = Namespace.current()
                prepare(own, preparation)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED), status
    return status == KILLED


def places() -> Iterator[tuple[Any, str]]:
    """What preparing does to the world."""
    yield record.NicStore, "save"
    from cni_netkit.kernel.bpf.xdp import Xdp
    from cni_netkit.kernel.ethtool.family import Ethtool

    for name in ("set_rings", "set_channels", "set_feature", "set_indirection"):
        yield Ethtool, name
    yield Xdp, "attach"


def dying(function: Callable[..., Any], counted: Iterator[int]) -> Callable[..., Any]:
    """The function; but when nothing is left to count the process dies in its place."""

    def instead(*arguments: Any, **named: Any) -> Any:
        if next(counted, None) is None:
            os._exit(KILLED)
        return function(*arguments, **named)

    return instead


def test_a_refusal_names_the_drivers_words_and_undoes_the_rest(node: Node, host: Namespace) -> None:
    """A ring larger than the driver has; channels were changed before it."""
    nic = node.nic(16)
    before = seen(nic)
    with pytest.raises(CNIError) as caught:
        prepare(host, wanted(nic, **IO_URING, channels=12, ring=1 << 20))
    assert caught.value.code == 104
    assert "requested ring size exceeds maximum" in caught.value.message
    assert nic in caught.value.message
    assert seen(nic) == before


def test_a_nic_has_one_role(node: Node, host: Namespace) -> None:
    """Another is refused, with the command that clears the way."""
    nic = node.nic()
    prepare(host, wanted(nic, **IO_URING))
    after = seen(nic)
    with pytest.raises(CNIError) as caught:
        prepare(host, wanted(nic, **AF_XDP))
    assert caught.value.code == 103
    assert caught.value.details == f"cni-netkit nic restore {nic}"
    assert seen(nic) == after
    restore(host, nic)
    prepare(host, wanted(nic, **AF_XDP))
    assert seen(nic)["pins"]


def test_header_data_split_gives_way_to_xdp(node: Node, host: Namespace) -> None:
    """It would put frames into two pieces: off with the program, and as it was without."""
    nic = node.nic()
    judge.set_rings(nic, tcp_data_split=2)
    before = seen(nic)
    prepare(host, wanted(nic, **AF_XDP))
    found = seen(nic)
    assert (found["tcp_data_split"], bool(found["xdp"])) == (1, True)
    restore(host, nic)
    assert seen(nic) == before


FakeNics = Callable[..., FakeNic]


@pytest.mark.parametrize("role", [IO_URING, AF_XDP], ids=["io_uring", "af_xdp"])
def test_rss_spares_the_pool_and_rules_are_on(
    node: Node, host: Namespace, fake_nic: FakeNics, role: dict[str, Any]
) -> None:
    """The driver's own table becomes one over the other queues, and is reset in the end."""
    nic = node.nic()
    fake = fake_nic(nic, ntuple=False)
    size = len(fake.table)
    assert fake.table == [number % 8 for number in range(size)]
    prepare(host, wanted(nic, **role))
    assert fake.table == [number % 4 for number in range(size)]
    assert fake.ntuple
    assert prepare(host, wanted(nic, **role)) == []
    assert {"rss", "ntuple"} <= {each.key for each in restore(host, nic).changed}
    assert fake.table == [number % 8 for number in range(size)]
    assert not fake.ntuple


def test_a_table_that_somebody_set_is_put_back(
    node: Node, host: Namespace, fake_nic: FakeNics
) -> None:
    """Place by place; one that spares the pool already is not touched."""
    nic = node.nic()
    fake = fake_nic(nic)
    size = len(fake.table)
    before = fake.table = [(0, 5, 5, 2)[number % 4] for number in range(size)]
    prepare(host, wanted(nic, **IO_URING))
    assert set(fake.table) == {0, 1, 2, 3}
    restore(host, nic)
    assert fake.table == before
    spares = fake.table = [(3, 1)[number % 2] for number in range(size)]
    prepare(host, wanted(nic, **IO_URING))
    assert fake.table == spares


def test_rules_of_others_keep_rules_on(node: Node, host: Namespace, fake_nic: FakeNics) -> None:
    """A driver forgets all rules when they are switched off."""
    nic = node.nic()
    fake = fake_nic(nic, ntuple=False)
    prepare(host, wanted(nic, **IO_URING))
    link = host.links.get(name=nic)
    assert link is not None
    host.ethtool.insert_rule(link, FlowRule("tcp", "192.0.2.1", queue=2))
    assert [each.setting.key for each in restore(host, nic).left] == ["ntuple"]
    assert fake.ntuple
    assert len(fake.rules) == 1


def test_a_refused_table_undoes_what_was_before_it(
    node: Node, host: Namespace, fake_nic: FakeNics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's errno is told with what was asked for."""
    nic = node.nic(16)
    fake = fake_nic(nic, queues=16)
    before = seen(nic)

    def refuse(*_: Any) -> None:
        raise OSError(errno.EBUSY, "")

    monkeypatch.setattr(fake, "_change_table", refuse)
    with pytest.raises(CNIError) as caught:
        prepare(host, wanted(nic, **IO_URING, channels=12))
    assert f"set the RSS table of {nic} to the queues" in caught.value.message
    assert "EBUSY" in caught.value.message
    assert seen(nic) == before


def test_a_driver_that_can_only_copy_wants_to_be_asked(node: Node, host: Namespace) -> None:
    """netdevsim has no zero copy: error 102 says what it lacks, and how to go on."""
    nic = node.nic()
    before = seen(nic)
    with pytest.raises(CNIError) as caught:
        prepare(host, wanted(nic, role="af_xdp", queues="4-7"))
    assert caught.value.code == 102
    assert "xsk-zerocopy" in caught.value.message
    assert "--copy" in caught.value.details
    assert seen(nic) == before


def test_a_nic_that_lends_no_queues_is_not_prepared(node: Node, host: Namespace) -> None:
    """Error 102 in the kernel's own words: no container could use what is prepared."""
    for name in (node.virtual_function(), "lo"):
        before = judge.world()
        with pytest.raises(CNIError) as caught:
            prepare(host, wanted(name, **IO_URING))
        assert caught.value.code == 102
        assert f"see whether {name} lends queues: the kernel answered" in caught.value.message
        assert judge.world() == before


def test_queues_that_are_in_use_keep_a_nic_from_being_restored(
    node: Node, host: Namespace, conf: Conf
) -> None:
    """Error 103 until the container is gone."""
    nic, c = node.nic(), node.container()
    prepare(host, wanted(nic, **IO_URING))
    configuration = conf(lease={"device": nic, "workload": "io_uring", "flows": "none"})
    node.add(configuration, c)
    after = seen(nic)
    with pytest.raises(CNIError, match="its queues 7 are in use"):
        restore(host, nic)
    assert seen(nic) == after
    assert node.call("DEL", configuration, c).ok
    restore(host, nic)


def test_add_takes_the_prepared_pool(node: Node, host: Namespace, conf: Conf) -> None:
    """Highest first, with or without a workload; a pool of the configuration goes before it."""
    nic = node.nic()
    prepare(host, wanted(nic, role="io_uring", queues="2-4"))
    node.add(conf(lease={"device": nic}), node.container())
    lease = {"device": nic, "workload": "io_uring", "flows": "none"}
    node.add(conf(lease=lease), node.container())
    assert set(judge.leases(nic)) == {4, 3}
    node.add(conf(lease={"device": nic, "queues": "6"}), node.container())
    assert set(judge.leases(nic)) == {6, 4, 3}
    error = node.call("ADD", conf(lease={**lease, "queues": "6"}), node.container()).error
    assert error["code"] == 102
    assert f"6 is not in the pool that {nic} was prepared with, 2-4" in error["msg"]


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_what_a_workload_lacks_is_named_with_the_command(
    node: Node, host: Namespace, conf: Conf, verb: str
) -> None:
    """Not prepared; another role; no longer as it was prepared. ADD 102, STATUS 50."""
    nic = node.nic()
    configuration = conf(lease={"device": nic, "workload": "io_uring", "flows": "none"})
    c = node.container()
    world = judge.world(c)

    def refused(message: str, details: str) -> None:
        error = node.call(verb, configuration, c if verb == "ADD" else "").error
        assert error["code"] == (102 if verb == "ADD" else 50)
        assert message in error["msg"]
        assert details in error["details"]
        assert judge.world(c) == world

    command = f"cni-netkit nic prepare {nic} --role io_uring --queues"
    refused(f'{nic} is not prepared for "io_uring"', f"{command} 4-7")
    prepare(host, wanted(nic, **AF_XDP))
    world = judge.world(c)
    refused(f'{nic} is prepared for "af_xdp", not for "io_uring"', f"nic restore {nic}")
    restore(host, nic)
    prepare(host, wanted(nic, **IO_URING))
    world = judge.world(c)
    judge.set_rings(nic, tcp_data_split=1)
    refused("header-data split is off, needed: on", f"{command} 4-7")
    prepare(host, wanted(nic, **IO_URING))
    judge.set_rings(nic, hds_thresh=77)
    refused("header-data split threshold is 77, needed: 0", f"{command} 4-7")
    prepare(host, wanted(nic, **IO_URING))
    if verb == "STATUS":
        assert node.call("STATUS", configuration).ok
    else:
        node.add(configuration, c)


def test_a_nic_that_came_back_is_not_prepared(node: Node, host: Namespace, conf: Conf) -> None:
    """Its settings went with it; what was noted of the one before is not put back."""
    nic = node.nic()
    prepare(host, wanted(nic, **IO_URING))
    node.remove_nic()
    again = node.nic()
    judge.run("ip", "link", "set", again, "down")
    judge.run("ip", "link", "set", again, "name", nic, check=again != nic)
    judge.run("ip", "link", "set", nic, "up")
    configuration = conf(lease={"device": nic, "workload": "io_uring", "flows": "none"})
    assert node.call("ADD", configuration, node.container()).error["code"] == 102
    before = judge.rings(nic)
    assert restore(host, nic).changed == []
    assert judge.rings(nic) == before
    assert seen(nic)["record"] == []


def test_agent_prepares_what_the_file_names_and_again_when_it_comes_back(
    node: Node, tmp_path: Path
) -> None:
    """At its start, and for a NIC with the same name that appears later."""
    from cni_netkit.agent.nics import kept

    nic = node.nic()
    judge.set_rings(nic, tcp_data_split=1)
    path = tmp_path / "nics.json"
    path.write_text(json.dumps({"nics": [{"device": nic, **IO_URING}]}))
    with kept(path):
        judge.wait_for(lambda: judge.rings(nic)["tcp_data_split"] == 2, "the NIC is prepared")
        node.remove_nic()
        again = node.nic(up=False)
        judge.set_rings(again, tcp_data_split=1)
        if again != nic:
            judge.run("ip", "link", "set", again, "name", nic)
        judge.run("ip", "link", "set", nic, "up")
        judge.wait_for(
            lambda: judge.rings(nic)["tcp_data_split"] == 2, "the NIC that came back is prepared"
        )


def test_settings_have_names_of_their_own() -> None:
    """Records know them by key."""
    keys = [each.key for each in settings.SETTINGS]
    assert len(keys) == len(set(keys))
