"""Intervals that stay valid however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist.checks import Interval
from equilibrist.checks.context import student

Array = NDArray[np.float64]
ROUNDING = 1e-6  # of the values' size: samples are made in float32


def spent(alpha: float, look: int) -> float:
    """The error probability that look number `look` may spend: alpha / (look (look + 1)).

    The sum over all looks 1, 2, 3, ... is alpha. By the union bound, intervals whose look k misses with probability
    at most spent(alpha, k) hold all together with probability 1 - alpha, whatever the looks have in common and
    whenever one stops.

    Args:
        alpha: of all looks together.
        look: counted from 1.

    Examples:
        >>> round(sum(spent(0.05, k) for k in range(1, 10000)), 4)
        0.05
    """
    if look < 1:
        raise ValueError(f"looks are counted from 1, not {look}")
    return alpha / (look * (look + 1))


def bernstein(values: Array, low: float, high: float, alpha: float) -> tuple[Array, Array]:
    """A confidence sequence for the mean of bounded values: with probability 1 - alpha all its intervals hold it.

    The empirical-Bernstein sequence with predictable weights of Waudby-Smith and Ramdas (2024, Estimating means of
    bounded random variables by betting, theorem 2), intersected over time. It needs no asymptotics, and it may be
    looked at after every value. With x in [0, 1], the centre is sum(lambda_i x_i) / sum(lambda_i) and the reach

        (log(2 / alpha) + sum 4 (x_i - m_{i-1})^2 psi(lambda_i)) / sum(lambda_i),  psi(l) = (-log(1 - l) - l) / 4

    with m the running mean, lambda_t = min(1/2, sqrt(2 log(2 / alpha) / (v_{t-1} t log(1 + t)))), and v the running
    variance, both begun with half a value at 1/2.

    Args:
        values: [n], in the order in which they came; each with the same mean given those before it.
        low, high: their bounds.
        alpha: the error probability of the whole sequence.

    Returns:
        Lower and upper ends after each value, [n] each.

    Raises:
        ValueError: values beyond the bounds, or bounds that are none.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite with low < high, not {low} and {high}")
    x = (np.asarray(values, dtype=float) - low) / (high - low)
    if not (np.isfinite(x).all() and (x >= -1e-9).all() and (x <= 1 + 1e-9).all()):
        raise ValueError(f"a value lies beyond the bounds {low:g} to {high:g}")
    n = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (n + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1)
    before = np.concatenate([[0.5], mean[:-1]])
    spread = np.concatenate([[0.25], variance[:-1]])
    rate = np.minimum(0.5, np.sqrt(2 * math.log(2 / alpha) / (spread * n * np.log1p(n))))
    total = np.cumsum(rate)
    centre = np.cumsum(rate * x) / total
    psi = (-np.log1p(-rate) - rate) / 4
    reach = (math.log(2 / alpha) + np.cumsum(4 * (x - before) ** 2 * psi)) / total
    lows = np.maximum.accumulate(np.maximum(centre - reach, 0.0))
    highs = np.minimum.accumulate(np.minimum(centre + reach, 1.0))
    return low + (high - low) * lows, low + (high - low) * highs


@dataclass(frozen=True)
class Values:
    """What one quantity of one checkpoint is on each held-out row (or batch): independent given the checkpoint.

    Attributes:
        values: [n].
        bounds: that hold every value; None where there are none.
        widen: by how much intervals are widened because the rows are shared.
    """

    values: Array
    bounds: tuple[float, float] | None = None
    widen: float = 1.0

    @property
    def sound(self) -> bool:
        """Whether every value is a finite number."""
        return bool(len(self.values)) and bool(np.isfinite(self.values).all())

    def interval(self, alpha: float) -> Interval:
        """The mean with its interval, which misses with probability at most alpha: `bernstein`, without asymptotics,
        where values are bounded, else Student's."""
        return _interval(self.values, self.bounds, self.widen, alpha)

    def less(self, other: Values, alpha: float) -> Interval:
        """The mean of these less the others, paired: both are of the same rows. What rounding makes is none."""
        bounds = None
        if self.bounds is not None:
            width = self.bounds[1] - self.bounds[0]
            bounds = (-width, width)
        found = _interval(self.values - other.values, bounds, self.widen, alpha)
        slack = ROUNDING * float(np.abs(self.values).mean() + np.abs(other.values).mean())
        return Interval(found.mean, found.low - slack, found.high + slack)


def _interval(
    values: Array, bounds: tuple[float, float] | None, widen: float, alpha: float
) -> Interval:
    mean = float(np.mean(values))
    if bounds is not None:
        lows, highs = bernstein(values, *bounds, alpha)
        return Interval(mean, float(lows[-1]), float(highs[-1]))
    found = student(torch.as_tensor(values), 1 - alpha)
    reach = found.half_width * widen
    return Interval(mean, mean - reach, mean + reach)
