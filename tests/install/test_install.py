"""install.sh in a Debian root in which no systemd runs: files, versions, and what is left alone."""

import json
import platform
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.install import roots
from tests.install.machine import Machine
from tests.unit.test_docs import broken

PLUGIN = "/opt/cni/bin/netkit"
UNITS = "/etc/systemd/system/cni-netkit-agent"
CONFLIST = "/etc/cni/net.d/10-netkit.conflist"
SAYS = "install.sh: "
COMMAND = "/usr/local/bin/cni-netkit"
PAGE = "/usr/local/share/man/man8/cni-netkit.8"
COMPLETIONS = {
    "bash": "/usr/local/share/bash-completion/completions/cni-netkit",
    "zsh": "/usr/local/share/zsh/site-functions/_cni-netkit",
    "fish": "/etc/fish/completions/cni-netkit.fish",
}
LINKS = (COMMAND, PAGE, *COMPLETIONS.values())


def about(machine: Machine) -> str:
    """What the plugin in the runtime's folder says about itself."""
    return machine.run(PLUGIN).stdout


def answer(machine: Machine, executable: str = PLUGIN) -> str:
    """The plugin's answer to VERSION."""
    done = machine.run("env", "CNI_COMMAND=VERSION", executable, stdin='{"cniVersion": "1.0.0"}')
    assert done.returncode == 0, done.stdout
    return done.stdout


def put(machine: Machine, path: str, content: str, mode: int = 0o644) -> None:
    """Write a file before or between two runs."""
    done = machine.run("install", "-D", "-m", oct(mode)[2:], "/dev/stdin", path, stdin=content)
    assert done.returncode == 0, done.stdout


def without_folders(text: str) -> str:
    """What was said, without the names that mktemp chose, the tense, and the kernel of the tests."""
    said = [line for line in text.splitlines() if line.startswith(SAYS)]
    said = [line for line in said if not line.startswith(f"{SAYS}warning: ")]
    said = [line.replace(f"{SAYS}would ", SAYS) for line in said]
    said = [line for line in said if not re.match(rf"{SAYS}netkit .* is ", line)]
    return re.sub(r"versions/(\(new\)|\w+)", "versions/X", "\n".join(said))


def test_fresh_install(machine: Machine) -> None:
    """The launcher and what it becomes are files of their own; units are enabled; no conflist."""
    said = machine.install("--wheels", "/media/one")
    assert f"netkit {roots.OLD} is {PLUGIN}" in said
    launcher = machine.upper / PLUGIN[1:]
    assert not launcher.is_symlink()
    assert launcher.read_bytes()[:4] == b"\x7fELF"
    assert launcher.stat().st_mode & 0o7777 == 0o755
    # Without /opt/cni-netkit it still runs, as in a container that has only CNI_PATH mounted.
    assert about(machine).startswith(f"netkit {roots.OLD}: CNI plugin")
    assert json.loads(answer(machine))["cniVersion"] == "1.0.0"
    assert json.loads(answer(machine, f"{PLUGIN}-python"))["cniVersion"] == "1.0.0"
    files = machine.files()
    assert "/etc/systemd/system/sockets.target.wants/cni-netkit-agent.socket" in files
    assert "/etc/systemd/system/multi-user.target.wants/cni-netkit-agent.service" in files
    assert CONFLIST not in files
    outside = ("/opt/cni-netkit/", "/opt/cni/bin/netkit", "/etc/systemd/system/")
    assert {name for name in files if not name.startswith(outside)} == set(LINKS)
    assert not [name for name in files if "/.netkit" in name or name.endswith(".new")]


def test_units_are_sound(installed: Machine) -> None:
    """systemd's own verifier has nothing to say, and its measure of exposure is a medium one."""
    units = [f"{UNITS}.socket", f"{UNITS}.service"]
    verified = installed.run("systemd-analyze", "verify", *units)
    assert (verified.returncode, verified.stdout) == (0, "")
    judged = installed.run(
        *("systemd-analyze", "security", "--offline=true", "--threshold=45", f"{UNITS}.service")
    )
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]


def test_second_run_changes_nothing(installed: Machine) -> None:
    """Not even times or inodes, and it says so."""
    installed.run("true")
    before = installed.state()
    said = installed.install("--wheels", "/media/one")
    assert "nothing to do" in said
    assert installed.state() == before


