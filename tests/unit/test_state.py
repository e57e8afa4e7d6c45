"""Records and locks (cni_netkit.state)."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cni_netkit.attachment import Attachment
from cni_netkit.record import SHAPES, Record
from cni_netkit.spec.errors import CNIError
from cni_netkit.state import DamagedRecord, Store
from tests.unit.given import descriptors_left, record, refused

FIRST = Attachment("net", "c1", "eth0")
SECOND = Attachment("net", "c2", "eth0")
ELSEWHERE = Attachment("net2", "c1", "eth0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of its own."""
    return Store(tmp_path / "netkit")


def file_of(tmp_path: Path, attachment: Attachment = FIRST) -> Path:
    """Where a record lies."""
    name = f"{attachment.container_id}:{attachment.ifname}.json"
    return tmp_path / "netkit" / attachment.network / name


def test_every_field_has_its_shape() -> None:
    """One that has none could not be read back."""
    fields = {*Record.__dataclass_fields__, *Attachment.__dataclass_fields__}
    assert set(SHAPES) == fields


def test_record_round_trip() -> None:
    """A record is read as it was written, down to the last field."""
    written = record(
        steps=[{"step": "device", "mtu": 1500, "pool": [1, 2]}],
        outcome={"addresses": [{"address": "10.1.0.2/24"}], "container_nsid": None},
        complete=True,
        arguments="IP=10.1.0.2",
        added_to="eth0",
    )
    assert Record.load(written.dump()) == written


def test_create_and_load(store: Store) -> None:
    """A record that was created can be loaded, one that was not cannot."""
    store.create(record(FIRST))
    assert store.load(FIRST) == record(FIRST)
    assert store.load(SECOND) is None


def test_create_is_exclusive(store: Store) -> None:
    """A second record for an attachment is error 103, and the first stays."""
    store.create(record(FIRST, arguments="first"))
    with refused(103, "eth0", "c1", "net"):
        store.create(record(FIRST, arguments="second"))
    loaded = store.load(FIRST)
    assert loaded is not None
    assert loaded.arguments == "first"


def test_one_of_many_creates(store: Store) -> None:
    """Of many threads that create the same record at once exactly one succeeds."""
    barrier = threading.Barrier(8)
    large = {"filler": "x" * 100_000}

    def create(number: int) -> int:
        barrier.wait(10)
        try:
            store.create(record(FIRST, arguments=str(number), config=large))
        except CNIError as error:
            return int(error.code)
        return 0

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert sorted(pool.map(create, range(8))) == [0] + [103] * 7
            loaded = store.load(FIRST)
            assert loaded is not None
            assert loaded.config == large
            store.remove(FIRST)


def test_the_folder_of_a_network_stays(store: Store, tmp_path: Path) -> None:
    """Removing a network's last record leaves its folder, into which others may be writing."""
    store.create(record(FIRST))
    store.remove(FIRST)
    assert file_of(tmp_path).parent.is_dir()


def test_create_while_others_are_removed(store: Store) -> None:
    """A record can be created while the network's last other one is removed."""
    attachments = [Attachment("net", f"c{number}", "eth0") for number in range(8)]

    def cycle(attachment: Attachment) -> None:
        for _ in range(50):
            store.create(record(attachment))
            store.remove(attachment)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cycle, attachments))
    assert list(store.all()) == []


def test_update(store: Store) -> None:
    """An update replaces the record."""
    store.create(record(FIRST))
    store.update(record(FIRST, complete=True))
    loaded = store.load(FIRST)
    assert loaded is not None
    assert loaded.complete


def test_remove(store: Store) -> None:
    """A removed record is gone, removing it again is no error, and it can be created anew."""
    store.create(record(FIRST))
    store.remove(FIRST)
    store.remove(FIRST)
    assert store.load(FIRST) is None
    store.create(record(FIRST))


def test_nothing_else_is_left(store: Store, tmp_path: Path) -> None:
    """Writing leaves no temporary files, whether it succeeds or not."""
    store.create(record(FIRST))
    store.update(record(FIRST))
    with refused(103):
        store.create(record(FIRST))
    assert [path.name for path in (tmp_path / "netkit" / "net").iterdir()] == ["c1:eth0.json"]


