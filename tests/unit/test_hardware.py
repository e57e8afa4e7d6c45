"""tests/hardware: the verdict follows from the steps, what was begun is undone; words of ethtool(8)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.hardware.machine import differences
from tests.hardware.runner import INTERRUPTS, Failed, NotRun, Outcome, Runner, Step, verdict
from tests.hardware.steps import flow_rules, numbers, rss_queues


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What a run does with signals, it does for the rest of its process."""
    before = {number: signal.getsignal(number) for number in (*INTERRUPTS, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def carried_out(*steps: Step) -> dict[str, Outcome]:
    """The outcomes by name."""
    return {each.name: each for each in Runner([], lambda _: None).run(steps)}


def results(outcomes: dict[str, Outcome]) -> dict[str, str]:
    """The results by name."""
    return {name: each.result for name, each in outcomes.items()}


def raising(error: BaseException) -> Callable[[], str]:
    """A step that does not turn out well."""

    def do() -> str:
        raise error

    return do


def fine() -> str:
    """A step that does."""
    return "as expected"


def test_all_ok_works() -> None:
    """What was found is told."""
    outcomes = carried_out(Step("one", fine), Step("two", fine, ("one",)))
    assert [each.text for each in outcomes.values()] == ["as expected", "as expected"]
    assert verdict(list(outcomes.values())) == "works"


@pytest.mark.parametrize("error", [Failed("expected a, found b"), AssertionError("x"), KeyError(1)])
def test_a_failure_makes_the_verdict_and_what_needs_it_is_not_run(error: Exception) -> None:
    """And what was begun is undone, whether it failed or not."""
    outcomes = carried_out(
        Step("begin", fine),
        Step("half", raising(error), ("begin",)),
        Step("then", fine, ("half",)),
        Step("after that", fine, ("then",)),
        Step("undo half", fine, undoes="half"),
        Step("undo then", fine, undoes="then"),
        Step("end", fine, undoes="begin"),
    )
    assert results(outcomes) == {
        "begin": "ok",
        "half": "failed",
        "then": "not run",
        "after that": "not run",
        "undo half": "ok",
        "undo then": "not run",
        "end": "ok",
    }
    assert str(error) in outcomes["half"].text
    assert outcomes["then"].text == "'half' failed"
    assert outcomes["after that"].text == "'then' was not run"
    assert verdict(list(outcomes.values())) == "failed"


def test_a_step_that_cannot_be_tried_leaves_the_verdict_open() -> None:
    """Neither "works" nor "failed"."""
    outcomes = carried_out(Step("one", fine), Step("two", raising(NotRun("no cable"))))
    assert outcomes["two"] == Outcome("two", "not run", "no cable", outcomes["two"].seconds)
    assert verdict(list(outcomes.values())) == "incomplete"


@pytest.mark.parametrize("number", INTERRUPTS)
def test_interrupted_everything_is_put_back(number: int) -> None:
    """Nothing new is begun; who is impatient while it is put back does not stop that."""
    machine = {"setting": "before"}

    def change() -> str:
        machine["setting"] = "changed"
        os.kill(os.getpid(), number)
        threading.Event().wait(10)
        raise AssertionError("not interrupted")

    def put_back() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        machine["setting"] = "before"
        return "put back"

    outcomes = carried_out(
        Step("change", change), Step("more", fine), Step("put back", put_back, undoes="change")
    )
    name = signal.Signals(number).name
    assert machine == {"setting": "before"}
    assert outcomes["change"].text == outcomes["more"].text == f"interrupted by {name}"
    assert results(outcomes) == {"change": "failed", "more": "not run", "put back": "ok"}
    assert verdict(list(outcomes.values())) == "failed"


def test_a_step_has_a_deadline() -> None:
    """Also one that puts something back; and the next has its own."""

    def hang() -> str:
        threading.Event().wait(10)
        return "late"

    outcomes = carried_out(
        Step("hang", hang, seconds=1),
        Step("put back", hang, undoes="hang", seconds=1),
        Step("put all back", fine, undoes="hang"),
    )
    assert outcomes["hang"].text == outcomes["put back"].text == "not done within 1 s"
    assert outcomes["put all back"].result == "ok"


def test_differences_are_named() -> None:
    """What was there and is not, what is there and was not, also what is only twice or elsewhere."""
    before = {"rings": ["RX: 512", "TX: 512"], "same": ["1"], "rules": ["1", "2"]}
    after = {"rings": ["RX: 256", "TX: 512"], "same": ["1"], "rules": ["2", "1"], "more": ["a"]}
    assert differences(before, after) == [
        "rings: expected ['RX: 512'], found ['RX: 256']",
        "rules: expected ['1', '2'], found ['2', '1']",
        "more: expected [], found ['a']",
    ]
    assert differences(before, before) == []


def test_numbers() -> None:
    """As `cni-netkit nic prepare` takes them."""
    assert numbers("8-11,14") == {8, 9, 10, 11, 14}
    with pytest.raises(ValueError, match="invalid literal"):
        numbers("all")


RSS = """\
RX flow hash indirection table for eth1 with 16 RX ring(s):
    0:      0     1     2     3     4     5     6     7
    8:      0     1     2     3     4     5     6    15
RSS hash key:
12:34:56:78:90:12:34:56:78:90
RSS hash function:
    toeplitz: on
    xor: off
"""

RULES = """\
16 RX rings available
Total 2 rules

Filter: 1022
	Rule Type: UDP over IPv4
	Src IP addr: 0.0.0.0 mask: 255.255.255.255
	Dest IP addr: 198.18.218.2 mask: 0.0.0.0
	TOS: 0x0 mask: 0xff
	Src port: 0 mask: 0xffff
	Dest port: 9000 mask: 0x0
	Action: Direct to queue 15

Filter: 1023
	Rule Type: Raw IPv4
	Src IP addr: 0.0.0.0 mask: 255.255.255.255
	Dest IP addr: 10.0.0.1 mask: 0.0.0.0
	Action: Drop

"""


def test_words_of_ethtool() -> None:
    """The RSS table (not the key), the rules; and what a driver without them gives."""
    assert rss_queues(RSS) == {0, 1, 2, 3, 4, 5, 6, 7, 15}
    first, second = flow_rules(RULES)
    assert first["Dest IP addr"] == "198.18.218.2 mask: 0.0.0.0"
    assert (first["Action"], second["Action"]) == ("Direct to queue 15", "Drop")
    nothing = "Cannot get RX rings: Operation not supported\n"
    assert (rss_queues(nothing), flow_rules(nothing)) == (set(), [])
