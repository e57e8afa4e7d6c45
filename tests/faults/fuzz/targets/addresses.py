"""A folder of host-local in any state: `NAME`, NUL, its content, NUL, and so on.

Then ADD, CHECK, DEL and GC of an attachment. Other programs write there too.
"""

import os
import shutil
from ipaddress import ip_address
from pathlib import Path

from cni_netkit.ipam.base import Invocation
from cni_netkit.ipam.host_local import HostLocal
from cni_netkit.ipam.owners import forget
from tests.faults.fuzz import oracle

FOLDER = Path("/run/addresses/net")
CANARY = Path("/run/canary")
LINKS = ("LINK", "DIRECTORY", "FIFO")
INVOCATION = Invocation(
    config={
        "cniVersion": "1.1.0",
        "name": "net",
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.1.0.0/28"}], [{"subnet": "fd00:1::/64"}]],
            "dataDir": str(FOLDER.parent),
        },
    },
    version="1.1.0",
    network="net",
    container_id="c1",
    ifname="eth0",
)


def prepare(inside: int) -> None:
    """What must stay as it is."""
    CANARY.mkdir()
    (CANARY / "file").write_text("untouched")


def one(data: bytes) -> None:
    """Errors with codes; what was reserved belongs to others as before; nothing is written elsewhere."""
    _make(data)
    others = _others()
    with oracle.silent():
        with oracle.refusing(5, 103, 106):
            given = {each["address"] for each in HostLocal(INVOCATION).add().ips}
            assert len(given) == 2, given
            assert not given & {name for name, _ in others}, "given twice"
        with oracle.refusing(5, 105):
            HostLocal(INVOCATION).check()
        with oracle.refusing(5):
            HostLocal(INVOCATION).delete()
            assert not _of(b"c1\r\neth0"), "not released"
            HostLocal(INVOCATION).collect({("c2", "eth0")})
    assert os.listdir(CANARY) == ["file"], "written elsewhere"
    assert (CANARY / "file").read_text() == "untouched"


def _make(data: bytes) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    forget(str(FOLDER))
    FOLDER.mkdir(parents=True)
    parts = data.split(b"\0")
    for name, content in zip(parts[::2], parts[1::2], strict=False):
        path = FOLDER / os.fsdecode(name.replace(b"/", b"_"))[:100]
        if str(path) == str(FOLDER) or path.name in ("", ".", "..") or os.path.lexists(path):
            continue
        _plant(path, content)


def _plant(path: Path, content: bytes) -> None:
    if content == b"LINK":
        path.symlink_to(CANARY / "file")
    elif content == b"DANGLING":
        path.symlink_to(CANARY / "new")
    elif content == b"DIRECTORY":
        path.mkdir()
    elif content == b"FIFO":
        os.mkfifo(path)
    else:
        path.write_bytes(content)


def _others() -> list[tuple[str, bytes]]:
    found = [(path.name, path.read_bytes()) for path in FOLDER.iterdir() if _is_plain(path)]
    return [(name, owner) for name, owner in found if not owner.startswith(b"c1") and owner.strip()]


def _of(owner: bytes) -> list[str]:
    files = [path for path in FOLDER.iterdir() if _is_plain(path) and _is_address(path.name)]
    return [path.name for path in files if path.read_bytes() == owner]


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
