"""The Frechet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from equilibrist.data.arrays import Array
from equilibrist.errors import DataError
from equilibrist.scores._arrays import pair
from equilibrist.scores._base import FeatureScore


def frechet_distance(real: Array, fake: Array) -> float:
    """The squared 2-Wasserstein distance between the Gaussians with the moments of two samples.

    |m_r - m_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^{1/2}), in squared units of the features: as usual,
    what is called the Frechet distance is this square (Heusel et al. 2017, arXiv:1706.08500,
    equation 6). Covariances are unbiased, divided by n - 1. Its own bias is upwards and falls like
    1/n, so figures compare only at equal n.

    With centred rows A_r, A_f (divided by sqrt(n - 1)), the trace of the root is the sum of the
    singular values of A_r A_f^T. That needs no root of a matrix, so the result is real, finite and
    accurate where covariances are singular, as with fewer samples than features. Rounding below
    zero is cut off.

    Computed in float64; 2,048 features take one
    singular value decomposition of that size.

    Args:
        real, fake: features [n, d] and [m, d], n, m >= 2.

    Returns:
        The distance, never negative.

    Raises:
        DataError: other shapes, fewer rows, or values that are not finite.

    Examples:
        >>> import numpy as np
        >>> from equilibrist.scores import frechet_distance
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> round(frechet_distance(x, x + 2.0), 6)  # moved by 2 along each of three axes
        12.0
    """
    x, y = pair(real, fake, least=2)
    mean = x.mean(0) - y.mean(0)
    a, b = _factor(x), _factor(y)
    return _squared(mean, a, b)


def frechet_from_moments(
    mean_real: Array, covariance_real: Array, mean_fake: Array, covariance_fake: Array
) -> float:
    """`frechet_distance` from means [d] and covariances [d, d], for moments that are already known.

    Args:
        mean_real, mean_fake: [d].
        covariance_real, covariance_fake: [d, d].

    Returns:
        The distance, never negative.

    Raises:
        DataError: shapes that do not fit, values that are not finite, and covariances that are not
            symmetric and positive semi-definite to eight digits.

    Examples:
        >>> import numpy as np
        >>> from equilibrist.scores import frechet_from_moments
        >>> one = np.eye(2)
        >>> round(frechet_from_moments(np.zeros(2), one, np.ones(2), 4 * one), 6)  # 2 + 2 (2 - 1)^2
        4.0
    """
    means = [torch.as_tensor(m).double() for m in (mean_real, mean_fake)]
    factors = []
    for name, mean, values in zip(
        ("real", "fake"), means, (covariance_real, covariance_fake), strict=True
    ):
        covariance = torch.as_tensor(values).double()
        d = len(means[0]) if means[0].ndim == 1 else -1
        if mean.shape != (d,) or covariance.shape != (d, d):
            raise DataError(
                f"{name}: a mean of shape {list(mean.shape)} and a covariance of shape "
                f"{list(covariance.shape)} do not fit; give [d] and [d, d], one d for all"
            )
        if not bool(torch.isfinite(mean).all() & torch.isfinite(covariance).all()):
            raise DataError(f"{name}: the moments are NaN or infinite; compute them again")
        factors.append(_root(name, covariance))
    return _squared(means[0] - means[1], *factors)


def _factor(x: Tensor) -> Tensor:
    """R with R^T R = covariance of the rows, at most [d, d]."""
    centred: Tensor = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    if len(x) <= x.shape[1]:
        return centred
    triangle: Tensor = torch.linalg.qr(centred, mode="r")[1]
    return triangle


def _root(name: str, covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    slack = 1e-8 * max(float(values.abs().max()), torch.finfo(torch.float64).tiny)
    if float(values.min()) < -slack or float((covariance - covariance.T).abs().max()) > slack:
        raise DataError(
            f"{name}: the covariance is not symmetric and positive semi-definite; compute it again"
        )
    # Noise around a zero eigenvalue must not enter: its root is eight digits larger.
    tiny = len(values) * torch.finfo(torch.float64).eps * values.abs().max()
    root: Tensor = torch.where(values > tiny, values, 0.0).sqrt()[:, None] * vectors.T
    return root


def _squared(mean: Tensor, a: Tensor, b: Tensor) -> float:
    cross = torch.linalg.svdvals(a @ b.T).sum()
    value = mean.square().sum() + a.square().sum() + b.square().sum() - 2 * cross
    return float(value.clamp_min(0))


@dataclass(frozen=True)
class Frechet(FeatureScore):
    """`frechet_distance` of a network's features: value `frechet_distance`, lower is better.

    With `network=inception()` it is what the field calls FID, at this number of samples.
    """

    title: ClassVar[str] = "Frechet distance"
    better: ClassVar[dict[str, str]] = {"frechet_distance": "lower"}

    def figures(self, real: Tensor, fake: Tensor, rng: np.random.Generator) -> dict[str, float]:
        return {"frechet_distance": frechet_distance(real, fake)}