def test_records_are_private(store: Store, tmp_path: Path) -> None:
    """Only root reads records: a configuration can hold what is not for everybody."""
    store.create(record(FIRST))
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600
    assert file_of(tmp_path).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "damage",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"attachment": {}}',
        b'{"attachment": "net"}',
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_a_record_that_cannot_be_read(store: Store, tmp_path: Path, damage: bytes) -> None:
    """A damaged record is like none, for load as for all: DEL then goes by the names."""
    store.create(record(FIRST))
    store.create(record(SECOND))
    file_of(tmp_path).write_bytes(damage)
    assert store.load(FIRST) is None
    assert [each.attachment for each in store.all()] == [SECOND]
    damaged, _ = store.scan()
    assert isinstance(damaged, DamagedRecord)
    assert (damaged.attachment, damaged.path) == (FIRST, str(file_of(tmp_path)))
    assert damaged.problem
    store.remove(FIRST)
    assert not file_of(tmp_path).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", "device"),
        ("steps", ["device"]),
        ("outcome", None),
        ("config", []),
        ("attachment", {"network": "net", "container_id": 5, "ifname": "eth0"}),
        ("attachment", {"network": "net"}),
        ("added_to", 1),
        ("unheard_of", 1),
    ],
)
def test_a_record_with_other_fields(store: Store, tmp_path: Path, name: str, value: object) -> None:
    """JSON whose fields are not those of a record is no record."""
    store.create(record(FIRST))
    fields = json.loads(file_of(tmp_path).read_bytes())
    file_of(tmp_path).write_text(json.dumps({**fields, name: value}))
    assert store.load(FIRST) is None


def test_a_truncated_record(store: Store, tmp_path: Path) -> None:
    """Wherever a record was cut off, it is none, and the attachment is to be released."""
    store.create(record(FIRST))
    whole = file_of(tmp_path).read_bytes()
    for length in range(len(whole)):
        file_of(tmp_path).write_bytes(whole[:length])
        assert store.load(FIRST) is None
        (found,) = store.all()
        assert (found.attachment, found.cni_ifname) == (FIRST, FIRST.ifname)
        assert found.abandoned


def test_all(store: Store) -> None:
    """All records, or all of one network."""
    for attachment in (SECOND, FIRST, ELSEWHERE):
        store.create(record(attachment))
    assert [each.attachment for each in store.all()] == [FIRST, SECOND, ELSEWHERE]
    assert [each.attachment for each in store.all("net")] == [FIRST, SECOND]
    assert list(store.all("ne")) == []


def test_added_to(store: Store, tmp_path: Path) -> None:
    """What was added to one attachment, by name; none that a runtime asked for."""
    added = [
        record(Attachment("net", "c1", name), added_to="eth0", complete=name == "rxq0")
        for name in ("rxq0", "rxq1")
    ]
    others = [
        record(FIRST),
        record(Attachment("net", "c1", "zc0")),
        record(Attachment("net", "c1", "rxq2"), added_to="eth1"),
        record(Attachment("net", "c1", "rxq3"), added_to=""),
        record(Attachment("net", "c1x", "rxq0"), added_to="eth0"),
        record(Attachment("net2", "c1", "rxq0"), added_to="eth0"),
    ]
    cut_off = record(Attachment("net", "c1", "rxq4"), added_to="eth0")
    for each in (*reversed(added), *others, cut_off):
        store.create(each)
    file_of(tmp_path, cut_off.attachment).write_bytes(added[0].dump()[:-1])
    found = store.added_to(FIRST)
    assert found[:2] == added
    # What cannot be read is noted there all the same, and is to go with it.
    assert [(each.attachment, each.added_to, each.complete) for each in found[2:]] == [
        (cut_off.attachment, "eth0", False)
    ]
    assert store.added_to(SECOND) == []
    assert store.added_to(Attachment("none", "c1", "eth0")) == []


def test_nothing_is_left_of_what_was_added(store: Store, tmp_path: Path) -> None:
    """Whichever goes first; and a second one of that name changes nothing."""
    names = ("rxq0", "rxq1")
    for order in (names, names[::-1]):
        for name in names:
            store.create(record(Attachment("net", "c1", name), added_to="eth0"))
        with refused(103):
            store.create(record(Attachment("net", "c1", "rxq0"), added_to="eth0"))
        for left, name in zip((1, 0), order, strict=True):
            store.remove(Attachment("net", "c1", name), "eth0")
            assert len(store.added_to(FIRST)) == left
        assert list((tmp_path / "netkit" / "net").iterdir()) == []


