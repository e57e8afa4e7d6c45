"""Networks of a node that give the same addresses, and what the doctor says of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.admin import networks, verdicts
from cni_netkit.attachment import Attachment
from cni_netkit.state import Store
from tests.unit.given import conf, record

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A node's folder of configurations, and its records."""
    monkeypatch.setattr(networks, "FOLDER", tmp_path / "net.d")
    monkeypatch.setattr(networks, "Store", lambda: Store(tmp_path / "records"))
    (tmp_path / "net.d").mkdir()
    return tmp_path / "net.d"


def plugin(*subnets: str, kind: str = "netkit", **more: Any) -> dict[str, Any]:
    """A plugin with a range set for each subnet."""
    ranges = [[{"subnet": each}] for each in subnets]
    return {"type": kind, "ipam": {"type": "host-local", "ranges": ranges}, **more}


def install(folder: Path, file: str, *plugins: dict[str, Any], name: str = "") -> Path:
    """Write a list into the folder."""
    path = folder / file
    given = {"cniVersion": "1.0.0", "name": name or path.stem, "plugins": plugins}
    path.write_text(json.dumps(given))
    return path


def told(path: str | None = None) -> list[str]:
    """The reasons of the doctor's verdicts on networks; a "yes" has none."""
    found = [*verdicts.of_networks(path)]
    assert not any(each["needed"] for each in found)
    assert all(each["ok"] or each["remedy"] for each in found)
    return [each["reason"] or f"{each['about']}: yes" for each in found]


OVERLAPPING = [
    ([plugin("10.1.0.0/24")], [plugin("10.1.0.0/16")], "10.1.0.1 to 10.1.0.254"),
    ([plugin("10.2.0.0/24", "fd00::/64")], [plugin("fd00::/120")], "fd00::1 to fd00::ff"),
    ([plugin("10.1.0.0/24")], [plugin("10.1.0.0/25", kind="ptp")], "10.1.0.1 to 10.1.0.126"),
    ([{"type": "portmap"}, plugin("10.1.0.0/24")], [plugin("10.1.0.128/25")], "10.1.0.129 to"),
    (
        [{"type": "netkit", "ipam": {"type": "host-local", "Subnet": "10.1.0.0/24"}}],
        [{"type": "netkit", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.9/8"}]}}],
        "10.1.0.9;",
    ),
    (
        [plugin("10.1.0.0/24"), plugin("10.3.0.0/24", pairing="single")],
        [plugin("10.3.0.0/24"), plugin("10.1.0.0/24", kind="bridge", unheardOf=1)],
        "10.1.0.1 to 10.1.0.254",
    ),
]


@pytest.mark.parametrize(("these", "those", "addresses"), OVERLAPPING, ids=str)
def test_what_overlaps(folder: Path, these: Any, those: Any, addresses: str) -> None:
    """Both networks are named with their files, and the addresses."""
    one, other = install(folder, "a.conflist", *these), install(folder, "b.conflist", *those)
    (reason,) = told()
    assert reason.startswith(f"a ({one}) and b ({other}) both give {addresses}")


APART = [
    ([plugin("10.1.0.0/24")], [plugin("10.1.1.0/24")]),
    ([plugin("10.1.0.0/24", pairing="single")], [plugin("10.1.0.0/24")]),
    ([plugin("10.1.0.0/24", kind="bridge")], [plugin("10.1.0.0/24", kind="ptp")]),
    (
        [plugin("10.1.0.0/24")],
        [{"type": "netkit", "ipam": {"type": "whereabouts", "subnet": "10.1.0.0/24"}}],
    ),
    (
        [plugin("10.1.0.0/24")],
        [{"type": "netkit", "ipam": {"type": "static", "addresses": [5, {}]}}],
    ),
    ([plugin("10.1.0.0/24")], [plugin("nonsense"), {"type": "netkit", "ipam": 5}]),
    ([plugin("0.0.0.0/0")], [plugin("::/0")]),
]


@pytest.mark.parametrize(("these", "those"), APART, ids=str)
def test_what_does_not(folder: Path, these: Any, those: Any) -> None:
    """Single devices are not routed to, networks of others are theirs, and what is wrong is no range."""
    install(folder, "a.conflist", *these)
    install(folder, "b.conflist", *those)
    assert told() == ["addresses of networks: yes"]


def test_one_network_in_two_files(folder: Path) -> None:
    """By its name: then they share the folder of taken addresses."""
    install(folder, "a.conflist", plugin("10.1.0.0/24"), name="net")
    install(folder, "b.conflist", plugin("10.1.0.0/24"), name="net")
    assert told() == ["addresses of networks: yes"]


def test_every_two_are_compared(folder: Path) -> None:
    """Three of a kind are three faults."""
    for name in "abc":
        install(folder, f"{name}.conflist", plugin("10.1.0.0/24"))
    assert len(told()) == 3


def test_a_file_to_be_installed(folder: Path, tmp_path: Path) -> None:
    """It is compared with what is there, but not with itself."""
    installed = install(folder, "a.conflist", plugin("10.1.0.0/24"))
    new = install(tmp_path, "new.conflist", plugin("10.1.0.0/24"))
    assert told() == told(str(installed)) == ["addresses of networks: yes"]
    (reason,) = told(str(new))
    assert f"new ({new})" in reason
    assert told(str(tmp_path / "missing")) == ["addresses of networks: yes"]


def test_networks_of_records(folder: Path, tmp_path: Path) -> None:
    """Its file may be gone, or changed since: what its containers have, they have."""
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    store = Store(tmp_path / "records")
    for container in ("c1", "c2"):
        kept = record(Attachment("old", container, "eth0"), config=conf(name="old", ipam=ipam))
        store.create(kept)
    assert told() == ["addresses of networks: yes"]
    install(folder, "a.conflist", plugin("10.1.0.0/24"))
    install(folder, "old.conflist", plugin("10.2.0.0/24"))
    (reason,) = told()
    assert "old (its records)" in reason


def test_files_that_are_none(folder: Path) -> None:
    """They are passed over, and without any network nothing is said."""
    for name, text in (("a.conf", "{"), ("b.conflist", '{"plugins": {}}'), ("c.json", "[]")):
        (folder / name).write_text(text)
    install(folder, "d.conflist")
    install(folder, "e.conflist~", plugin("10.1.0.0/24"))
    (folder / "f.conf").mkdir()
    assert told() == []


def test_a_single_plugin(folder: Path) -> None:
    """A .conf is a network, too."""
    given = {"cniVersion": "1.0.0", "name": "a", **plugin("10.1.0.0/24")}
    (folder / "a.conf").write_text(json.dumps(given))
    install(folder, "b.conflist", plugin("10.1.0.0/24"))
    assert len(told()) == 1


def test_all_examples_together(folder: Path) -> None:
    """They can be installed side by side."""
    paths = sorted(CONF.rglob("*.conf*"))
    for number, path in enumerate(paths):
        (folder / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    assert len([*networks.known()]) == len(paths) > 10
    assert told() == ["addresses of networks: yes"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON: Expecting property name"),
        ("", "not JSON: it is empty"),
        ("[1]", "not a JSON object (found the list [1])"),
        ('{"plugins": {}}', "plugins must be a list of objects (found the object {})"),
        ('{"plugins": [5]}', "plugins.0 must be an object (found the number 5)"),
    ],
)
def test_why_a_file_is_no_configuration(text: str, words: str) -> None:
    """In words of JSON."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        networks.plugins(text.encode())
    assert words in str(caught.value)