@pytest.mark.parametrize("lost", [PLUGIN, f"{PLUGIN}-python", f"{UNITS}.service", COMMAND, PAGE])
def test_second_run_puts_back_what_is_lost(installed: Machine, lost: str) -> None:
    """And nothing else: the environment stays."""
    environment = installed.run("readlink", "/opt/cni-netkit/current").stdout
    assert installed.run("rm", lost).returncode == 0
    said = installed.install("--wheels", "/media/one")
    assert without_folders(said) == f"{SAYS}put {lost} in place"
    assert installed.run("test", "-s", lost).returncode == 0
    assert installed.run("readlink", "/opt/cni-netkit/current").stdout == environment


def test_with_packages_for_metrics_and_traces(installed: Machine) -> None:
    """They come with an environment of their own; the next time there is nothing to do."""
    python = "/opt/cni-netkit/current/bin/python"
    both = "import prometheus_client, opentelemetry.sdk.trace"
    assert installed.run(python, "-I", "-c", both).returncode == 1
    extras = ("--wheels", "/media/one", "--with", "metrics,otel")
    installed.install(*extras)
    assert installed.run(python, "-I", "-c", both).returncode == 0
    assert "nothing to do" in installed.install(*extras)


def test_upgrade_and_rollback(installed: Machine) -> None:
    """The previous version stays; back, and forth again; older ones go."""
    old = installed.run("readlink", "/opt/cni-netkit/current").stdout
    installed.install("--wheels", "/media/two")
    assert about(installed).startswith(f"netkit {roots.NEW}:")
    assert installed.run("readlink", "/opt/cni-netkit/previous").stdout == old
    assert f"netkit {roots.OLD} is {PLUGIN}" in installed.install("--rollback")
    assert about(installed).startswith(f"netkit {roots.OLD}:")
    assert installed.run("readlink", "/opt/cni-netkit/current").stdout == old
    python = installed.run("cat", f"{PLUGIN}-python").stdout
    assert python.startswith(f"#!/opt/cni-netkit/{old.strip()}/bin/python")
    assert f"netkit {roots.NEW} is {PLUGIN}" in installed.install("--rollback")
    assert about(installed).startswith(f"netkit {roots.NEW}:")
    installed.install("--wheels", "/media/one")
    installed.install("--wheels", "/media/two")
    assert len(installed.run("ls", "/opt/cni-netkit/versions").stdout.split()) == 2
    assert json.loads(answer(installed))["cniVersion"] == "1.0.0"


def test_rollback_brings_the_units_of_its_version(installed: Machine, tmp_path: Path) -> None:
    """They come with the wheel."""
    environment = installed.run("readlink", "-f", "/opt/cni-netkit/current").stdout.strip()
    unit = f"{environment}/share/cni-netkit/conf/systemd/cni-netkit-agent.service"
    assert installed.run("sed", "-i", "1i # of the older version", unit).returncode == 0
    installed.install("--wheels", "/media/two")
    assert "of the older version" not in installed.run("cat", f"{UNITS}.service").stdout
    installed.install("--rollback")
    assert "of the older version" in installed.run("cat", f"{UNITS}.service").stdout


def test_rollback_without_a_previous_version(installed: Machine) -> None:
    before = installed.state()
    assert "there is no previous version" in installed.install("--rollback", status=1)
    assert installed.state() == before


@pytest.mark.parametrize(
    ("start", "arguments"),
    [
        ("machine", ["--wheels", "/media/one", "--conflist"]),
        ("installed", ["--wheels", "/media/two"]),
        ("installed", ["--wheels", "/media/one"]),
        ("upgraded", ["--rollback"]),
        ("upgraded", ["--uninstall"]),
    ],
    ids=["fresh", "upgrade", "again", "rollback", "uninstall"],
)
def test_dry_run(request: pytest.FixtureRequest, start: str, arguments: list[str]) -> None:
    """It changes nothing, and announces what the real run then does."""
    machine: Machine = request.getfixturevalue(start)
    before = settled(machine)
    announced = machine.install(*arguments, "--dry-run")
    assert machine.state() == before
    done = machine.install(*arguments)
    removed = re.compile(f"{SAYS}remove .*, which nothing uses")
    done_lines = [line for line in without_folders(done).splitlines() if not removed.match(line)]
    assert without_folders(announced).splitlines() == done_lines


