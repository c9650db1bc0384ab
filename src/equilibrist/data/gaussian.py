"""One Gaussian in any dimension, drawn independently or with exact sample moments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from equilibrist.data._law import Law
from equilibrist.data._source import check_count
from equilibrist.data.arrays import Array
from equilibrist.errors import DataError


class Gaussian(Law):
    """N(m, C) in d dimensions, drawn as X = m + L Z with L L^T = C (Cholesky) and Z ~ N(0, I_d).

    Args:
        mean: m, [d].
        covariance: C, [d, d], symmetric and positive definite.
        exact_moments: whiten draws, so that their mean is m and their covariance (1/n) is C up to
            rounding. True takes each draw as one group; a number B takes every B rows in turn as
            a group of its own (the last group also takes what is left over). Training asks for
            several minibatches at once, so B should be the minibatch's size.
        name, origin: as in `Source`.
        dtype: torch.float32 or torch.float64; draws are made in it.

    With exact moments, the mean over a group of any quadratic function is its expectation: no
    sampling noise, as if there were infinitely many samples. Two things are given up. The rows of
    a group of n are not independent: they have correlation -1/(n-1). And a row is not Gaussian: its
    mean and covariance are m and C, but along any direction its kurtosis is 3 (n-1)/(n+1) instead
    of 3, and |L^-1 (x - m)|^2 is at most n-1. Both vanish as n grows.

    Attributes besides those of `Source`: `mean` (tensor [d]), `covariance` (tensor [d, d]),
    `exact_moments`.

    Raises:
        DataError: a mean or covariance of another shape, not finite, not symmetric or not positive
            definite, a B below 2 (d + 1), or a draw of fewer rows than that.

    Examples:
        >>> import numpy as np
        >>> from equilibrist.data import Gaussian
        >>> law = Gaussian([0.0, 1.0], [[1.0, 0.0], [0.0, 4.0]], exact_moments=True)
        >>> sample = law.sample(np.random.default_rng(0), 64)
        >>> [round(x, 4) for x in sample.mean(0).abs().tolist()]
        [0.0, 1.0]
    """

    def __init__(
        self,
        mean: Array | Sequence[float],
        covariance: Array | Sequence[Sequence[float]],
        *,
        exact_moments: bool | int = False,
        name: str = "gaussian",
        origin: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name = name
        try:
            # Copies in full precision: draws and densities are computed from these.
            self._mean = torch.as_tensor(mean).to("cpu", torch.float64, copy=True)
            self._cov = torch.as_tensor(covariance).to("cpu", torch.float64, copy=True)
        except (TypeError, ValueError):
            raise DataError(
                f"{name}: mean or covariance is no table of numbers; give [d] and [d, d]"
            ) from None
        d = self._mean.numel()
        if self._mean.ndim != 1 or d == 0 or self._cov.shape != (d, d):
            raise DataError(
                f"{name}: mean {list(self._mean.shape)} and covariance {list(self._cov.shape)} "
                "do not fit; give [d] and [d, d]"
            )
        if not (torch.isfinite(self._mean).all() and torch.isfinite(self._cov).all()):
            raise DataError(f"{name}: mean or covariance is NaN or infinite; give finite numbers")
        if not torch.allclose(self._cov, self._cov.T, rtol=1e-6, atol=0):
            raise DataError(f"{name}: the covariance is not symmetric; give (C + C^T) / 2")
        self._cov = (self._cov + self._cov.T) / 2
        self._root, failed = torch.linalg.cholesky_ex(self._cov)
        if int(failed):
            raise DataError(
                f"{name}: the covariance is not positive definite; add a positive number to its "
                "diagonal"
            )
        self.shape = (d,)
        self.exact_moments = exact_moments
        if exact_moments is not True and exact_moments != 0 and exact_moments < 2 * (d + 1):
            raise DataError(
                f"{name}: groups of {exact_moments} points in {d} dimensions are too small for "
                f"exact moments; take at least {2 * (d + 1)}"
            )
        self.origin = origin or (
            f"a Gaussian in {d} dimensions, drawn afresh"
            + (", each draw with exact mean and covariance" if exact_moments is True else "")
            + (
                f", every {exact_moments} points with exact mean and covariance"
                if exact_moments is not True and exact_moments
                else ""
            )
        )
        self._place(torch.device("cpu"), dtype)

    def _place(self, device: torch.device, dtype: torch.dtype) -> None:
        super()._place(device, dtype)
        self.mean = self._mean.to(device, dtype, copy=True)
        self.covariance = self._cov.to(device, dtype, copy=True)
        self._draw_mean, self._draw_root = self._mean.to(dtype), self._root.to(dtype)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw [n, d]: independent rows, or groups of rows with exact moments."""
        check_count(self.name, n)
        drawn = self._normal(rng, n)
        if not self.exact_moments:
            return self._delivered(torch.addmm(self._draw_mean, drawn, self._draw_root.T))
        least = 2 * (self.shape[0] + 1)
        if n < least:
            raise DataError(
                f"{self.name}: {n} points in {self.shape[0]} dimensions are too few for exact "
                f"moments; ask for at least {least}"
            )
        group = n if self.exact_moments is True else min(n, self.exact_moments)
        whole = n // group * group
        # In float64, whatever the draws: only their last rounding is left in the moments.
        wide = drawn.double()
        head = wide[: whole - group].reshape(-1, group, self.shape[0])
        parts = [self._exact(head).flatten(0, 1), self._exact(wide[whole - group :])]
        return self._delivered(torch.cat(parts).to(self._dtype))

    def _exact(self, z: torch.Tensor) -> torch.Tensor:
        """Standard normal points [..., n, d], moved so that each group of n has mean m and covariance C."""
        z = z - z.mean(-2, keepdim=True)
        root = torch.linalg.cholesky(z.mT @ z / z.shape[-2])
        white = torch.linalg.solve_triangular(root, z.mT, upper=False)
        exact: torch.Tensor = (self._root @ white).mT + self._mean
        return exact

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) = -1/2 (x-m)^T C^-1 (x-m) - 1/2 log det(2 pi C) in nats: [..., d] to [...].

        In the dtype of x and differentiable in it; the law is N(m, C) whatever `exact_moments`.

        Raises:
            DataError: x of another shape or of integers.
        """
        self._check_points(x)
        d = self.shape[0]
        offset = (x - self._mean.to(x)).reshape(-1, d)
        white = torch.linalg.solve_triangular(self._root.to(x), offset.T, upper=False)
        scale = d / 2 * math.log(2 * math.pi) + float(self._root.diagonal().log().sum())
        logs: torch.Tensor = white.square().sum(0) / -2 - scale
        return logs.reshape(x.shape[:-1])
