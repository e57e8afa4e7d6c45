"""Medians, tails and ratios of samples."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Samples = Sequence[float]


def median(samples: Samples) -> float:
    """The middle one, or the mean of the two in the middle."""
    return statistics.median(samples)


def percentile(samples: Samples, share: float) -> float:
    """The smallest sample that `share` (0 to 1) of all do not exceed: nearest rank, never invented.

    With fewer than 100 samples the 99th percentile is so the largest.
    """
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Ratio:
    """Of the medians; `low` and `high` are the quartiles of the ratios pair by pair.

    What disturbs the machine for a while disturbs both of a pair: where the quartiles lie close
    together, the ratio can be believed though the times cannot.
    """

    medians: float
    low: float
    high: float


def ratio(samples: Samples, against: Samples) -> Ratio:
    """Compare samples that were taken in turns: the first with the first, and so on."""
    pairs = [one / other for one, other in zip(samples, against, strict=True)]
    return Ratio(
        median(samples) / median(against), percentile(pairs, 0.25), percentile(pairs, 0.75)
    )
