"""Taking back (cni_netkit.undo)."""

from collections.abc import Callable

import pytest

from cni_netkit.spec.errors import CNIError
from cni_netkit.undo import Failures, Undo


def failing(error: Exception) -> Callable[[], None]:
    """An action that fails."""

    def action() -> None:
        raise error

    return action


def test_last_done_first_undone() -> None:
    """What was done last is taken back first."""
    undo, order = Undo(), list[int]()
    for number in range(3):
        undo.push(f"step {number}", lambda number=number: order.append(number))  # type: ignore[misc]
    assert not undo.run()
    assert order == [2, 1, 0]


def test_one_failure_does_not_stop_the_others() -> None:
    """Every entry is tried, whatever became of the one before."""
    undo, order = Undo(), list[str]()
    undo.push("first", lambda: order.append("first"))
    undo.push("second", failing(CNIError(5, "second failed")))
    undo.push("third", failing(ValueError("third failed")))
    undo.push("fourth", lambda: order.append("fourth"))
    assert undo.run()
    assert order == ["fourth", "first"]


def test_run_twice() -> None:
    """What was taken back is not taken back again."""
    undo, order = Undo(), list[str]()
    undo.push("it", lambda: order.append("it"))
    undo.run()
    undo.run()
    assert order == ["it"]


def test_first_failure_is_thrown_with_the_others_noted() -> None:
    """The first failure is raised, its code kept, the others are in its details."""
    failures = Failures()
    failures.run("a", failing(CNIError(104, "first", "why")))
    failures.run("b", failing(CNIError(5, "second")))
    failures.run("c", failing(ValueError("third")))
    with pytest.raises(CNIError, match="first") as caught:
        failures.raise_first()
    assert caught.value.code == 104
    assert caught.value.details.startswith("why; second; ")
    assert "c: ValueError" in caught.value.details
    assert "third" in caught.value.details


def test_other_errors_are_translated() -> None:
    """What is no CNI error becomes one by the given words, and says what was being undone."""
    undo = Undo(lambda error: CNIError(104, f"the kernel said {error}"))
    undo.push("make a device", failing(ValueError("no")))
    with pytest.raises(CNIError) as caught:
        undo.run().raise_first()
    assert caught.value.code == 104
    assert caught.value.message == "undo: make a device: the kernel said no"


def test_an_error_of_unknown_kind_is_internal() -> None:
    """Without a translation an error that is none of the CNI's is error 999."""
    failures = Failures()
    failures.run("a", failing(ValueError("no")))
    with pytest.raises(CNIError, match="a: ValueError: no") as caught:
        failures.raise_first()
    assert caught.value.code == 999


def test_nothing_to_throw() -> None:
    """Without a failure nothing is raised."""
    failures = Failures()
    failures.run("a", lambda: None)
    assert not failures
    failures.raise_first()


def test_failure_noted_by_hand() -> None:
    """A failure that was found elsewhere counts as well."""
    failures = Failures()
    failures.add(CNIError(50, "elsewhere"))
    with pytest.raises(CNIError, match="elsewhere"):
        failures.raise_first()


def test_note_on_the_error_that_came_first() -> None:
    """Failures while undoing are notes on the error that made it necessary, and replace nothing."""
    failures = Failures()
    failures.run("a", failing(CNIError(5, "cannot undo")))
    error = CNIError(101, "no queue", "ask for fewer")
    failures.attach_to(error)
    assert (error.code, error.message) == (101, "no queue")
    assert error.details == "ask for fewer; undoing failed too: cannot undo"


def test_note_on_another_kind_of_error() -> None:
    """An error that has no details stays as it is."""
    failures = Failures()
    failures.add(CNIError(5, "cannot undo"))
    error = KeyboardInterrupt()
    failures.attach_to(error)
    assert error.args == ()


def test_an_interruption_is_not_swallowed() -> None:
    """Only failures are collected: an interruption ends the undoing."""
    with pytest.raises(KeyboardInterrupt):
        Failures().run("a", failing(KeyboardInterrupt()))  # type: ignore[arg-type]
