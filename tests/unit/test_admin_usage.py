"""What cni-netkit says to a command line that cannot be meant: exit status 2, before anything else."""

import argparse

import pytest

from cni_netkit.admin import lease, nic
from tests.unit.test_admin import call


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[str]:
    """The lines on standard error."""

    def never(*_: object) -> None:
        pytest.fail("it was carried out")

    monkeypatch.setattr(lease, "add", never)
    monkeypatch.setattr(lease, "remove", never)
    monkeypatch.setattr(nic, "nic_of", never)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments)
    assert ended.value.code == 2
    output, said = capsys.readouterr()
    assert output == ""
    return said.splitlines()


@pytest.mark.parametrize(
    ("given", "command", "fault"),
    [
        ("--bogus", "", "unknown option --bogus"),
        ("--bogus list", "", "unknown option --bogus"),
        ("--verson", "", "unknown option --verson; did you mean --version?"),
        ("-x", "", "unknown option -x"),
        ("lst", "", "unknown command lst; did you mean list?"),
        ("xyzzy", "", "unknown command xyzzy"),
        ("list --bogus", " list", "unknown option --bogus"),
        ("list --jsom", " list", "unknown option --jsom; did you mean --json?"),
        ("list --jsom=1", " list", "unknown option --jsom; did you mean --json?"),
        ("list -x", " list", "unknown option -x"),
        ("list more", " list", "unexpected argument more"),
        ("lease ad c1", " lease", "unknown command ad; did you mean add?"),
        (
            "lease add c1 --devise eth7",
            " lease add",
            "unknown option --devise; did you mean --device?",
        ),
    ],
)
def test_what_is_not_known_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
    command: str,
    fault: str,
) -> None:
    """With what may have been meant, and where help is; not all that there is."""
    lines = refused(monkeypatch, capsys, *given.split())
    assert lines == [
        f"cni-netkit{command}: {fault}",
        f"Try 'cni-netkit{command} --help'.",
    ]


def test_options_may_be_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As argparse has it; what is none of a command's may be a value, behind "--"."""
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--vers")
    assert ended.value.code == 0
    seen = []

    def carry_out(_action: object, arguments: argparse.Namespace) -> int:
        seen.append((arguments.container, arguments.device))
        return 0

    monkeypatch.setattr(lease, "main", carry_out)
    assert call(monkeypatch, "lease", "add", "--dev", "eth7", "--", "--c1") == 0
    assert seen == [("--c1", "eth7")]


FAULTS = {
    ("--workload", "x"): '--workload: must be "io_uring" or "af_xdp" (found "x")',
    ("--workload", "iouring"): "--workload: must be",
    ("--count", "0"): "--count: must be a whole number from 1 to 1023 (found 0)",
    ("--count", "-1"): "--count: must be a whole number from 1 to 1023 (found -1)",
    ("--count", "x"): "--count: must be a whole number from 1 to 1023 (found",
    ("--queues", "9-1"): "--queues: the range 9-1 runs backwards",
    ("--flows", "x"): '--flows: must be "address" or "none" (found "x")',
    ("--ifname", "a/b"): "--ifname: has",
    ("--device", "a/b"): "--device: has",
}


@pytest.mark.parametrize("given", FAULTS, ids=" ".join)
def test_lease_add_looks_at_its_options_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: tuple[str, str]
) -> None:
    """Before it looks for the container."""
    words = ("lease", "add", "nobody", "--device", "eth7", *given)
    told, where = refused(monkeypatch, capsys, *words)
    assert told.startswith(f"cni-netkit lease add: {FAULTS[given]}")
    assert where == "Try 'cni-netkit lease add --help'."


def test_all_faults_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One a line; what follows from two options together, too."""
    options = [word for option in FAULTS for word in option]
    lines = refused(monkeypatch, capsys, "lease", "add", "nobody", *options)
    assert [line.split()[3] for line in lines[:-1]] == [
        *("--device:", "--count:", "--queues:", "--workload:", "--flows:", "--ifname:")
    ]
    options = ["--device", "eth7", "--count", "2", "--queues", "5"]
    told, _ = refused(monkeypatch, capsys, "lease", "add", "nobody", *options)
    assert told == (
        "cni-netkit lease add: count is 2, but queues names only 1; "
        "name more queues or ask for fewer"
    )


def test_lease_remove_looks_at_its_options_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device cannot be called so."""
    told, _ = refused(monkeypatch, capsys, "lease", "remove", "nobody", "--ifname", "a b")
    assert told.startswith("cni-netkit lease remove: --ifname: has")


def test_nic_prepare_looks_at_its_options_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it looks for the NIC; what is no option has its own name."""
    words = ("--role", "x", "--queues", "9-1", "--channels", "0", "--ring", "x")
    lines = refused(monkeypatch, capsys, "nic", "prepare", "a/b", *words)
    assert [line.split()[3] for line in lines[:-1]] == [
        *("device:", "--role:", "--queues:", "--channels:", "--ring:")
    ]
    assert lines[-1] == "Try 'cni-netkit nic prepare --help'."
    copying = ("--role", "io_uring", "--queues", "4-7", "--copy")
    told, _ = refused(monkeypatch, capsys, "nic", "prepare", "eth7", *copying)
    assert told == (
        'cni-netkit nic prepare: copy is for role "af_xdp"; io_uring copies of its own accord'
    )
