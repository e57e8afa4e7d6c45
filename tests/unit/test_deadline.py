"""Deadlines: how long something may be waited for."""

import itertools
from contextlib import suppress

import pytest

from cni_netkit import deadline
from cni_netkit.spec.errors import CNIError, Code


def test_without_a_deadline_there_is_the_usual_time() -> None:
    """For a process that answers one request only."""
    assert deadline.left("wait") == deadline.SECONDS


def test_what_is_left_gets_less() -> None:
    """And ends with the block that set it."""
    with deadline.within(30):
        first = deadline.left("wait")
        second = deadline.left("wait")
    assert 30 > first > second > 29
    assert deadline.left("wait") == deadline.SECONDS


def test_inner_deadline_holds_inside() -> None:
    """The outer one holds again afterwards, also after an error."""
    with deadline.within(30):
        with suppress(ValueError), deadline.within(10):
            assert deadline.left("wait") < 10
            raise ValueError
        assert 29 < deadline.left("wait") < 30


def test_no_time_left_is_error_11() -> None:
    """It says what was being waited for."""
    with deadline.within(0), pytest.raises(CNIError) as raised:
        deadline.left("wait for Godot")
    assert raised.value.code == Code.TRY_AGAIN_LATER
    assert raised.value.message.startswith("wait for Godot: ")
    assert "given up" in raised.value.message
    assert raised.value.details


def test_polling_ends_with_success() -> None:
    """It is tried again, and not once more than needed."""
    answers = [True, False, False]
    deadline.poll("wait", answers.pop)
    assert answers == []


def test_polling_tries_once_also_without_time() -> None:
    """What can be had at once needs no waiting."""
    with deadline.within(0):
        deadline.poll("wait", lambda: True)


def test_polling_ends_at_the_deadline() -> None:
    """With error 11, after more than one attempt."""
    attempts = itertools.count()
    with deadline.within(0.05), pytest.raises(CNIError) as raised:
        deadline.poll("wait for Godot", lambda: next(attempts) < 0)
    assert raised.value.code == Code.TRY_AGAIN_LATER
    assert next(attempts) > 1


def test_polling_without_a_deadline_has_one() -> None:
    """Nothing waits for ever: while it polls, time passes; the next poll begins anew."""
    left = []

    def attempt() -> bool:
        left.append(deadline.left("wait"))
        return len(left) % 2 == 0

    for _ in range(2):
        deadline.poll("wait", attempt)
    assert left[0] > left[1] < left[2] > left[3]
