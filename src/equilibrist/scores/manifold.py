"""Precision and recall, density and coverage: which samples lie in the other set's neighbourhoods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist.data.arrays import Array
from equilibrist.errors import DataError
from equilibrist.scores._arrays import pair, row_blocks
from equilibrist.scores._base import FeatureScore


class ManifoldScores(NamedTuple):
    """Precision, recall and coverage lie in [0, 1]; density has expectation 1 for equal laws."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: Array, fake: Array, k: int = 3) -> ManifoldScores:
    """Shares of samples inside the other set's k-nearest-neighbour balls.

    r(x) is the distance of x to its k-th nearest neighbour in its own set, itself not counted, and
    B(x) the closed ball of that radius.

    - precision: share of fake samples in B(x) for some real x;
    - recall: share of real samples in B(y) for some fake y
      (Kynkaanniemi et al. 2019, arXiv:1904.06991; their k is 3);
    - density: 1/(k m) sum over fake y of the number of real x with y in B(x);
    - coverage: share of real x whose B(x) holds a fake sample
      (Naeem et al. 2020, arXiv:2002.09797; their k is 5).

    Distances are Euclidean. Computed in
    float64; distances in blocks of 8 MiB, so that 10,000 samples of each kind take about 100 MB
    besides copies of the features.

    Args:
        real, fake: features [n, d] and [m, d], more than k of each.
        k: which neighbour the radius reaches to.

    Returns:
        The four shares.

    Raises:
        DataError: other shapes, fewer rows, values that are not finite, and distances whose squares
            overflow.
    """
    if k < 1:
        raise ValueError(f"precision_recall needs k >= 1, not {k}")
    x, y = pair(real, fake)
    if min(len(x), len(y)) <= k:
        raise DataError(
            f"{len(x)} real and {len(y)} fake samples have no {k} neighbours each; "
            "lower k or give more samples"
        )
    real_radius, fake_radius = _radius(x, k), _radius(y, k)
    centre = x.mean(0)
    x, y = x - centre, y - centre
    x_norm, y_norm = x.square().sum(1), y.square().sum(1)
    if not bool(torch.isfinite(x_norm).all() & torch.isfinite(y_norm).all()):
        raise DataError("squared distances between the features overflow; rescale them")
    inside = balls = 0
    recalled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    covered = torch.zeros_like(recalled)
    for where, squares in _distances(y, x):  # [fake of this block, all real]
        # Points on the rim are inside, and copies at distance zero, whichever way rounding went.
        squares -= 1e-13 * (y_norm[where, None] + x_norm)
        near = squares <= real_radius
        inside += int(near.any(1).sum())
        balls += int(near.sum())
        covered |= near.any(0)
        recalled |= (squares <= fake_radius[where, None]).any(0)
    return ManifoldScores(
        precision=inside / len(y),
        recall=float(recalled.double().mean()),
        density=balls / (k * len(y)),
        coverage=float(covered.double().mean()),
    )


def _radius(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row to its k-th nearest other row."""
    x = x - x.mean(0)
    radius = torch.empty(len(x), dtype=x.dtype, device=x.device)
    for where, squares in _distances(x, x):
        squares.diagonal(where.start).fill_(0.0)
        # The smallest is the row itself; among copies of it, it does not matter which is.
        radius[where] = squares.topk(k + 1, dim=1, largest=False).values[:, k]
    return radius


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of x, each with its squared distances to all of y, [b, m].

    They are |x|^2 + |y|^2 - 2 x.y, one matrix product, which errs by rounding of the norms: hand
    over centred rows.
    """
    norms = y.square().sum(1)
    for where, part in row_blocks(x, len(y)):
        squares = torch.addmm(norms, part, y.T, alpha=-2)
        squares += part.square().sum(1, keepdim=True)
        yield where, squares


@dataclass(frozen=True)
class PrecisionRecall(FeatureScore):
    """`precision_recall` of a network's features: values `precision`, `recall`, `density` and
    `coverage`; higher is better, but for density above 1."""

    title: ClassVar[str] = "Precision and recall"
    better: ClassVar[dict[str, str]] = dict.fromkeys(ManifoldScores._fields, "higher")

    k: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"PrecisionRecall.k must be at least 1, not {self.k}")

    def figures(self, real: Tensor, fake: Tensor, rng: np.random.Generator) -> dict[str, float]:
        return precision_recall(real, fake, self.k)._asdict()
