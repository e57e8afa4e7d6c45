"""No file outside our folders is touched, whatever symbolic links stand in them; modes are as promised."""

import contextlib
import json
import os
import stat
from pathlib import Path

import pytest

from cni_netkit.agent import server, xsk
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics.prepare import prepare
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.nics import Preparation
from tests.faults.fuzz import seeds
from tests.kernel.conftest import JSON, Node

STORE, ADDRESSES = Path("/var/lib/cni/netkit"), Path("/var/lib/cni/networks")
RECORD = STORE / "net" / "c1:eth0.json"
NAMES = {
    "lock": STORE / "lock",
    "record": RECORD,
    "new record": Path(f"{RECORD}.new"),
    "what was added": Path(f"{RECORD}.added"),
    "network": STORE / "net",
    "NICs": STORE / "nics",
    "NIC": STORE / "nics" / "NIC.json",
    "new NIC": STORE / "nics" / "NIC.new",
    "addresses": ADDRESSES / "net",
    "lock of addresses": ADDRESSES / "net" / "lock",
    "last address": ADDRESSES / "net" / "last_reserved_ip.0",
    "address": ADDRESSES / "net" / "10.1.0.2",
}
TARGETS = ("file", "folder", "missing")


class Canary:
    """A tree outside, and what it was like."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "folder").mkdir(parents=True)
        for name in (
            "file",
            "folder/eth0",
            "folder/c1:eth0.json",
            "folder/lock",
            "folder/10.1.0.2",
        ):
            (root / name).write_text(json.dumps({"untouched": name}))
        (root / "folder" / "xsk.sock").touch()
        self.before = self.tree()

    def tree(self) -> dict[str, object]:
        """Kind, mode, times and content of everything in it."""
        found: dict[str, object] = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content)
        return found

    def is_untouched(self) -> None:
        assert self.tree() == self.before


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


def requests(node: Node, config: JSON, container: str) -> None:
    """Every verb, whatever comes of it; but each tells what is wrong with a code of its own."""
    for verb in ("STATUS", "ADD", "CHECK", "DEL", "GC", "ADD", "GC", "DEL"):
        given = {**config, "prevResult": seeds.PREVIOUS} if verb == "CHECK" else config
        answer = node.call(verb, given, container, cid="c1")
        assert answer.status == 0 or answer.error["code"] in (5, 50, 103, 105), answer


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_links_in_our_folders(node: Node, canary: Canary, name: str, target: str) -> None:
    """In each place at which we write, to a file, a folder, and to nothing."""
    nic = node.nic()
    path = Path(str(NAMES[name]).replace("NIC.", f"{nic}."))
    path.parent.mkdir(parents=True, mode=0o700)
    path.symlink_to(canary.root / target)
    config, container = seeds.usual(), node.container()
    requests(node, config, container)
    host = Namespace.current()
    with contextlib.closing(host), contextlib.suppress(CNIError, OSError):
        prepare(host, Preparation(device=nic, role="io_uring", queues=(6, 7)))
    canary.is_untouched()
    if path.is_symlink():
        path.unlink()
    requests(node, config, container)


@pytest.mark.any_kernel
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", ["agent.sock", "agent.sock.lock", "xsk.sock", "xsk", "xsk/xsk.sock"]
)
def test_links_beside_the_sockets(tmp_path: Path, canary: Canary, name: str, target: str) -> None:
    """An agent starts in their place, or says what is in its way."""
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(canary.root / target)
    path = str(tmp_path / "run" / "agent.sock")
    with contextlib.suppress(server.AgentError), server.listen(path), xsk.served(path):
        canary.is_untouched()
    canary.is_untouched()


def test_modes(node: Node) -> None:
    """Files are root's alone, and folders; but for host-local's, which are as the reference has them."""
    before = os.umask(0)
    try:
        nic, container = node.nic(), node.container()
        node.prepare(nic, "io_uring", "6-7")
        node.add(seeds.usual(), container)
    finally:
        os.umask(before)
    seen = {path: stat.S_IMODE(path.stat().st_mode) for path in STORE.rglob("*")}
    assert len(seen) >= 5, seen
    assert {mode for path, mode in seen.items() if path.is_file()} == {0o600}, seen
    assert {mode for path, mode in seen.items() if path.is_dir()} == {0o700}, seen
    assert stat.S_IMODE(STORE.stat().st_mode) == 0o700
    assert stat.S_IMODE((ADDRESSES / "net").stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in ADDRESSES.glob("net/10.*")} == {0o600}