def test_a_runtimes_record_is_not_taken_for_one_that_was_added(
    store: Store, tmp_path: Path
) -> None:
    """Its name was taken first: error 103, and no note of it."""
    store.create(record(Attachment("net", "c1", "rxq0")))
    with refused(103):
        store.create(record(Attachment("net", "c1", "rxq0"), added_to="eth0"))
    assert store.added_to(FIRST) == []
    assert len(list((tmp_path / "netkit" / "net").iterdir())) == 1


def test_added_by_many_at_once(store: Store, tmp_path: Path) -> None:
    """The folder of notes comes and goes under way, and none is lost."""

    def come_and_go(number: int) -> None:
        added = record(Attachment("net", "c1", f"rxq{number}"), added_to="eth0")
        for _ in range(50):
            store.create(added)
            assert added in store.added_to(FIRST)
            store.remove(added.attachment, "eth0")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert list((tmp_path / "netkit" / "net").iterdir()) == []


def test_what_cannot_be_noted_is_not_added(store: Store, tmp_path: Path) -> None:
    """Error 5, and no record."""
    store.create(record(FIRST))
    file_of(tmp_path).with_name("c1:eth0.json.added").touch()
    with refused(5, "c1:eth0.json.added"):
        store.create(record(Attachment("net", "c1", "rxq0"), added_to="eth0"))
    assert store.load(Attachment("net", "c1", "rxq0")) is None


def test_a_note_that_fails_costs_no_other_record(store: Store, tmp_path: Path) -> None:
    """Added already, and the second time it cannot be noted: the first one's record stays."""
    added = record(Attachment("net", "c1", "rxq0"), added_to="eth0", complete=True)
    store.create(added)
    notes = file_of(tmp_path).with_name(file_of(tmp_path).name + ".added")
    (notes / "rxq0").unlink()
    notes.rmdir()
    notes.symlink_to(tmp_path)
    with refused(5):
        store.create(added)
    assert store.load(added.attachment) == added


def test_a_file_where_notes_should_be(store: Store, tmp_path: Path) -> None:
    """Nothing was added then, and it goes with the record."""
    store.create(record(FIRST))
    notes = file_of(tmp_path).with_name("c1:eth0.json.added")
    notes.touch()
    assert store.added_to(FIRST) == []
    store.remove(Attachment("net", "c1", "rxq0"), "eth0")
    store.remove(FIRST)
    assert list(notes.parent.iterdir()) == []


def test_a_record_that_cannot_be_read_for_now(store: Store) -> None:
    """It is not lost: whoever took it for that would release by names alone, and forget it."""
    store.create(record(FIRST))
    with descriptors_left(0), refused(5, "read the record", "Too many open files"):
        store.load(FIRST)
    assert store.load(FIRST) == record(FIRST)


def test_all_of_nothing(tmp_path: Path) -> None:
    """A store that was never written to has no records."""
    assert list(Store(tmp_path / "never").all()) == []


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """Where the store cannot be, creating a record is error 5 and says where."""
    (tmp_path / "netkit").write_text("in the way")
    with refused(5, str(tmp_path / "netkit")):
        Store(tmp_path / "netkit").create(record(FIRST))


def test_lock_excludes_another_thread(store: Store) -> None:
    """While one thread holds a lock another does not get it, and gets it afterwards."""
    entered = threading.Event()

    def other() -> None:
        with store.lock(FIRST):
            entered.set()

    thread = threading.Thread(target=other)
    with store.lock(FIRST):
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    thread.join()


