""".ci/audit: what is known of locked packages, by pages as PyPI's JSON API has them."""

import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

KNOWN = {
    "aliases": ["CVE-2013-7459", "GHSA-cq27-v7xp-c356"],
    "details": "Heap-based buffer overflow in the ALGnew function in block_templace.c in Python "
    "Cryptography Toolkit (aka pycrypto) allows remote attackers to execute arbitrary code.",
    "fixed_in": [],
    "id": "PYSEC-2017-94",
    "link": "https://osv.dev/vulnerability/PYSEC-2017-94",
    "source": "osv",
    "summary": None,
    "withdrawn": None,
}
"""As PyPI tells it of pycrypto 2.6.1."""


class Pages:
    """A server of pages, as files."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url, self._folder = url, folder

    def put(self, path: str, version: str, *known: dict[str, Any], **keys: object) -> None:
        """A page; `keys` in the place of what it would have."""
        page = {"info": {"version": version}, "vulnerabilities": known, **keys}
        target = self._folder / path / "json"
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(page))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    folder = tmp_path / "pages"
    folder.mkdir()
    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield Pages(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        serving.join()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the command looks at: a lock."""
    made = tmp_path / "checkout"
    (made / ".ci").mkdir(parents=True)
    (made / "requirements").mkdir()
    (made / ".ci" / "audit").write_text((ROOT / ".ci" / "audit").read_text())
    (made / ".ci" / "audit").chmod(0o755)
    lock(made, "run", "pycrypto==2.6.1")
    return made


def lock(checkout: Path, name: str, *packages: str) -> None:
    text = "".join(f"{each} \\\n    --hash=sha256:0\n" for each in packages)
    (checkout / "requirements" / f"{name}.lock").write_text(f"# Made by a test.\n{text}")


def audit(
    checkout: Path, url: str, variable: str = "CNI_NETKIT_ADVISORIES"
) -> tuple[int, str, str]:
    """The exit status, and what is printed."""
    environment = {"PATH": "/usr/bin:/bin", variable: url}
    command = [checkout / ".ci" / "audit"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_version_that_is_known_to_be_vulnerable(checkout: Path, pages: Pages) -> None:
    """It is named with all names of the advisory."""
    pages.put("pycrypto/2.6.1", "2.6.1", KNOWN)
    status, told, said = audit(checkout, pages.url)
    assert status == 1
    assert said.startswith(
        "audit: known: pycrypto 2.6.1: PYSEC-2017-94, CVE-2013-7459, GHSA-cq27-v7xp-c356: Heap-based"
    )
    assert told == f"audit: 1 of 1 packages asked of {pages.url}: 1 known\n"


def test_without_a_source_the_index_of_pip_is_asked(checkout: Path, pages: Pages) -> None:
    pages.put("pypi/pycrypto/2.6.1", "2.6.1", KNOWN)
    status, told, _ = audit(checkout, f"{pages.url}/simple/", "PIP_INDEX_URL")
    assert status == 1
    assert told == f"audit: 1 of 1 packages asked of {pages.url}/pypi: 1 known\n"


def test_nothing_is_known(checkout: Path, pages: Pages) -> None:
    """Of all locks; what was withdrawn is none; the page of the newest version does for that one."""
    lock(checkout, "build", "pycrypto==2.6.1", "typing-extensions==4.16.0")
    pages.put("pycrypto/2.6.1", "2.6.1", {**KNOWN, "withdrawn": "2020-01-01T00:00:00Z"})
    pages.put("typing-extensions", "4.16.0")
    told = f"audit: 2 of 2 packages asked of {pages.url}: 0 known\n"
    assert audit(checkout, pages.url) == (0, told, "")


def test_no_answer_is_not_taken_for_none(checkout: Path, pages: Pages) -> None:
    """Nobody there, a page that is missing, of another version, or without a word of it."""
    assert audit(checkout, "http://127.0.0.1:9/pypi")[0] == 3
    lock(checkout, "run", "absent==1", "older==1", "silent==1", "strange==1")
    pages.put("older", "2", KNOWN)
    pages.put("silent/1", "1", vulnerabilities=None)
    (checkout.parent / "pages" / "strange" / "1").mkdir(parents=True)
    (checkout.parent / "pages" / "strange" / "1" / "json").write_text("<html>")
    status, told, said = audit(checkout, pages.url)
    assert status == 3
    assert told == f"audit: 0 of 4 packages asked of {pages.url}: 0 known\n"
    assert [line.split(": ")[2] for line in said.splitlines()] == [
        *("absent 1", "older 1", "silent 1", "strange 1")
    ]
    assert "tells of 2 only" in said


def test_known_outweighs_unasked(checkout: Path, pages: Pages) -> None:
    lock(checkout, "build", "absent==1")
    pages.put("pycrypto", "2.6.1", KNOWN)
    status, _, said = audit(checkout, pages.url)
    assert status == 1
    assert "not asked: absent 1" in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("PYSEC-2017-94 nobody encrypts", 0),
        ("CVE-2013-7459 nobody encrypts", 0),
        ("PYSEC-2017-94", 1),
    ],
)
def test_what_does_not_concern_us(checkout: Path, pages: Pages, line: str, expected: int) -> None:
    """By any of its names, and with a reason only."""
    pages.put("pycrypto/2.6.1", "2.6.1", KNOWN)
    (checkout / "requirements" / "accepted").write_text(f"# ID why\n{line}\n")
    status, told, _ = audit(checkout, pages.url)
    assert status == expected
    assert ("audit: accepted: pycrypto 2.6.1: PYSEC-2017-94" in told) == (not expected)


def test_a_lock_that_locks_nothing(checkout: Path) -> None:
    (checkout / "requirements" / "run.lock").write_text("pycrypto>=2\n")
    status, _, said = audit(checkout, "http://127.0.0.1:9")
    assert status == 1
    assert "run.lock locks nothing" in said


def locked(name: str) -> dict[str, str]:
    """Package -> version, of one of our own locks; each has hashes."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    marker = r"(?: ; platform_machine == 'x86_64')?"
    hashes = r"((?: \\\n    --hash=sha256:[0-9a-f]{64})+)"
    found = re.findall(rf"^([\w.-]+)==(\S+){marker}{hashes}$", text, re.M)
    assert len(found) == len(re.findall(r"^[^#\s]", text, re.M))
    return {package: version for package, version, _ in found}


def test_what_is_tested_is_what_is_released() -> None:
    """Packages of both locks are of one version, and every test tool is in one of them."""
    run, tests = locked("run"), locked("test")
    assert {key: tests[key] for key in run.keys() & tests} == {
        key: run[key] for key in run.keys() & tests
    }
    wanted = re.search(r"^test = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert wanted is not None
    names = re.findall(r'^ *"([\w-]+)', wanted[1], re.M)
    assert {each.lower() for each in names} <= tests.keys()
