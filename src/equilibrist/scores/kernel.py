"""The kernel distance between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist.data.arrays import Array
from equilibrist.errors import DataError
from equilibrist.scores._arrays import pair, row_blocks
from equilibrist.scores._base import FeatureScore


class KernelDistance(NamedTuple):
    """Mean over subsets, and the standard deviation over them (divided by their number).

    The deviation is that of one subset's estimate; subsets overlap, so it is no standard error of
    the mean.
    """

    mean: float
    std: float


def squared_mmd(real: Array, fake: Array) -> float:
    """The squared maximum mean discrepancy, unbiased, from all pairs of both sets.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j) with
    k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv:1801.01401; the estimate is that of
    Gretton et al. 2012, lemma 6). Unbiased, so it is negative about as often as positive
    where both laws are the same.

    Computed in float64 in blocks of 8 MiB.

    Args:
        real, fake: features [n, d] and [m, d], n, m >= 2.

    Returns:
        The estimate, which may be negative.

    Raises:
        DataError: other shapes, fewer rows, or values that are not finite.
    """
    return _mmd(*pair(real, fake, least=2))


def kernel_distance(
    real: Array,
    fake: Array,
    rng: np.random.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """`squared_mmd` over random subsets of both sets: what the field calls KID, given Inception-v3.

    Each subset is drawn without replacement by `rng`, afresh.

    Args:
        real, fake: as for `squared_mmd`.
        rng: draws the subsets.
        subsets: how many.
        subset_size: rows of each.

    Returns:
        Mean and spread over the subsets.

    Raises:
        DataError: as for `squared_mmd`; a set with fewer rows than a subset.
    """
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"kernel_distance needs subsets >= 1 of at least 2 rows, not {subsets} of {subset_size}"
        )
    x, y = pair(real, fake, least=2)
    if subset_size > min(len(x), len(y)):
        raise DataError(
            f"subsets of {subset_size} rows cannot be drawn from {len(x)} real and {len(y)} fake "
            "ones; lower subset_size or give more samples"
        )
    pick = [[_pick(len(z), rng, subset_size) for z in (x, y)] for _ in range(subsets)]
    if len(x) * len(y) <= subsets * subset_size**2:
        values = _all_subsets(x, y, [p for p, _ in pick], [q for _, q in pick])
    else:
        values = np.array([_mmd(x[p], y[q]) for p, q in pick])
    return KernelDistance(float(values.mean()), float(values.std()))


def _pick(n: int, rng: np.random.Generator, size: int) -> Tensor:
    return torch.from_numpy(rng.choice(n, size, replace=False))


def _mmd(x: Tensor, y: Tensor) -> float:
    n, m = len(x), len(y)
    within = _off_diagonal(x) / (n * (n - 1)) + _off_diagonal(y) / (m * (m - 1))
    return within - 2 * _total(x, y) / (n * m)


def _off_diagonal(x: Tensor) -> float:
    return _total(x, x) - float(_diagonal(x).sum())


def _total(x: Tensor, y: Tensor) -> float:
    return sum(float(_kernel(part, y).sum()) for _, part in row_blocks(x, len(y)))


def _all_subsets(
    x: Tensor, y: Tensor, picked_x: list[Tensor], picked_y: list[Tensor]
) -> NDArray[np.float64]:
    """`_mmd` of every pair of subsets, each value of the kernel computed once.

    A sum of k over a subset is w^T K w with w the indicator of its rows.
    """
    size = len(picked_x[0])
    u, v = _indicators(x, picked_x), _indicators(y, picked_y)
    within = _sums(x, x, u, u) - u @ _diagonal(x) + _sums(y, y, v, v) - v @ _diagonal(y)
    values = within / (size * (size - 1)) - 2 * _sums(x, y, u, v) / size**2
    return np.asarray(values.cpu().numpy())


def _indicators(x: Tensor, picked: list[Tensor]) -> Tensor:
    weights = x.new_zeros(len(picked), len(x))
    return weights.scatter_(1, torch.stack(picked).to(x.device), 1.0)


def _sums(x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u_s^T K(x, y) v_s for each subset s."""
    parts = (u[:, where] @ _kernel(part, y) for where, part in row_blocks(x, len(y)))
    total = torch.zeros_like(v)
    for part in parts:
        total += part
    return (total * v).sum(1)


def _diagonal(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)


@dataclass(frozen=True)
class Kernel(FeatureScore):
    """`kernel_distance` of a network's features: values `kernel_distance` (lower is better), the
    mean over subsets, and `kernel_distance_std`, their spread.

    Where fewer samples than a subset can be had, subsets are half of those.
    """

    title: ClassVar[str] = "Kernel distance"
    better: ClassVar[dict[str, str]] = {"kernel_distance": "lower"}

    subsets: int = 100
    subset_size: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("subsets", 1), ("subset_size", 2)):
            if getattr(self, name) < low:
                raise ValueError(f"Kernel.{name} must be at least {low}, not {getattr(self, name)}")

    def figures(self, real: Tensor, fake: Tensor, rng: np.random.Generator) -> dict[str, float]:
        size = self.subset_size
        if size > len(real):  # subsets equal to the whole would have no spread
            size = max(2, len(real) // 2)
        mean, std = kernel_distance(real, fake, rng, self.subsets, size)
        return {"kernel_distance": mean, "kernel_distance_std": std}
