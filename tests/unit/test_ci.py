"""The parts of .ci/run: beside each other, nothing mixed, every failure counts, nothing left running."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.__main__ import PARTS
from tests.ci.runner import clock

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
# In a process of its own: the runner becomes the parent of whatever has lost its own, and ends it.
RUNNER = """
import sys
from tests.ci import runner
runner.SECONDS_OF_GRACE = 1.0
parts = [runner.Part(name, ["bash", "-euc", line], seats, after) for name, line, seats, after in {}]
sys.exit(runner.main(parts, seats=2))
"""
Parts = list[tuple[str, str, int, list[str]]]


def start(parts: Parts) -> "subprocess.Popen[str]":
    """A runner of these parts: name, line of shell, seats of two, what they need."""
    command = [sys.executable, "-c", RUNNER.format(parts)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ended(parts: Parts) -> tuple[int, str]:
    """The exit status and output of a runner."""
    with start(parts) as process:
        output, _ = process.communicate(timeout=DEADLINE)
    return process.returncode, output


def table(output: str) -> dict[str, str]:
    """How each part ended, as the table at the end has it."""
    lines = output.rpartition("\n\n")[2].splitlines()
    return {line[:14].strip(): line[14:28].strip() for line in lines}


@pytest.fixture
def there_and_back(tmp_path: Path) -> tuple[str, str]:
    """Two lines of shell, of which each is through only when the other has come as far."""
    there, back = tmp_path / "there", tmp_path / "back"
    os.mkfifo(there)
    os.mkfifo(back)
    return f"echo >{there}; read <{back}; ", f"read <{there}; echo >{back}; "


def test_parts_run_beside_each_other_and_are_printed_whole(
    there_and_back: tuple[str, str],
) -> None:
    """Two that wait for each other in their midst both end, and their lines are not mixed."""
    one, two = (f"echo {line!r} begins; {line} echo ends" for line in there_and_back)
    status, output = ended([("one", one, 1, []), ("two", two, 1, [])])
    assert (status, table(output)) == (0, {"one": "ok", "two": "ok", "all": ""})
    for line in there_and_back:
        assert f"{line} begins\nends\n" in output


def test_part_without_a_seat_waits() -> None:
    """One of two seats is taken until the first has ended."""
    status, output = ended([("one", "echo is one", 1, []), ("both", "echo is both", 2, [])])
    assert status == 0
    assert output.index("is one") < output.index("both begins") < output.index("is both")


def test_failure_counts_and_keeps_back_only_what_needs_it() -> None:
    """The others run; the table says what did not."""
    status, output = ended(
        [
            ("base", "echo why; exit 3", 1, []),
            ("needs it", "echo never", 1, ["base"]),
            ("needs that", "echo never", 1, ["needs it"]),
            ("does not", "echo does", 1, []),
        ]
    )
    assert status == 1
    assert table(output) == {
        "base": "failed (3)",
        "does not": "ok",
        "needs it": "not run",
        "needs that": "not run",
        "all": "",
    }
    assert "why\n" in output
    assert "never" not in output


def test_one_failure_of_several_is_a_failure() -> None:
    """Whichever comes last."""
    assert ended([("bad", "false", 1, []), ("good", "true", 2, [])])[0] == 1
    assert ended([("good", "true", 2, []), ("bad", "false", 1, [])])[0] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "], ids=["willing", "stubborn"])
def test_interrupted_it_leaves_nothing_running(tmp_path: Path, number: int, stubborn: str) -> None:
    """Neither a part nor what it started in a session of its own, as the lab's guests are."""
    told = tmp_path / "told"
    os.mkfifo(told)
    line = f'setsid bash -c "{stubborn}echo \\$\\$ >{told}; read <{told}; :" & wait'
    with start([("guest", line, 1, []), ("next", "true", 2, [])]) as process:
        guest = int(told.read_text())
        process.send_signal(number)
        output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert table(output) == {"guest": "cut short", "next": "not run", "all": ""}
    assert not Path(f"/proc/{guest}").exists()


def test_every_part_is_there() -> None:
    """Each is a command of this checkout, and comes behind what it needs."""
    before: set[str] = set()
    for part in PARTS:
        assert os.access(part.command[0], os.X_OK) or part.command[0] == "bash", part
        assert before.issuperset(part.after)
        before.add(part.name)
    assert before >= {"test", "endurance", "install", "kubernetes", "runtimes"}


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 60, 3671)] == ["0:00", "0:59", "1:00", "61:11"]
