"""`.ci/release`, rehearsed without an image: what a release consists of, looked at from outside."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.install import roots
from tests.unit.test_release import commit

MACHINES = {"x86_64": ("x86-64", []), "aarch64": ("ARM aarch64", ["qemu-aarch64-static"])}

pytestmark = pytest.mark.skipif(
    any(shutil.which(each) is None for each in ("aarch64-linux-gnu-gcc", "qemu-aarch64-static")),
    reason="needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user-static",
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of this checkout as it is, from the wheels that are locked, without network."""
    folder = tmp_path_factory.mktemp("release")
    checkout = folder / "checkout"
    ignore = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", "netkit", "xsk.bpf.o", ".*_cache"
    )
    shutil.copytree(roots.ROOT, checkout, ignore=ignore)
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    commit(checkout)
    command: list[str | Path] = [checkout / ".ci" / "release", "--rehearse", "--no-image"]
    nowhere = (tmp_path_factory.mktemp("advisories")).as_uri()
    own = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(roots.locked_wheels()),
        "CNI_NETKIT_ADVISORIES": nowhere,
    }
    roots.run(*command, folder / "made", env=os.environ | own)
    return folder / "made"


def wheel(release: Path, machine: str) -> Path:
    (found,) = release.glob(f"*_{machine}.whl")
    return found


def test_all_of_it_is_there(release: Path) -> None:
    """Sources, two wheels, the bill; and the checksums are theirs."""
    names = {each.name for each in release.iterdir()}
    kinds = {re.sub(r"(cni[_-]netkit)-[\d.]+[\d]", r"\1", each) for each in names}
    assert kinds == {
        "SHA256SUMS",
        "cni-netkit.cdx.json",
        "cni_netkit.tar.gz",
        *(f"cni_netkit-py3-none-manylinux_2_17_{m}.musllinux_1_1_{m}.whl" for m in MACHINES),
    }
    told = (release / "SHA256SUMS").read_text().splitlines()
    assert {each.split()[1] for each in told} == names - {"SHA256SUMS"}
    roots.run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=release)


@pytest.mark.parametrize("machine", MACHINES)
def test_launchers_run_on_their_machine(release: Path, machine: str, tmp_path: Path) -> None:
    """Static, and refused by nobody who listens."""
    elf, emulator = MACHINES[machine]
    with zipfile.ZipFile(wheel(release, machine)) as content:
        launcher = Path(content.extract("cni_netkit/agent/launcher/netkit", tmp_path))
    launcher.chmod(0o755)
    seen = roots.run("file", launcher)
    assert elf in seen
    assert "statically linked" in seen
    done = subprocess.run(
        [*emulator, launcher],
        env={"CNI_COMMAND": "STATUS", "CNI_NETKIT_SOCKET": "/nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 50


def test_the_bill_is_of_what_is_installed(release: Path) -> None:
    """Each package of the image with its licence; ours is the one that needs them."""
    (path,) = release.glob("*.cdx.json")
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    ours = bill["metadata"]["component"]
    assert ours["name"] == "cni-netkit"
    assert f"-{ours['version']}.cdx.json" in path.name
    names = {each["name"] for each in bill["components"]}
    direct = {"lightkube", "prometheus_client", "pydantic", "pyroute2", "rich", "structlog"}
    assert direct < names
    assert all(each["licenses"] for each in bill["components"])
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    # Besides, what is there for others and an extra names as well, such as PyYAML.
    assert direct <= {each.partition("==")[0] for each in needs[ours["bom-ref"]]}
