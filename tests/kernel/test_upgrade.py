"""Upgrades and the way back across a change of the records' format, every example being attached.

"Before" are records as releases before wrote them, of each older format: today's, written back to it;
that they are like the ones in tests/records, which those releases wrote, is compared. What they made
otherwise in the kernel is put there, too. "Next" is a release of another format, by a field of another
name. An agent of this process answers the requests, so that the one and the other can be put in use
under attachments that live on.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni_netkit import record as records
from cni_netkit.formats import Format
from cni_netkit.record import FORMAT, Record
from tests.kernel import judge
from tests.kernel.cnitool import CNITOOL, NO_CNITOOL, Cnitool
from tests.kernel.conftest import JSON, Node
from tests.kernel.examples import EXAMPLES, others, without_cache

STORE = Path("/var/lib/cni/netkit")
KEPT = Path(__file__).parents[1] / "records"

pytestmark = [pytest.mark.once, pytest.mark.skipif(not CNITOOL, reason=NO_CNITOOL)]


class Attached:
    """Every example, each in a container of its own."""

    def __init__(self, node: Node, cnitool: Cnitool, with_nic: Callable[[JSON], JSON]) -> None:
        self._cnitool = cnitool
        self.containers: dict[str, str] = {}
        self.examples: dict[str, str] = {}
        # All agents before the first request: one that begins counts what is open.
        conflists = [with_nic(json.loads(example.read_text())) for example in EXAMPLES]
        for example, conflist in zip(EXAMPLES, conflists, strict=True):
            # Some share a name, as whoever uses one of them has it; GC is of 1.1.0.
            conflist |= {"name": f"net-{example.stem}", "cniVersion": "1.1.0"}
            network = cnitool.configure(conflist)
            self.containers[network] = node.container()
            self.examples[network] = example.stem
            if others(conflist):  # What other plugins make once and leave: a bridge, tables.
                self("add", network)
                self("del", network)

    def __call__(self, verb: str, network: str = "") -> None:
        """One verb, of one network or of each; it must work."""
        for each in [network] if network else self.containers:
            self._cnitool(verb, each, self.containers[each])

    def refused(self, verb: str) -> None:
        """One verb, of each network; it must be refused, since a newer release made it."""
        for network, container in self.containers.items():
            with pytest.raises(AssertionError) as failed:
                self._cnitool(verb, network, container)
            said = str(failed.value)
            assert f"on network {network} was made by a newer release" in said, said
            assert "install the newer release again" in said

    def world(self) -> JSON:
        """All that there is on the host and in the containers."""
        return without_cache(judge.world(*self.containers.values()))

    def ours(self) -> JSON:
        """The same, but what other plugins of a chain have in nftables: their DEL comes first."""
        return self.world() | {"nftables": judge.run("nft", "list", "table", "inet", "cni-netkit")}


@pytest.fixture
def attached(node: Node, cnitool: Cnitool, with_nic: Callable[[JSON], JSON]) -> Attached:
    """By the agent of the last example that leases."""
    return Attached(node, cnitool, with_nic)


def renamed(fields: JSON) -> JSON:
    """What the next release changes."""
    others = {key: value for key, value in fields.items() if key != "arguments"}
    return {**others, "cniArgs": fields["arguments"]}


@contextmanager
def next_release(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One with a format more."""
    following = Format((*FORMAT.migrations, renamed))
    load = Record.load

    def dump(self: Record) -> bytes:
        return following.write(renamed({**vars(self), "attachment": vars(self.attachment)}))

    def read(cls: type[Record], data: bytes) -> Record:
        fields = following.read(data)
        fields["arguments"] = fields.pop("cniArgs")
        return load(json.dumps({"format": following.number, **fields}).encode())

    with monkeypatch.context() as patch:
        patch.setattr(records, "FORMAT", following)
        patch.setattr(Record, "dump", dump)
        patch.setattr(Record, "load", classmethod(read))
        yield


