"""Shares and orders with intervals: how often one sample scores above another, and how many do something."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from torch import Tensor

from equilibrist.checks import Interval
from equilibrist.checks.context import student


def wilson(share: float, count: float, confidence: float) -> Interval:
    """A share of `count` independent cases with the score interval of Wilson (1927)."""
    if count <= 0:
        return Interval(share, 0.0, 1.0)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = (
        z
        / (1 + z * z / count)
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    )
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def share_ordered(above: Tensor, below: Tensor, confidence: float) -> Interval:
    """The share of pairs in which a score of `above` is the higher one, ties counting half.

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988); the interval is Wilson's at the number of
    independent cases that this variance amounts to, so that it has a width at shares of 0 and 1 too.
    """
    a, b = above.double().cpu().numpy(), below.double().cpu().numpy()
    m, n = len(a), len(b)
    ranks = stats.rankdata(np.concatenate([a, b]))
    by_above = (ranks[:m] - stats.rankdata(a)) / n
    by_below = 1 - (ranks[m:] - stats.rankdata(b)) / m
    share = float(by_above.mean())
    variance = float(by_above.var(ddof=1) / m + by_below.var(ddof=1) / n) if min(m, n) > 1 else 0.0
    least = float(min(m, n))
    count = share * (1 - share) / variance if variance > 0 else least
    return wilson(share, min(max(count, 1.0), float(m * n)) if variance > 0 else least, confidence)


def missing_share(part: Tensor, whole: Tensor, confidence: float) -> Interval:
    """1 - E part / E whole from paired values, with the interval of the linearised ratio."""
    total = float(whole.mean())
    if not total > 0:
        return Interval(math.nan, -math.inf, math.inf)
    ratio = float(part.mean()) / total
    spread = student((part - ratio * whole) / total, confidence)
    return Interval(1 - ratio, 1 - ratio - spread.half_width, 1 - ratio + spread.half_width)


def pairs_apart(a: Tensor, b: Tensor, most: int = 2000) -> float:
    """The mean distance between a sample of one kind and one of the other."""
    n = min(len(a), len(b), most)
    return float((a[:n].flatten(1).double() - b[:n].flatten(1).double()).norm(dim=1).mean())
