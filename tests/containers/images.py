"""Images that containers in tests are made of: busybox, and cni-netkit as the Dockerfile makes it.

    python -m tests.containers.images FOLDER

writes both there. The second takes pip's index, or its cache; nothing is built in a container, and no
registry is asked: what Debian's packages have on this machine is taken from there.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cni_netkit import __version__
from tests.containers import oci

ROOT = Path(__file__).parents[2]
BUSYBOX = "localhost/busybox:latest"
CNI_NETKIT = f"docker.io/library/cni-netkit:{__version__}"
"""As containerd completes what conf/kubernetes names."""

FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "var")
FOREVER = ["/bin/sleep", "2147483647"]

PYTHON = Path("/usr/bin/python3")
"""Debian's, whichever one these tests run with: it is that of the Dockerfile's base."""

TOOLS = ("coreutils", "dash", "grep", "mount", "sed")
"""Packages whose programs conf/kubernetes calls, or whoever looks around with kubectl exec."""

LINKS = {name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")}
UNUSED = re.compile(
    r"/(__phello__|config-[^/]*|distutils|ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)/"
)
"""Of Python's own library: it is in memory several times."""


def busybox(target: Path) -> Path:
    """An image of busybox, all of whose applets are commands; by itself it sleeps."""
    return oci.write(
        target,
        BUSYBOX,
        folders=("bin", *FOLDERS),
        files={"bin/busybox": _busybox()},
        links={f"bin/{applet}": "busybox" for applet in _applets()},
        config={"Env": ["PATH=/bin"], "Entrypoint": FOREVER},
    )


def busybox_folder(into: Path) -> Path:
    """The same as a folder (podman run --rootfs)."""
    for name in ("bin", *FOLDERS):
        (into / name).mkdir(parents=True)
    shutil.copy(_busybox(), into / "bin" / "busybox")
    for applet in _applets():
        (into / "bin" / applet).symlink_to("busybox")
    return into


def _busybox() -> Path:
    """The machine's own, which is static."""
    found = shutil.which("busybox")
    assert found, "busybox is not installed; tests/lab/install-packages does that"
    return Path(found)


def _applets() -> set[str]:
    return set(_run(_busybox(), "--list").split()) - {"busybox"}


def cni_netkit(target: Path) -> Path:
    """An image of this checkout."""
    recipe = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    final = dict(re.findall(r"^(ENV|ENTRYPOINT|CMD) (.*)$", recipe, re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "cni-netkit")
        _install(made, recipe)
        files, links = _python()
        more, inside = _tree(made, "opt/cni-netkit")
        libraries = _libraries([*files.values(), *more.values()])
        return oci.write(
            target,
            CNI_NETKIT,
            folders=("usr", "opt", *FOLDERS),
            files={**files, **libraries, **more, **_relocated(more, made)},
            links={**LINKS, **links, **inside},
            config={
                "Env": [final["ENV"]],
                "Entrypoint": json.loads(final["ENTRYPOINT"]),
                "Cmd": json.loads(final["CMD"]),
            },
        )


def _install(folder: Path, recipe: str) -> None:
    """A virtual environment with what the recipe's second pip installs: locked packages, and ours."""
    _run(PYTHON, "-m", "venv", "--without-pip", folder)
    (given,) = re.findall(
        r"--python /opt/cni-netkit/bin/python install (.*--require-hashes.*)", recipe
    )
    locks = re.findall(r"-r (\S+)", given)
    assert locks, "the Dockerfile installs nothing that is locked"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin" / "python",
        "install",
        "-qq",
    ]
    pip += ["--disable-pip-version-check"]
    _run(*pip, "--require-hashes", *(f"-r{ROOT / lock}" for lock in locks))
    _run(*pip, "--no-deps", ROOT)


def _python() -> tuple[dict[str, Path], dict[str, str]]:
    """Debian's Python, a shell and tools, and the library that is opened by its name."""
    ask = "import sys, sysconfig; print(sysconfig.get_path('stdlib'), sys.executable)"
    standard, _ = _run(PYTHON, "-I", "-c", ask).split()
    found, links = _tree(Path(standard), standard.lstrip("/"))
    files = {path: file for path, file in found.items() if not UNUSED.search(path)}
    listed = _run("dpkg-query", "--listfiles", *TOOLS, "libbpf1").splitlines()
    wanted = [
        *(Path(path) for path in listed if re.match(r"(/usr)?/bin/|.*/libbpf\.so", path)),
        *(PYTHON, PYTHON.resolve(), Path("/bin/sh")),
    ]
    for path in wanted:
        inside = _merged(path)
        if path.is_symlink():
            links[inside] = str(path.readlink())
        else:
            files[inside] = path
    return files, links


def _tree(folder: Path, inside: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Files and links below a folder, by where they go."""
    files, links = {}, {}
    for path in folder.rglob("*"):
        place = f"{inside}/{path.relative_to(folder)}"
        if path.is_symlink():
            links[place] = str(path.readlink())
        elif path.is_file():
            files[place] = path
    return files, links


def _libraries(files: Iterable[Path]) -> dict[str, Path]:
    """What programs and libraries are linked with, and what loads them."""
    linked = [path for path in files if _is_elf(path)]
    # ldd fails where one of many is static.
    done = subprocess.run(["ldd", *linked], capture_output=True, text=True)
    assert "not found" not in done.stdout, done.stdout
    found = set(re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout))
    return {_merged(Path(path)): Path(path).resolve() for path in found}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _merged(path: Path) -> str:
    """Where a file of the machine goes: below /usr, which /bin and /lib lead to."""
    inside = str(path).lstrip("/")
    return inside if inside.startswith("usr/") else f"usr/{inside}"


def _relocated(files: dict[str, Path], made: Path) -> dict[str, bytes]:
    """Commands that name their interpreter by where the environment was made."""
    begins = f"#!{made}/".encode()
    scripts = {path: file.read_bytes() for path, file in files.items() if "/bin/" in path}
    return {
        path: text.replace(begins, b"#!/opt/cni-netkit/", 1)
        for path, text in scripts.items()
        if text.startswith(begins)
    }


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    """Write the images into a folder."""
    (folder,) = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    busybox(folder / "busybox.tar")
    cni_netkit(folder / "cni-netkit.tar")


if __name__ == "__main__":
    main()
