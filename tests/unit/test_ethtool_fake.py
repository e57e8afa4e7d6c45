"""The fake NIC is a NIC for the real ethtool, and both of us understand each other through it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.ethtool.family import Ethtool as Ours
from cni_netkit.kernel.model import FlowRule, Link
from tests.ethtool.fake import Ethtool, FakeNic, compiled, ethtool

NIC = Link(2, "nic0", None, True, 1500, None, None, None, 8)
RULES = (
    FlowRule("tcp", "10.1.0.2", queue=3),
    FlowRule("udp", "10.1.0.2", 9000, queue=4),
    FlowRule("tcp", "fd00:1::2", 443, queue=5),
    FlowRule("udp", "fd00:1::2", context=1),
)
WORDS = (
    "flow-type tcp4 dst-ip 10.1.0.2 action 3",
    "flow-type udp4 dst-ip 10.1.0.2 dst-port 9000 action 4",
    "flow-type tcp6 dst-ip fd00:1::2 dst-port 443 action 5",
    "flow-type udp6 dst-ip fd00:1::2 context 1",
)


class Edge:
    """Our ioctls go to the same NIC."""

    def __init__(self, nic: FakeNic) -> None:
        self.nic = nic

    def ask(self, asked: str, _device: str, request: bytes) -> bytes:
        """As the kernel."""
        try:
            return self.nic.ioctl(request)
        except OSError as error:
            raise KernelError(asked, error.errno or 0) from None


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preload, compiled once."""
    return compiled(tmp_path_factory.mktemp("preload"))


@pytest.fixture
def nic() -> FakeNic:
    """The NIC."""
    return FakeNic("nic0")


@pytest.fixture
def ours(nic: FakeNic) -> Ours:
    """Our way to it, without netlink."""
    return Ours(None, Edge(nic))  # type: ignore[arg-type]


@pytest.fixture
def real(nic: FakeNic, library: Path, tmp_path: Path) -> Iterator[Ethtool]:
    """The system's ethtool."""
    program = shutil.which("ethtool", path="/usr/sbin:/sbin:/usr/bin")
    assert program, "tests/lab/install-packages installs ethtool"
    with ethtool(program, nic, library, tmp_path) as tool:
        yield tool


def test_what_ethtool_inserts_we_list(nic: FakeNic, real: Ethtool, ours: Ours) -> None:
    """Four rules, one into an RSS context; then they are removed."""
    assert "New RSS context is 1" in real.run(
        "-X", "nic0", "context", "new", "start", "6", "equal", "2"
    )
    for words in WORDS:
        assert "Added rule" in real.run("-N", "nic0", *words.split())
    listed = {rule.location: rule for rule in ours.rules(NIC)}
    expected = zip((15, 14, 13, 12), RULES, strict=True)
    assert listed == {
        location: FlowRule(**{**vars(rule), "location": location}) for location, rule in expected
    }
    assert ours.indirection(NIC, 1) == (6, 7) * 8
    for location in listed:
        assert location is not None
        ours.remove_rule(NIC, location)
    assert "Total 0 rules" in real.run("-n", "nic0")
    ours.remove_context(NIC, 1)
    real.run("-x", "nic0", "context", "1")
    assert real.status != 0


def test_what_we_insert_ethtool_lists(nic: FakeNic, real: Ethtool, ours: Ours) -> None:
    """The same the other way round."""
    assert ours.create_context(NIC, (6, 7) * 8) == 1
    assert [ours.insert_rule(NIC, rule) for rule in RULES] == [15, 14, 13, 12]
    said = real.run("-n", "nic0")
    assert "Total 4 rules" in said
    parts = {part.split()[0]: " ".join(part.split()[1:]) for part in said.split("Filter:")[1:]}
    assert "TCP over IPv4" in parts["15"]
    assert "Dest IP addr: 10.1.0.2 mask: 0.0.0.0" in parts["15"]
    assert "Direct to queue 3" in parts["15"]
    assert "Dest port: 9000 mask: 0x0" in parts["14"]
    assert "Dest IP addr: fd00:1::2 mask: ::" in parts["13"]
    assert "RSS Context" in parts["12"]
    table = real.run("-x", "nic0", "context", "1")
    assert "6     7     6     7" in table
    real.run("-N", "nic0", "delete", "14")
    assert real.status == 0
    assert {rule.location for rule in ours.rules(NIC)} == {15, 13, 12}


def test_table_is_set_and_reset(nic: FakeNic, real: Ethtool, ours: Ours) -> None:
    """The RSS table, set by the one and seen by the other."""
    ours.set_indirection(NIC, (0, 1) * 8)
    assert "0     1     0     1" in real.run("-x", "nic0")
    real.run("-X", "nic0", "equal", "4")
    assert ours.indirection(NIC) == (0, 1, 2, 3) * 4
    ours.set_indirection(NIC, None)
    assert "4     5     6     7" in real.run("-x", "nic0")


def test_driver_that_chooses_the_location(nic: FakeNic, real: Ethtool, ours: Ours) -> None:
    """Neither of us chooses one then, and both are told which it is."""
    nic.chooses = True
    assert ours.insert_rule(NIC, RULES[0]) == 0
    assert "Added rule with ID 1" in real.run("-N", "nic0", *WORDS[1].split())
    assert ours.insert_rule(NIC, RULES[2]) == 2


def test_rules_of_other_forms_are_left_out(nic: FakeNic, ours: Ours) -> None:
    """Another mask, a source, a rule that drops: not ours to see."""
    location = ours.insert_rule(NIC, RULES[0])
    good = bytes(nic.rules[location])
    assert len(ours.rules(NIC)) == 1
    for place in (16 + 4 + 8, 16 + 4 + 12, 16 + 56, 16 + 76 + 4, 16 + 76 + 8, 16 + 152 + 4):
        changed = bytearray(good)
        changed[place] ^= 1
        nic.rules[location] = type(nic.rules[location]).from_buffer_copy(changed)
        assert ours.rules(NIC) == (), place


def test_full_table_is_told(nic: FakeNic, ours: Ours) -> None:
    """ENOSPC, with the size."""
    nic.places = 1
    ours.insert_rule(NIC, RULES[0])
    with pytest.raises(KernelError, match=r"tcp to fd00:1::2 port 443 .*all 1 places"):
        ours.insert_rule(NIC, RULES[2])


def test_driver_without(nic: FakeNic, ours: Ours) -> None:
    """No RSS, no contexts: None."""
    nic.knows_contexts = False
    assert ours.contexts(NIC) is None
    nic.table = []
    assert ours.indirection(NIC) is None


def test_rules_that_come_and_go_while_they_are_listed(
    nic: FakeNic, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than were counted: counted again. One that is gone: left out."""
    for rule in RULES[:2]:
        ours.insert_rule(NIC, rule)
    count = FakeNic._count
    counted: list[bytes] = []

    def too_few(self: FakeNic, request: bytes) -> bytes:
        answer = bytearray(count(self, request))
        if not counted:
            answer[184:188] = (1).to_bytes(4, "little")
        counted.append(request)
        return bytes(answer)

    monkeypatch.setattr(FakeNic, "_count", too_few)
    assert len(ours.rules(NIC)) == 2
    assert len(counted) == 2
    one = FakeNic._rule

    def gone(self: FakeNic, request: bytes) -> bytes:
        self.rules.pop(14, None)
        return one(self, request)

    monkeypatch.setattr(FakeNic, "_rule", gone)
    assert [rule.location for rule in ours.rules(NIC)] == [15]