def settled(machine: Machine) -> dict[str, tuple[object, ...]]:
    """The state before something that is to change nothing, but for files that come and go."""
    places = "/tmp /opt /opt/cni-netkit/versions"
    machine.run("sh", "-c", f"for each in {places}; do touch $each/x && rm $each/x; done")
    return machine.state()


def read_only(media: Path, into: Path) -> None:
    """/usr/local is a file system that cannot be written to, as with a system of images."""
    script = (media / "install.sh").read_text()
    (into / "install.sh").write_text(
        script.replace("set -euo", "mount -t tmpfs -o ro none /usr/local\nset -euo", 1)
    )
    (into / "install.sh").chmod(0o755)


@pytest.mark.parametrize(
    ("how", "arguments", "complaint"),
    [
        ("no Python", [], "no Python 3.11 or later that can make virtual environments"),
        ("no wheels", ["--wheels", "/media"], "--wheels /media: no cni_netkit-*.whl in it"),
        ("cut off", [], "could not install"),
        ("without a dependency", [], "could not install"),
        ("verbs", [], "the installed plugin does not work, nothing has been changed"),
        ("no example", ["--conflist", "none"], "--conflist none: neither a file nor an example"),
        ("no JSON", ["--conflist", "/media/install.sh"], "/media/install.sh: it is not JSON"),
        ("foreign", [], f"{COMMAND} exists and is not of this installation"),
        ("another's", ["--prefix", "/etc"], "/etc exists, was not made by this script"),
        ("read-only", [], "cannot write to /usr/local/bin: is it mounted read-only?"),
        ("no root", [], "cannot write to /opt/cni-netkit: are you root?"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else "",
)
def test_dry_run_fails_as_the_real_run_does(
    machine: Machine, media: Path, tmp_path: Path, how: str, arguments: list[str], complaint: str
) -> None:
    """With the same words and exit status, and nothing is changed by either."""
    machine.media = tmp_path / "media"
    machine.media.mkdir()
    shutil.copy(media / "install.sh", machine.media)
    if how in ("cut off", "without a dependency", "verbs"):
        broken_wheel(media, how, machine.media / "wheels")
    else:
        shutil.copytree(media / "two", machine.media / "wheels")
    if how == "read-only":
        read_only(media, machine.media)
    if how == "foreign":
        put(machine, COMMAND, "#!/bin/sh\n", 0o755)
    command = ["env", *(["PYTHON=/bin/false"] if how == "no Python" else []), "/media/install.sh"]
    if how == "no root":
        command = ["setpriv", "--reuid=65534", "--clear-groups", *command]
    options = arguments if "--wheels" in arguments else ["--wheels", "/media/wheels", *arguments]
    before = settled(machine)
    last = []
    for dry_run in (["--dry-run"], []):
        done = machine.run(*command, *options, *dry_run)
        assert done.returncode == 1, done.stdout
        said = [line for line in done.stdout.splitlines() if line.startswith(SAYS)]
        last.append(without_folders(said[-1]))
        assert complaint in said[-1]
        after = machine.state()
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        # The folders on the way stay, after a real run.
        assert {each for each in changed if not str(after[each][0]).startswith("0o4")} == set()
        assert not (dry_run and changed), changed
    assert last[0] == last[1]


@pytest.mark.parametrize("dry_run", [True, False])
def test_kernel_without_netkit_is_told(machine: Machine, *, dry_run: bool) -> None:
    """What works here and what does not; it is no reason to stop."""
    said = machine.install("--wheels", "/media/one", *(["--dry-run"] if dry_run else []))
    lacks = f"{SAYS}warning: this kernel ({platform.release()}) has no netkit devices"
    has_netkit = not machine.run("ip", "link", "add", "nktest", "type", "netkit").returncode
    assert (lacks in said) == (not has_netkit)
    assert ('"fallback": "veth", as veth pairs' in said) == (lacks in said)


def test_uninstall_leaves_nothing(machine: Machine) -> None:
    """Not one file, and nothing of the system's is missing."""
    machine.install("--wheels", "/media/one", "--conflist")
    machine.install("--wheels", "/media/two")
    assert CONFLIST in machine.files()
    machine.install("--uninstall")
    assert machine.files() == set()
    assert "nothing to do" in machine.install("--uninstall")


def test_command_can_be_typed(installed: Machine) -> None:
    """By root, with sudo and its secure_path, by everyone; and it is the version in use."""
    version = f"cni-netkit {roots.OLD}\n"
    assert installed.run("cni-netkit", "--version").stdout == version
    # It complains of a host without a name here.
    assert installed.run("sudo", "cni-netkit", "--version").stdout.endswith(version)
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    assert installed.run(*as_nobody, "cni-netkit", "--version").stdout == version
    before = {link: installed.run("readlink", link).stdout for link in LINKS}
    installed.install("--wheels", "/media/two")
    assert installed.run("cni-netkit", "--version").stdout == f"cni-netkit {roots.NEW}\n"
    installed.install("--rollback")
    assert installed.run("cni-netkit", "--version").stdout == version
    assert {link: installed.run("readlink", link).stdout for link in LINKS} == before


def test_documentation_is_where_help_says(installed: Machine) -> None:
    """A folder that is there; man finds the page; no link of a document leads nowhere."""
    folder = installed.run("cni-netkit", "--help").stdout.split()[-1]
    assert installed.run("test", "-f", f"{folder}/troubleshooting.md").returncode == 0
    where = installed.run("man", "--where", "cni-netkit").stdout
    assert where == installed.run("readlink", "-e", PAGE).stdout
    assert folder == "/opt/cni-netkit/current/share/cni-netkit/docs"
    page = installed.run("man", "--no-justification", "--no-hyphenation", "cni-netkit").stdout
    assert "/opt/cni-netkit/current/share/cni-netkit/docs" in page


def test_documents_lead_somewhere(media: Path, tmp_path: Path) -> None:
    """What they link to is installed with them."""
    (wheel,) = media.glob("one/cni_netkit-*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    (share,) = tmp_path.glob("*.data/data/share/cni-netkit")
    documents = [*share.glob("*.md"), *share.glob("docs/*.md")]
    assert len(documents) > 8
    assert {path.name: broken(path) for path in documents if broken(path)} == {}


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        # As the first TAB does it.
        ("bash", ". /usr/share/bash-completion/bash_completion; _completion_loader cni-netkit; "
         "[ $? = 124 ] && complete -p cni-netkit"),
        ("zsh", "autoload -U compinit; compinit -u -D; echo $_comps[cni-netkit]"),
        ("fish", "complete --do-complete 'cni-netkit nic pre'"),
    ],
)  # fmt: skip
def test_shells_complete(installed: Machine, shell: str, script: str) -> None:
    """Each finds its file by itself."""
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    options = [] if shell == "fish" else options
    done = installed.run("env", "HOME=/tmp", shell, *options, "-c", script)
    expected = {
        "bash": "-F _shtab_cni_netkit cni-netkit",
        "zsh": "_cni-netkit",
        "fish": "prepare\t",
    }
    assert expected[shell] in done.stdout


def test_version_without_a_page(upgraded: Machine) -> None:
    """The link goes with the page, and comes back with it."""
    older = upgraded.run("readlink", "-f", "/opt/cni-netkit/previous").stdout.strip()
    upgraded.run("rm", f"{older}/share/man/man8/cni-netkit.8")
    said = upgraded.install("--rollback")
    assert f"remove {PAGE}, which this version does not have" in said
    assert PAGE not in {name for name in upgraded.files() if not upgraded.is_whiteout(name)}
    upgraded.install("--rollback")
    assert upgraded.run("man", "--where", "cni-netkit").returncode == 0


def test_command_elsewhere(machine: Machine) -> None:
    """Page and completions beside it; where that is on no PATH it says what to type."""
    options = ["--wheels", "/media/one", "--no-systemd", "--command-dir=/srv/netkit/bin"]
    said = machine.install(*options)
    assert "warning: /srv/netkit/bin is not in your PATH" in said
    assert "type /srv/netkit/bin/cni-netkit" in said
    assert machine.run("/srv/netkit/bin/cni-netkit", "--version").returncode == 0
    page = "/srv/netkit/share/man/man8/cni-netkit.8"
    assert machine.run("readlink", "-e", page).returncode == 0
    assert not any(name.startswith("/usr/local") for name in machine.files())
    machine.install("--uninstall", "--command-dir=/srv/netkit/bin")
    assert machine.files() == set()


def test_uninstall_leaves_records_of_living_containers(installed: Machine) -> None:
    """Only the plugin can release what they hold: it says how many there are."""
    record = "/var/lib/cni/netkit/pods/abc:eth0.json"
    put(installed, record, "{}")
    put(installed, "/var/lib/cni/netkit/lock", "")
    said = installed.install("--uninstall")
    assert "1 attachments of containers are still recorded in /var/lib/cni/netkit" in said
    left = {name for name in installed.files() if not installed.is_whiteout(name)}
    assert left == {record, "/var/lib/cni/netkit/lock"}


def test_uninstall_names_nics_that_stay_prepared(installed: Machine) -> None:
    """What they were before is on record, and stays there."""
    record = "/var/lib/cni/netkit/nics/eth1.json"
    put(installed, record, "{}")
    said = installed.install("--uninstall")
    assert "prepared NICs stay as they are: eth1" in said
    assert "cni-netkit nic restore NAME" in said
    assert "attachments" not in said
    left = {name for name in installed.files() if not installed.is_whiteout(name)}
    assert left == {record}


def test_conflist_is_written_only_if_asked_for_and_never_over_another(installed: Machine) -> None:
    """Default, example by name, file; one that is there stays, whoever wrote it."""
    example = (roots.ROOT / "conf" / "40-veth-fallback.conflist").read_text()
    installed.install("--wheels", "/media/one", "--conflist=40-veth-fallback")
    assert installed.run("cat", CONFLIST).stdout == example
    said = installed.install("--wheels", "/media/one", "--conflist")
    assert f"{CONFLIST} exists and is left as it is" in said
    assert installed.run("cat", CONFLIST).stdout == example
    put(installed, CONFLIST, "of the administrator")
    installed.install("--wheels", "/media/two", "--conflist", "11-l2-pair")
    assert installed.run("cat", CONFLIST).stdout == "of the administrator"
    assert "has been changed since it was written, left alone" in installed.install("--uninstall")
    assert installed.run("cat", CONFLIST).stdout == "of the administrator"


def test_conflist_of_ones_own(installed: Machine) -> None:
    """A file; what is no JSON, or is not there, is refused."""
    for name, text in (("mine.conflist", '{"name": "mine"}\n'), ("odd.conflist", "{")):
        put(installed, f"/root/{name}", text)
    refused = ["--wheels", "/media/two", "--conflist"]
    before = settled(installed)
    assert "it is not JSON" in installed.install(*refused, "/root/odd.conflist", status=1)
    said = installed.install(*refused, "none", status=1)
    assert "neither a file nor an example" in said
    assert "10-l3-pair.conflist" in said
    assert installed.state() == before
    installed.install("--wheels", "/media/one", "--conflist", "/root/mine.conflist")
    assert installed.run("cat", CONFLIST).stdout == '{"name": "mine"}\n'


@pytest.mark.parametrize("name", [PLUGIN, f"{PLUGIN}-python", *LINKS])
def test_what_is_not_ours_is_left_alone(machine: Machine, name: str) -> None:
    """By an installation, which then does nothing, and by an uninstallation."""
    put(machine, name, "#!/bin/sh\n", 0o755)
    before = machine.state()
    said = machine.install("--wheels", "/media/one", status=1)
    assert f"{name} exists and is not of this installation: move it away first" in said
    assert machine.state() == before
    assert "left alone" in machine.install("--uninstall")
    assert machine.state() == before


def broken_wheel(media: Path, how: str, into: Path) -> None:
    """A folder of wheels of which one does not work."""
    shutil.copytree(media / "two", into)
    (wheel,) = into.glob("cni_netkit-*.whl")
    if how == "cut off":
        wheel.write_bytes(wheel.read_bytes()[:5000])
    elif how == "without a dependency":
        for each in into.glob("pydantic_core-*.whl"):
            each.unlink()
    else:
        with (
            zipfile.ZipFile(media / "two" / wheel.name) as good,
            zipfile.ZipFile(wheel, "w") as bad,
        ):
            for item in good.infolist():
                wrong = item.filename == f"cni_netkit/{how}.py"
                bad.writestr(item, "raise RuntimeError('broken')" if wrong else good.read(item))


@pytest.mark.parametrize("how", ["cut off", "without a dependency", "verbs", "agent/server"])
@pytest.mark.parametrize("start", ["machine", "installed"])
def test_broken_wheel_changes_nothing(
    request: pytest.FixtureRequest, media: Path, tmp_path: Path, start: str, how: str
) -> None:
    """Neither on a fresh machine, where nothing is left, nor where a version is in use."""
    machine: Machine = request.getfixturevalue(start)
    broken_wheel(media, how, tmp_path / "media" / "broken")
    shutil.copy(media / "install.sh", tmp_path / "media")
    machine.media = tmp_path / "media"
    machine.run("true")
    before = machine.state()
    said = machine.install("--wheels", "/media/broken", status=1)
    assert "nothing has been changed" in said
    after = machine.state()
    # The folders on the way stay, and so may their times.
    assert {k: v for k, v in after.items() if not str(v[0]).startswith("0o4")} == {
        k: v for k, v in before.items() if not str(v[0]).startswith("0o4")
    }
    if start == "installed":
        assert json.loads(answer(machine))["cniVersion"] == "1.0.0"


def test_without_systemd(machine: Machine) -> None:
    """No units if none are wanted; other folders if others are."""
    said = machine.install(
        *(
            "--wheels",
            "/media/one",
            "--no-systemd",
            "--prefix=/srv/netkit",
            "--bin-dir",
            "/srv/bin",
        ),
        *("--command-dir", "/srv/bin"),
    )
    assert f"netkit {roots.OLD} is /srv/bin/netkit" in said
    assert {name.split("/")[1] for name in machine.files()} == {"srv"}
    assert json.loads(answer(machine, "/srv/bin/netkit"))["cniVersion"] == "1.0.0"
    machine.install(
        *("--uninstall", "--prefix", "/srv/netkit", "--bin-dir=/srv/bin", "--command-dir=/srv/bin")
    )
    assert machine.files() == set()


def test_units_know_another_prefix(machine: Machine) -> None:
    machine.install("--wheels", "/media/one", "--prefix", "/srv/netkit")
    unit = machine.run("cat", f"{UNITS}.service").stdout
    assert "ExecStart=/srv/netkit/current/bin/cni-netkit agent" in unit
    assert machine.run("systemd-analyze", "verify", f"{UNITS}.service").stdout == ""
    assert "/srv/netkit/current/share" in machine.run("cat", PAGE).stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--what"], "unknown argument --what, see --help"),
        (["--from"], "--from wants a value"),
        (["--from", "/nowhere"], "--from /nowhere: there is no such file or folder"),
        (["--from", "/etc"], "--from /etc: no pyproject.toml in it"),
        (["--wheels", "/nowhere"], "--wheels /nowhere: there is no such folder"),
        (["--wheels", "/etc"], "--wheels /etc: no cni_netkit-*.whl in it, say --from"),
        (["--wheels=/media/one", "--prefix=/etc"], "/etc exists, was not made by this script"),
        (["--rollback"], "nothing is installed in /opt/cni-netkit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_told(machine: Machine, arguments: list[str], complaint: str) -> None:
    """In one line, and nothing changes."""
    assert complaint in machine.install(*arguments, status=1)
    assert machine.files() == set()


def test_no_python_is_told(machine: Machine) -> None:
    said = machine.install("--wheels", "/media/one", status=1, python="/bin/false")
    assert "on Debian: apt-get install python3-venv" in said
    assert machine.files() == set()


def test_help_names_every_option(machine: Machine) -> None:
    text = machine.install("--help")
    script = (roots.ROOT / "install.sh").read_text()
    options = set(re.findall(r"^        (--[a-z-]+)", script, re.MULTILINE))
    assert options >= {"--from", "--rollback", "--conflist"}
    assert [option for option in options if option not in text] == []