def written_back(fields: JSON, number: int) -> JSON:
    """A record as a release of an older format wrote it."""
    fields["format"] = number
    for step in fields["steps"]:
        step.pop("excluded", None)
    return _written_back_to_1(fields) if number == 1 else fields


def _written_back_to_1(fields: JSON) -> JSON:
    """No number, and the device's fields side by side."""
    for later in ("format", "boot", "host_identity"):
        del fields[later]
    for step in fields["steps"]:
        if step["step"] != "device":
            continue
        spec = step.pop("spec")
        name, peer, macs = (
            spec.pop("name"),
            spec.pop("peer_name"),
            (spec.pop("mac"), spec.pop("peer_mac")),
        )
        pair = spec["pairing"] == "pair"
        ends = {"host_name": name if pair else "", "container_name": peer if pair else name}
        step |= {**spec, **ends, "mac": macs[pair]}
    return fields


def shape(fields: Any) -> Any:
    """Which keys there are, all the way down; addresses and lists of them count as they are few."""
    if isinstance(fields, dict):
        return {key: shape(value) for key, value in sorted(fields.items())}
    if isinstance(fields, list) and fields and isinstance(fields[0], dict):
        return [shape(each) for each in fields]
    return type(fields).__name__


def without_exceptions() -> None:
    """Masquerading as releases before format 3 made it: no sets, and no rule that looks them up."""
    table = judge.run("nft", "list", "table", "inet", "cni-netkit")
    table, sets = re.subn(r"\tset nonmasquerade\S+ {.*?\n\t}\n", "", table, flags=re.DOTALL)
    table, lookups = re.subn(r" ip6? daddr != @nonmasquerade\S+", "", table)
    assert sets
    assert lookups
    judge.run("nft", "delete", "table", "inet", "cni-netkit")
    judge.run("nft", table)


def records_of_the_store() -> list[Path]:
    return sorted(STORE.glob("net-*/*:*.json"))


@pytest.mark.parametrize("number", range(1, FORMAT.number))
def test_from_a_release_before(attached: Attached, number: int) -> None:
    """What it recorded is checked, deleted by name, and collected, to the last address and queue."""
    before = attached.world()
    attached("add")
    assert len(records_of_the_store()) > len(attached.containers)
    for path in records_of_the_store():
        old = written_back(json.loads(path.read_bytes()), number)
        example, ifname = attached.examples[path.parent.name], path.stem.rpartition(":")[2]
        kept = json.loads(
            (KEPT / f"attachments-{number}" / f"{example}.{ifname}.json").read_bytes()
        )
        path.write_text(json.dumps(old))
        # The configuration is cnitool's affair, and here in another version.
        assert shape(old | {"config": {}}) == shape(kept | {"config": {}})
    without_exceptions()
    attached("check")
    networks = list(attached.containers)
    for network in networks[::2]:
        attached("del", network)
    for network in networks[1::2]:
        attached("gc", network)
    assert attached.world() == before
    assert records_of_the_store() == []


def test_to_the_next_release(attached: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what this one recorded."""
    before = attached.world()
    attached("add")
    with next_release(monkeypatch):
        attached("check")
        networks = list(attached.containers)
        for network in networks[::2]:
            attached("gc", network)
        for network in networks[1::2]:
            attached("del", network)
    assert attached.world() == before


def test_back_from_the_next_release(attached: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it recorded is named and left alone, whole; and is its own again when it is back."""
    before = attached.world()
    with next_release(monkeypatch):
        attached("add")
    alive, written = attached.ours(), [path.read_bytes() for path in records_of_the_store()]
    assert {json.loads(each)["format"] for each in written} == {FORMAT.number + 1}
    for verb in ("check", "del", "gc"):
        attached.refused(verb)
        assert attached.ours() == alive
        assert [path.read_bytes() for path in records_of_the_store()] == written
    with next_release(monkeypatch):
        attached("del")
    assert attached.world() == before
