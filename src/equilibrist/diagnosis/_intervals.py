"""Numbers with their intervals."""

from __future__ import annotations

import math
from typing import NamedTuple


class Ratio(NamedTuple):
    """A share or a ratio with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2g} ({self.low:.2g} to {self.high:.2g})"


def wilson_share(share: float, count: int, confidence: float) -> Ratio:
    """A share of `count` independent cases with the score interval of Wilson (1927)."""
    from scipy import stats

    z = float(stats.norm.ppf(0.5 + confidence / 2))
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Ratio(share, max(0.0, middle - reach), min(1.0, middle + reach))
