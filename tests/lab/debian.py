"""Packages of other Debian suites, without touching the system: used by tests/lab/fetch.

Packages come from where this machine's own apt takes its packages, with lists of their own under
~/.cache/cni-netkit/apt, and are unpacked there, not installed. apt checks their signatures as ever.
Standard library only: it must run where nothing is installed.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cni-netkit"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OWN_RELEASE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")


class FetchError(Exception):
    """What could not be fetched, and why."""


def run(*command: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a command and return what it prints. Raises FetchError with its complaints."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise FetchError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def mirror() -> str:
    """Where this machine's apt takes the packages of its own release from.

    apt is asked rather than its files read: it knows sources.list and .sources files and whatever
    else it is configured with.
    """
    for line in run("apt-get", "--print-uris", "update").splitlines():
        if found := re.match(rf"'(\S+?)/?/dists/{re.escape(OWN_RELEASE or '?')}/InRelease'", line):
            return found[1]
    raise FetchError(
        f"apt knows no mirror of this machine's release ({OWN_RELEASE or 'which has no code name'})"
        "; only Debian is known here"
    )


class Apt:
    """An apt that knows some suites and nothing of the packages installed on the system."""

    def __init__(self, *suites: str) -> None:
        self.suites = suites
        self._home = CACHE / "apt"
        self._configuration = self._home / f"{'+'.join(suites)}.conf"
        self._configure()
        say(f"reading the package lists of {', '.join(suites)}")
        self.get("update")

    def _configure(self) -> None:
        for folder in ("lists/partial", "archives/partial"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        (self._home / "status").touch()
        sources = self._configuration.with_suffix(".list")
        # Of the keys that the machine trusts those of Debian itself, not every other repository's.
        option = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        uri = mirror()
        sources.write_text("".join(f"deb {option}{uri} {suite} main\n" for suite in self.suites))
        settings = {
            "Dir::State": self._home,
            "Dir::State::Lists": self._home / "lists",
            "Dir::State::Status": self._home / "status",
            "Dir::Cache": self._home,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Acquire::Languages": "none",
            # Lists of other suites stay: another subcommand wants them.
            "APT::Get::List-Cleanup": "false",
            # A mirror that has stood still for a while is good enough for tools to test with: what
            # is signed stays signed, only newer versions could be withheld.
            "Acquire::Check-Valid-Until": "false",
            # apt's own user cannot write to somebody's cache.
            "APT::Sandbox::User": "root",
        }
        # Hooks of the system (command-not-found, containers' clean-up) are about the system's lists.
        hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke"]
        hooks += ["APT::Update::Post-Invoke-Success", "DPkg::Post-Invoke"]
        self._configuration.write_text(
            "".join(f'{name} "{value}";\n' for name, value in settings.items())
            + "".join(f"#clear {hook};\n" for hook in hooks)
        )

    def get(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run apt-get."""
        return run("apt-get", "-qq", "-c", str(self._configuration), *arguments, cwd=cwd)

    def cache(self, *arguments: str) -> str:
        """Run apt-cache."""
        return run("apt-cache", "-c", str(self._configuration), *arguments)

    def packages(self, pattern: str) -> list["Package"]:
        """The packages whose whole name the pattern matches, the newest first."""
        names = [name for name in self.cache("pkgnames").split() if re.fullmatch(pattern, name)]
        stanzas = self.cache("show", *names).split("\n\n") if names else []
        found = [Package.parse(stanza) for stanza in stanzas if stanza.strip()]
        return newest_first(list(dict.fromkeys(found)))

    def needed_for(self, package: "Package") -> list["Package"]:
        """What apt would install on this system for a package: what it lacks or has too old."""
        installed = run("apt-config", "shell", "file", "Dir::State::Status/f").split("'")[1]
        plan = self.get(
            *("-o", f"Dir::State::Status={installed}", "--simulate", "--no-install-recommends"),
            *("install", f"{package.name}={package.version}"),
        )
        steps = re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE)
        return [Package(name, version) for name, version in steps]

    def unpack(self, package: "Package", into: Path) -> None:
        """Download a package and unpack it."""
        say(f"downloading {package.name} {package.version}")
        with tempfile.TemporaryDirectory(dir=self._home) as folder:
            self.get("download", f"{package.name}={package.version}", cwd=Path(folder))
            (archive,) = Path(folder).glob("*.deb")
            run("dpkg", "-x", str(archive), str(into))

    def upstream_source(self, name: str, into: Path) -> Path:
        """Download the original archive of a source package.

        Its own address is used, not `apt-get source`: that wants the .dsc too, and a mirror that is
        behind its own lists may have only one of the two. The lists are signed, and have the sum.
        """
        listed = self._configuration.with_suffix(".sources.list")
        listed.write_text(
            self._configuration.with_suffix(".list").read_text().replace("deb ", "deb-src ")
        )
        view = ("-o", f"Dir::Etc::SourceList={listed}")
        say(f"reading the source lists of {', '.join(self.suites)}")
        self.get(*view, "update")
        uris = self.get(*view, "source", "--print-uris", "--download-only", name)
        found = re.search(r"^'(\S+)' (\S+\.orig\.tar\.\S+) \d+ SHA256:(\w+)$", uris, re.MULTILINE)
        if not found:
            raise FetchError(f"apt knows no original archive of {name}: {uris}")
        uri, file, wanted = found.groups()
        archive = into / file
        run(
            "/usr/lib/apt/apt-helper",
            "-c",
            str(self._configuration),
            "download-file",
            uri,
            str(archive),
            f"SHA256:{wanted}",
        )
        return archive


@dataclass(frozen=True)
class Package:
    """One version of a package."""

    name: str
    version: str

    @classmethod
    def parse(cls, stanza: str) -> "Package":
        """Read what apt-cache shows."""
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if re.match(r"\S+: ", line)
        )
        return cls(fields["Package"], fields["Version"])

    @property
    def upstream(self) -> str:
        """The version without its epoch."""
        return self.version.rpartition(":")[2]

    @property
    def label(self) -> str:
        """Name and version for a folder: an epoch's colon would cut a PATH in two."""
        return f"{self.name}-{self.upstream}"

    def at_least(self, version: str) -> bool:
        """Whether this is that version of upstream or a later one."""
        # "~" sorts before everything: a backport of 6.10-1 is older than 6.10-1.
        return older(f"{version}~~", self.upstream)


def older(version: str, other: str) -> bool:
    """Compare as dpkg does."""
    return not subprocess.run(["dpkg", "--compare-versions", version, "lt", other]).returncode


def newest_first(packages: list[Package]) -> list[Package]:
    """Sort by version."""
    ordered: list[Package] = []
    for package in packages:
        place = sum(older(package.version, known.version) for known in ordered)
        ordered.insert(place, package)
    return ordered


def say(text: str) -> None:
    """Show progress."""
    print(f"fetch: {text}", file=sys.stderr, flush=True)
