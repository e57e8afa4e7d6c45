"""install.sh in a Debian root in which no systemd runs: files, versions, and what is left alone."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.install import roots
from tests.install.machine import Machine

PLUGIN = "/opt/cni/bin/netkit"
UNITS = "/etc/systemd/system/cni-netkit-agent"
CONFLIST = "/etc/cni/net.d/10-netkit.conflist"
SAYS = "install.sh: "


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
    """What was said, without the names that mktemp chose and without the tense."""
    said = [line for line in text.splitlines() if line.startswith(SAYS)]
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
    assert [name for name in files if not name.startswith(outside)] == []
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


@pytest.mark.parametrize("lost", [PLUGIN, f"{PLUGIN}-python", f"{UNITS}.service"])
def test_second_run_puts_back_what_is_lost(installed: Machine, lost: str) -> None:
    """And nothing else: the environment stays."""
    environment = installed.run("readlink", "/opt/cni-netkit/current").stdout
    assert installed.run("rm", lost).returncode == 0
    said = installed.install("--wheels", "/media/one")
    assert without_folders(said) == f"{SAYS}put {lost} in place"
    assert installed.run("test", "-s", lost).returncode == 0
    assert installed.run("readlink", "/opt/cni-netkit/current").stdout == environment


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
    unit = f"{environment}/share/cni-netkit/systemd/cni-netkit-agent.service"
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
    machine.run("true")
    before = machine.state()
    announced = machine.install(*arguments, "--dry-run")
    assert machine.state() == before
    done = machine.install(*arguments)
    expected = without_folders(done).splitlines()
    for line in without_folders(announced).splitlines():
        if line in expected:
            expected.remove(line)
        else:
            sure, _, condition = line.rpartition(", ")
            assert condition == "if it differs", line
            if sure in expected:
                expected.remove(sure)
    assert expected == []


def test_uninstall_leaves_nothing(machine: Machine) -> None:
    """Not one file, and nothing of the system's is missing."""
    machine.install("--wheels", "/media/one", "--conflist")
    machine.install("--wheels", "/media/two")
    assert CONFLIST in machine.files()
    machine.install("--uninstall")
    assert machine.files() == set()
    assert "nothing to do" in machine.install("--uninstall")


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
    refused = ["--wheels", "/media/one", "--conflist"]
    assert "it is not JSON" in installed.install(*refused, "/root/odd.conflist", status=1)
    said = installed.install(*refused, "none", status=1)
    assert "neither a file nor an example" in said
    assert "10-l3-pair.conflist" in said
    assert not [name for name in installed.files() if name.startswith("/etc/cni")]
    installed.install("--wheels", "/media/one", "--conflist", "/root/mine.conflist")
    assert installed.run("cat", CONFLIST).stdout == '{"name": "mine"}\n'


@pytest.mark.parametrize("name", [PLUGIN, f"{PLUGIN}-python"])
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
        *("--wheels", "/media/one", "--no-systemd", "--prefix=/srv/netkit", "--bin-dir", "/srv/bin")
    )
    assert f"netkit {roots.OLD} is /srv/bin/netkit" in said
    assert {name.split("/")[1] for name in machine.files()} == {"srv"}
    assert json.loads(answer(machine, "/srv/bin/netkit"))["cniVersion"] == "1.0.0"
    machine.install("--uninstall", "--prefix", "/srv/netkit", "--bin-dir=/srv/bin")
    assert machine.files() == set()


def test_units_know_another_prefix(machine: Machine) -> None:
    machine.install("--wheels", "/media/one", "--prefix", "/srv/netkit")
    unit = machine.run("cat", f"{UNITS}.service").stdout
    assert "ExecStart=/srv/netkit/current/bin/cni-netkit agent" in unit
    assert machine.run("systemd-analyze", "verify", f"{UNITS}.service").stdout == ""


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