def test_a_counter_under_the_lock(store: Store, tmp_path: Path) -> None:
    """Nothing that is read and written under the lock is lost between threads."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_: int) -> None:
        with store.lock("counter"):
            counter.write_text(str(int(counter.read_text()) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(200)))
    assert counter.read_text() == "200"


def test_lock_without_waiting(store: Store) -> None:
    """Without waiting a held lock is BlockingIOError, a free one is had."""
    with store.lock(FIRST), pytest.raises(BlockingIOError), store.lock(FIRST, wait=False):
        pytest.fail("two hold the lock")
    with store.lock(FIRST, wait=False):
        pass


def test_lock_of_something_else(store: Store) -> None:
    """Different things are locked independently."""
    with store.lock(FIRST), store.lock(SECOND, wait=False), store.lock("NIC eth0", wait=False):
        pass


def test_lock_is_released_by_an_error(store: Store) -> None:
    """An error within gives the lock back."""
    with pytest.raises(ValueError, match="within"), store.lock(FIRST):
        raise ValueError("within")
    with store.lock(FIRST, wait=False):
        pass


HOLDER = """
import sys
from pathlib import Path
from cni_netkit.state import Store
with Store(Path(sys.argv[1])).lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_excludes_another_process(store: Store, tmp_path: Path) -> None:
    """A lock that another process holds is not had, and is had when that process was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "netkit"), str(FIRST)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), store.lock(FIRST, wait=False):
            pytest.fail("two hold the lock")
        process.kill()
        process.wait()
        with store.lock(FIRST, wait=False):
            pass


@pytest.mark.parametrize(
    "attachment", [Attachment("net", "c" * 240, "eth0"), Attachment("n" * 256, "c1", "eth0")]
)
def test_names_that_are_too_long(store: Store, attachment: Attachment) -> None:
    """No file can be named so: nothing is begun, and to take it back is no error."""
    with refused(4, "too long"):
        store.create(record(attachment))
    assert store.load(attachment) is None
    assert store.added_to(attachment) == []
    assert store.written(attachment) == 0
    store.remove(attachment)
    store.remove(attachment, "eth1")


def test_the_longest_names(store: Store) -> None:
    """A file beside the record and a folder have names that are longer than its own."""
    attachment = Attachment("n" * 255, "c" * (255 - len(":eth0.json.added")), "eth0")
    store.create(record(attachment))
    store.update(record(attachment))
    store.create(record(replace(attachment, ifname="eth1"), added_to="eth0"))
    store.remove(replace(attachment, ifname="eth1"), "eth0")
    store.remove(attachment)
    assert list(store.all()) == []


def test_a_record_in_the_place_of_another(store: Store, tmp_path: Path) -> None:
    """A copy under another name is damaged: what it is of would be released over and over."""
    store.create(record())
    file_of(tmp_path, FIRST).rename(file_of(tmp_path, SECOND))
    assert store.load(SECOND) is None
    (found,) = store.scan()
    assert isinstance(found, DamagedRecord)
    assert found.attachment == SECOND
    assert str(FIRST) in found.problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cni_ifname", ["eth0"]),
        ("process", []),
        ("process", ["a", 1]),
        ("netns", None),
        ("netns", "a\0b"),
        ("arguments", "\ud800"),
        ("path", "/opt"),
        ("steps", {}),
        ("complete", 1),
        ("netns_identity", {}),
        ("boot", 1),
    ],
)
def test_a_field_of_another_type(field: str, value: object) -> None:
    """Nothing of such a record is believed; GC was error 999."""
    fields = json.loads(record().dump())
    with pytest.raises(ValueError, match=field):
        Record.load(json.dumps({**fields, field: value}).encode())


def test_what_is_added_is_found_whoever_dies(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its record was written, or when that was gone: the note is there, and goes."""
    added = record(Attachment("net", "c1", "rxq0"), added_to="eth0")
    note = file_of(tmp_path).with_suffix(".json.added") / "rxq0"
    store.create(record(FIRST))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            store.create(added)
    assert note.exists()
    store.remove(FIRST)
    assert not list(note.parent.parent.iterdir())


def test_the_note_of_what_cannot_be_read_goes_too(store: Store, tmp_path: Path) -> None:
    """Its record does not say what it was added to."""
    added = record(Attachment("net", "c1", "rxq0"), added_to="eth0")
    store.create(added)
    file_of(tmp_path, added.attachment).write_bytes(b"")
    store.remove_unread(added.attachment)
    assert not list((tmp_path / "netkit" / "net").iterdir())


def die(*_arguments: object) -> None:
    """As a signal comes."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["lock", "net", "net/c1:eth0.json.new", "net/c1:eth0.json.added"])
def test_links_are_not_followed(store: Store, tmp_path: Path, name: str) -> None:
    """Where one stands in the place of a file or folder of ours, nothing is written elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "eth1").touch()
    link = tmp_path / "netkit" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere if "." not in name or "added" in name else elsewhere / "eth1")
    added = record(replace(FIRST, ifname="eth1"), added_to="eth0")
    for each in (record(), added):
        with suppress(CNIError, OSError):
            with store.lock(FIRST):
                store.create(each)
            store.update(each)
        with suppress(CNIError):
            store.remove(each.attachment, each.added_to)
    assert [(path.name, path.read_bytes()) for path in elsewhere.iterdir()] == [("eth1", b"")]
