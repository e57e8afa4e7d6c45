"""The benchmark's arithmetic. What it measures decides no test."""

import pytest

from tests.bench.figures import Ratio, median, percentile, ratio


def test_the_median_is_the_middle_one_or_between_the_two_in_the_middle() -> None:
    assert median([9.0, 1.0, 5.0]) == 5.0
    assert median([4.0, 1.0, 9.0, 2.0]) == 3.0


def test_a_percentile_is_a_sample_that_was_seen() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert percentile(hundred, 0.99) == 99.0
    assert percentile([*hundred, 101.0], 0.99) == 100.0
    assert percentile(hundred, 0.25) == 25.0
    assert percentile([3.0, 8.0, 5.0], 0.99) == 8.0
    assert percentile([7.0], 0.0) == 7.0


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_pairs() -> None:
    ours, theirs = [2.0, 1.0, 30.0, 4.0], [4.0, 4.0, 40.0, 4.0]
    assert ratio(ours, theirs) == Ratio(medians=0.75, low=0.25, high=0.75)


def test_samples_that_were_not_taken_in_turns_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0])
