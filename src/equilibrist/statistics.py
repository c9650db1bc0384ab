"""Statistics of few seeds: intervals, paired differences, effect sizes, and a correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np


class EstimateFacts(TypedDict):
    """A mean over seeds as a JSON file holds it; None for what is not known."""

    mean: float | None
    interval: list[float] | None
    n: int


class Estimate(NamedTuple):
    """A mean over seeds with Student's interval (None below two values), the values' number, and what a test of
    mean 0 says: p-value and effect size mean / standard deviation (NaN where they are not defined)."""

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float = math.nan
    effect: float = math.nan

    def to_json(self) -> EstimateFacts:
        """{"mean", "interval", "n"}; None for what is not known."""
        if not self.n:
            return {"mean": None, "interval": None, "n": 0}
        interval = None if self.low is None or self.high is None else [self.low, self.high]
        return {"mean": self.mean, "interval": interval, "n": self.n}

    def __str__(self) -> str:
        if not self.n:
            return "no value"
        if self.low is None or self.high is None:
            return f"{self.mean:.3g} (one seed)"
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


def estimate(values: Sequence[float | None], confidence: float = 0.95) -> Estimate:
    """The mean of independent values; those that are None or not finite are left out.

    The interval is mean -+ t_{n-1} s / sqrt(n); p is that of Student's two-sided test of mean zero.
    """
    from scipy import stats

    sound = np.array([v for v in values if v is not None and math.isfinite(v)], dtype=float)
    n = len(sound)
    if n < 2:
        return Estimate(float(sound.mean()) if n else math.nan, None, None, n)
    mean, spread = float(sound.mean()), float(sound.std(ddof=1))
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * spread / math.sqrt(n)
    if spread == 0:
        return Estimate(
            mean,
            mean,
            mean,
            n,
            1.0 if mean == 0 else 0.0,
            math.copysign(math.inf, mean) if mean else 0.0,
        )
    p = float(2 * stats.t.sf(abs(mean) / (spread / math.sqrt(n)), n - 1))
    return Estimate(mean, mean - reach, mean + reach, n, p, mean / spread)


def exact_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) for a probability, from independent trials.

    Args:
        successes: their number.
        trials: of how many; without any the interval is (0, 1).
        confidence: with which the interval covers the probability, at least.

    Returns:
        The interval's ends.

    Examples:
        >>> low, high = exact_interval(10, 10)
        >>> round(low, 4), high  # 0.025 ** (1 / 10)
        (0.6915, 1.0)
    """
    from scipy import stats

    if not trials:
        return 0.0, 1.0
    ends = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(ends.low), float(ends.high)


def paired(
    values: Mapping[int, float | None], base: Mapping[int, float | None], confidence: float = 0.95
) -> Estimate:
    """The mean of value - base over the seeds that have both: what seeds share cancels."""
    both = [
        v - b for seed, v in values.items() if v is not None and (b := base.get(seed)) is not None
    ]
    return estimate(both, confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number after Holm (1979): smallest first, times what is left, never falling.

    Values that are not defined (NaN) stay so and do not count.
    """
    sound = sorted((p, i) for i, p in enumerate(p_values) if math.isfinite(p))
    corrected = [math.nan] * len(p_values)
    most = 0.0
    for rank, (p, i) in enumerate(sound):
        most = max(most, min(1.0, p * (len(sound) - rank)))
        corrected[i] = most
    return corrected
