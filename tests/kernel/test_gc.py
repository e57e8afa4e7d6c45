"""GC: what the runtime does not list is released, what it lists or what is another's stays."""

import json
from pathlib import Path

import pytest

from cni_netkit.release import sweep
from tests.kernel import judge
from tests.kernel.conftest import Conf, Node


def valid(*containers: str) -> list[dict[str, str]]:
    """The runtime's list."""
    return [{"containerID": f"container-{c}", "ifname": "eth0"} for c in containers]


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_only_what_is_not_listed_goes(node: Node, conf: Conf, key: str) -> None:
    """Device, address, lease, rule and record of the others."""
    nic, keep, drop = node.nic(), node.container(), node.container()
    configuration = conf(ipMasq=True, lease={"device": nic})
    node.add(configuration, keep)
    before = judge.world(keep, drop)
    node.add(configuration, drop)
    assert node.call("GC", {**configuration, key: valid(keep)}).ok
    assert judge.world(keep, drop) == before
    assert judge.pings("10.1.0.2")


@pytest.mark.parametrize("listed", [{}, {"cni.dev/valid-attachments": []}])
def test_no_list_means_that_none_is_valid(
    node: Node, conf: Conf, listed: dict[str, list[str]]
) -> None:
    """A missing key, as cnitool sends it, and an empty list are the same."""
    c = node.container()
    before = judge.world(c)
    node.add(conf(), c)
    assert node.call("GC", {**conf(), **listed}).ok
    assert judge.world(c) == before


def test_what_a_newer_release_made_is_kept(node: Node, conf: Conf) -> None:
    """Device and address; named where its container is not valid, and the others go all the same."""
    old, newer, kept = node.container(), node.container(), node.container()
    for c in (newer, kept):
        node.add(conf(ipMasq=True), c)
    for c in (newer, kept):
        path = Path(f"/var/lib/cni/netkit/net/container-{c}:eth0.json")
        fields = json.loads(path.read_bytes())
        path.write_text(json.dumps({**fields, "format": fields["format"] + 1, "steps": 5}))
    before = judge.world(old, newer, kept)
    node.add(conf(ipMasq=True), old)
    error = node.call("GC", {**conf(), "cni.dev/valid-attachments": valid(kept)}).error
    assert error["code"] == 11
    assert f"container-{newer} on network net was made by a newer release" in error["msg"]
    assert f"container-{kept}" not in error["msg"]
    assert judge.world(old, newer, kept) == before
    assert node.call("GC", {**conf(), "cni.dev/valid-attachments": valid(newer, kept)}).ok
    assert judge.world(old, newer, kept) == before


@pytest.mark.parametrize("damage", [b"null", b"[]", b"[" * 100_000 + b"]" * 100_000, b"{}"])
def test_a_damaged_record_is_ended(node: Node, conf: Conf, damage: bytes) -> None:
    """By the names, also where a file is in the way of notes; unless its container is valid."""
    c = node.container()
    before = judge.world(c)
    node.add(conf(ipMasq=True), c)
    path = Path(f"/var/lib/cni/netkit/net/container-{c}:eth0.json")
    path.write_bytes(damage)
    path.with_name(f"{path.name}.added").touch()
    alive = judge.world(c)
    listed = {"cni.dev/valid-attachments": valid(c)}
    assert node.call("GC", {**conf(ipMasq=True), **listed}).ok
    sweep()
    assert judge.world(c) == alive
    assert node.call("GC", conf(ipMasq=True)).ok
    assert judge.world(c) == before
    node.add(conf(ipMasq=True), c)


def test_never_one_of_another_network(node: Node, conf: Conf) -> None:
    """Attachments of a network with another name stay."""
    c = node.container()
    node.add(conf(name="other"), c)
    before = judge.world(c)
    assert node.call("GC", conf()).ok
    assert judge.world(c) == before


def test_list_that_cannot_be_read_removes_nothing(node: Node, conf: Conf) -> None:
    """Error 7, since guessing would delete what is in use."""
    c = node.container()
    node.add(conf(), c)
    before = judge.world(c)
    for garbage in ("all", [{"container": "x"}], [3], {"a": 1}):
        error = node.call("GC", {**conf(), "cni.dev/valid-attachments": garbage}).error
        assert error["code"] == 7
    assert judge.world(c) == before


def test_what_has_no_record_is_found_by_its_mark(node: Node, conf: Conf) -> None:
    """The records are lost: device, rules and addresses of the dead go, those of the living stay."""
    keep, drop = node.container(), node.container()
    configuration = conf(ipMasq=True)
    node.add(configuration, keep)
    node.add(configuration, drop)
    for path in Path("/var/lib/cni/netkit").rglob("*.json"):
        path.unlink()
    assert node.call("GC", {**configuration, "cni.dev/valid-attachments": valid(keep)}).ok
    assert judge.link("eth0", drop) is None
    assert judge.link("eth0", keep) is not None
    assert "10.1.0.3" not in judge.run("nft", "list", "ruleset")
    assert "10.1.0.2" in judge.run("nft", "list", "ruleset")
    assert not Path("/var/lib/cni/networks/net/10.1.0.3").exists()
    assert Path("/var/lib/cni/networks/net/10.1.0.2").exists()


def test_namespace_that_is_gone(node: Node, conf: Conf) -> None:
    """The container died without DEL: its address and record go."""
    c = node.container()
    node.add(conf(ipMasq=True), c)
    judge.run("ip", "netns", "del", c)
    judge.wait_for(lambda: len(judge.ip("link")) == count_without_pair(), "the pair goes")
    assert node.call("GC", conf(ipMasq=True)).ok
    assert not Path("/var/lib/cni/networks/net/10.1.0.2").exists()
    assert judge.run("nft", "list", "ruleset") == ""


def count_without_pair() -> int:
    """How many devices of the host are not ours."""
    return len([each for each in judge.ip("link") if not each["ifname"].startswith("nk")])


@pytest.mark.parametrize("by", ["GC", "sweep"])
@pytest.mark.parametrize("written", [b"", b'{"attachment":'])
def test_record_that_was_not_written_to_its_end_goes(
    node: Node, conf: Conf, written: bytes, by: str
) -> None:
    """A process was killed at that moment: nothing was done, and nothing is in the way of an ADD."""
    c = node.container()
    node.add(conf(), c)
    assert node.call("DEL", conf(), c).ok
    before = judge.world(c)
    Path(f"/var/lib/cni/netkit/net/container-{c}:eth0.json").write_bytes(written)
    assert node.call("ADD", conf(), c).error["code"] == 103
    if by == "GC":
        assert node.call("GC", conf()).ok
    else:
        sweep()
    assert judge.world(c) == before
    node.add(conf(), c)
