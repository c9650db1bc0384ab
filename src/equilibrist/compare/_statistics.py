"""Means over seeds, with Student's intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def estimate(values: Sequence[float | None], confidence: float) -> dict[str, Any]:
    """{"mean", "interval", "n"} of independent values; those that are None or not finite are left out.

    The interval is Student's, mean -+ t_{n-1} s / sqrt(n), for the mean over all seeds; None below
    two values (for one value nothing is known of its spread).
    """
    from scipy.special import stdtrit

    sound = np.array([v for v in values if v is not None and math.isfinite(v)], dtype=float)
    n = len(sound)
    if n == 0:
        return {"mean": None, "interval": None, "n": 0}
    mean = float(sound.mean())
    if n == 1:
        return {"mean": mean, "interval": None, "n": 1}
    reach = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(sound.std(ddof=1)) / math.sqrt(n)
    return {"mean": mean, "interval": [mean - reach, mean + reach], "n": n}


def paired(
    values: Mapping[int, float | None], base: Mapping[int, float | None], confidence: float
) -> dict[str, Any]:
    """The mean of value - base over the seeds that both have: same weights at the start, same
    minibatches, so that what they share cancels."""
    common = [
        v - b for seed, v in values.items() if v is not None and (b := base.get(seed)) is not None
    ]
    return estimate(common, confidence)
