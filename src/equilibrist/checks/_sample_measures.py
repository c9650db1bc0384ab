"""What two sets of samples and the critic's scores of them show: separation, ranges, diversity, distance, copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree

SAME = 1e-12  # of the largest score: scores that differ by less are the same in float64


@dataclass(frozen=True)
class Range:
    """The least and the largest entry, the 1% and 99% quantiles, mean and standard deviation of all entries."""

    low: float
    high: float
    q01: float
    q99: float
    mean: float = math.nan
    std: float = math.nan

    def __str__(self) -> str:
        """ "0 to 1": an end that is less than a millionth of the other is written as zero."""
        least = 1e-6 * max(abs(self.low), abs(self.high))
        low, high = (0.0 if abs(end) < least else end for end in (self.low, self.high))
        return f"{low:.3g} to {high:.3g}"


def separation(real: Tensor, fake: Tensor, confidence: float = 0.95) -> tuple[float, float, float]:
    """P(score of a real sample > score of a generated one) + P(equal) / 2, with DeLong's interval.

    DeLong, DeLong and Clarke-Pearson 1988: the variance of both kinds' placements. NaN where a score is not finite.
    """
    if not tree.all_finite(real, fake):
        return math.nan, math.nan, math.nan
    from scipy.stats import norm, rankdata

    x, y = real.numpy(), fake.numpy()
    m, n = len(x), len(y)
    together = rankdata(np.concatenate([x, y]))
    of_real = (together[:m] - rankdata(x)) / n  # share of generated ones below each real sample
    of_fake = 1 - (together[m:] - rankdata(y)) / m
    share = float(of_real.mean())
    variance = of_real.var(ddof=1) / m + of_fake.var(ddof=1) / n if m > 1 < n else math.inf
    width = float(norm.ppf(0.5 + confidence / 2)) * math.sqrt(variance)
    return share, max(share - width, 0.0), min(share + width, 1.0)


def range_of(x: Tensor) -> Range:
    flat = x.flatten()
    if len(flat) > 10**6:
        flat = flat[:: -(-len(flat) // 10**6)]
    q = torch.quantile(flat, torch.tensor([0.01, 0.99], dtype=flat.dtype))
    std = float(x.std(correction=0))
    return Range(float(x.min()), float(x.max()), float(q[0]), float(q[1]), float(x.mean()), std)


def distance_apart(real: Tensor, fake: Tensor, images: bool) -> tuple[float, float]:
    """See `Facts.apart`."""
    dims = None if images else 0
    means = [x.mean(dims) for x in (real, fake)]
    stds = [float(x.var(dims, correction=0).mean().sqrt()) for x in (real, fake)]
    unit = max(stds[0], 1e-300)
    return float((means[0] - means[1]).square().mean().sqrt()) / unit, stds[1] / unit


def constant_score(scores: Tensor) -> float | None:
    """The score that all samples have, to rounding; None where they have not, or are not finite."""
    low, high = (float(end) for end in torch.aminmax(scores))
    same = math.isfinite(low) and high - low <= SAME * max(abs(low), abs(high))
    return high if same and len(scores) > 1 else None


def share_of_copies(x: Tensor, known: Tensor) -> float:
    """The share of rows of x that equal a row of `known` to float32's rounding."""
    centre = known.mean(0)
    nearest = torch.cdist((x - centre).float(), (known - centre).float()).argmin(1)
    unit = float((known - centre).norm(dim=1).mean())
    return float(((x - known[nearest]).norm(dim=1) <= 1e-6 * unit).double().mean())


def share_beyond(x: Tensor, range_: Range) -> float:
    """The share of entries that lie beyond a range by more than 5% of its width."""
    margin = 0.05 * (range_.high - range_.low)
    return float(((x < range_.low - margin) | (x > range_.high + margin)).double().mean())


def diversity_of(
    real: Tensor, fake: Tensor, confidence: float, seed: int
) -> tuple[float, tuple[float, float] | None]:
    """The mean distance between two generated samples over that between two real ones, with the delta method's
    interval for the ratio."""
    from scipy.stats import norm

    (a, a_error), (b, b_error) = (mean_distance(x, seed) for x in (fake, real))
    ratio = 1.0 if a == b else a / max(b, 1e-300)
    if not (a > 0 and b > 0 and math.isfinite(a_error + b_error)):
        return ratio, None
    z = float(norm.ppf(0.5 + confidence / 2))
    factor = math.exp(z * math.hypot(a_error / a, b_error / b))
    return ratio, (ratio / factor, ratio * factor)


def mean_distance(x: Tensor, seed: int) -> tuple[float, float]:
    """Mean Euclidean distance between two samples, over up to 500 of them, and its standard error: that of a
    U-statistic, by its first projection (Hoeffding 1948)."""
    flat = x.flatten(1)
    rng = np.random.default_rng(seed)
    rows = flat[torch.from_numpy(rng.permutation(len(flat))[:500].copy())]
    n = len(rows)
    if n < 3:
        return (float(torch.pdist(rows).mean()) if n > 1 else math.nan), math.nan
    means = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1) / (n - 1)
    return float(means.mean()), 2 * float(means.std()) / math.sqrt(n)
