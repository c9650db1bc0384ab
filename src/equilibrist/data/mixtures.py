"""Mixtures of Gaussians in the plane, with their densities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist.data._law import Law
from equilibrist.data._source import check_count
from equilibrist.data.arrays import Array
from equilibrist.errors import DataError


class Mixture2D(Law):
    """The law with density p(x) = 1/K sum_k exp(-|x - m_k|^2 / (2 sigma^2)) / (2 pi sigma^2).

    Args:
        modes: the K centres m_k, [K, 2].
        sigma: standard deviation of each mode along each axis, in the unit of the modes.
        balanced: draw every mode equally often (see `sample`).
        name, origin: as in `Source`.
        dtype: torch.float32 or torch.float64; draws are made in it, not converted to it.

    Attributes besides those of `Source`: `modes` (tensor [K, 2]), `sigma`, `balanced`, `classes`
    (K: a point's class is the mode that it was drawn from).

    Raises:
        DataError: modes of another shape or not finite, or a sigma that is not a positive number.
    """

    shape: tuple[int, ...] = (2,)

    def __init__(
        self,
        modes: Array | Sequence[Sequence[float]],
        sigma: float,
        *,
        balanced: bool = True,
        name: str = "mixture",
        origin: str = "a mixture of Gaussians in the plane, drawn afresh",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name = name
        self.origin = origin
        self.sigma = float(sigma)
        self.balanced = balanced
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise DataError(f"{name}: sigma is {sigma}; give a positive number")
        try:
            # The draws are made by NumPy, so the centres are kept there in full precision.
            self._centres = torch.as_tensor(modes).to("cpu", torch.float64, copy=True).numpy()
        except (TypeError, ValueError):
            raise DataError(f"{name}: modes are not a table; give numbers [K, 2]") from None
        if self._centres.ndim != 2 or self._centres.shape[1] != 2 or len(self._centres) == 0:
            raise DataError(f"{name}: modes have shape {list(self._centres.shape)}; give [K, 2]")
        if not np.isfinite(self._centres).all():
            raise DataError(f"{name}: some modes are NaN or infinite; give finite centres")
        self.classes = len(self._centres)
        self._place(torch.device("cpu"), dtype)

    def _place(self, device: torch.device, dtype: torch.dtype) -> None:
        super()._place(device, dtype)
        self._draw_centres = self._centres.astype(self._draw_dtype)
        self.modes = torch.from_numpy(self._centres).to(device, dtype, copy=True)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw [n, 2].

        Balanced: floor(n / K) of each mode, the rest from different modes chosen at random, in
        random order. Each row follows p, but the rows of one draw are not independent: means over
        them vary less than those of n independent draws. Otherwise the rows are independent.
        """
        return self._delivered(self._draw(rng, n)[0])

    def sample_pairs(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw (x, y): the points [n, 2] that `sample` draws, and each one's mode k, int64 [n]."""
        points, which = self._draw(rng, n)
        return self._delivered(points), self._delivered(torch.from_numpy(which))

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
        check_count(self.name, n)
        modes = len(self._draw_centres)
        if self.balanced:
            # The remainder leads, so that the arithmetic below it needs no second array.
            which = np.arange(n, dtype=np.int64)
            rest = n % modes
            which -= rest
            which %= modes
            if rest:
                which[:rest] = rng.permutation(modes)[:rest]
            # Neighbouring rows must not come from neighbouring modes: losses may pair rows.
            rng.shuffle(which)
        else:
            which = rng.integers(0, modes, size=n)
        drawn = self._normal(rng, n)
        points = drawn.numpy()
        points *= self.sigma
        points += self._draw_centres.take(which, axis=0)
        return drawn, which

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) in nats: [..., 2] to [...], in the dtype of x and differentiable in it.

        Raises:
            DataError: x of another shape or of integers.
        """
        self._check_points(x)
        # Not self.modes: those may be rounded to fewer digits than x has.
        modes = torch.from_numpy(self._centres).to(x)
        distance = (x.unsqueeze(-2) - modes).square().sum(-1)
        scale = math.log(2 * math.pi * self.sigma**2 * len(modes))
        return torch.logsumexp(distance / (-2 * self.sigma**2), -1) - scale


def eight_gaussians(radius: float = 1.0, sigma: float = 0.01, balanced: bool = True) -> Mixture2D:
    """Eight Gaussians evenly on a circle: m_k = radius (cos(pi k / 4), sin(pi k / 4)), k = 0..7.

    The planar experiment of Mescheder, Nowozin and Geiger, "The Numerics of GANs", NeurIPS 2017,
    which has radius 1, sigma 0.01 and batches of 512 with 64 points of each mode. Raises
    `DataError` for a radius or sigma that is not a positive number.

    Args:
        radius: of the circle.
        sigma: standard deviation of each mode along each axis.
        balanced: draw every mode equally often.

    Returns:
        The law, drawn afresh whenever it is asked.

    Examples:
        >>> import numpy as np
        >>> import equilibrist as eq
        >>> law = eq.eight_gaussians()
        >>> law.sample(np.random.default_rng(0), 512).shape
        torch.Size([512, 2])
    """
    if not (math.isfinite(radius) and radius > 0):
        raise DataError(f"eight-gaussians: radius is {radius}; give a positive number")
    angles = np.arange(8) * (math.pi / 4)
    return Mixture2D(
        radius * np.stack([np.cos(angles), np.sin(angles)], axis=1),
        sigma,
        balanced=balanced,
        name="eight-gaussians",
        origin=(
            f"eight Gaussians of standard deviation {sigma:g} on a circle of radius {radius:g}, "
            f"drawn afresh{', equally many of each' if balanced else ''} "
            "(after Mescheder, Nowozin and Geiger, 2017)"
        ),
    )


def twenty_five_gaussians(
    spacing: float = 2.0, sigma: float = 0.05, balanced: bool = False
) -> Mixture2D:
    """25 Gaussians on a grid: m_ij = spacing (i, j), i and j = -2..2, equal weights.

    Mode 5 (i + 2) + (j + 2) is m_ij. The "2D-grid" on which lost modes are counted: spacing 2 and
    variance 0.0025 along each axis in Lin, Khetan, Fanti and Oh, "PacGAN: The Power of Two Samples
    in Generative Adversarial Networks", NeurIPS 2018, after Srivastava et al., "VEEGAN", NeurIPS
    2017.

    Args:
        spacing: between neighbouring modes.
        sigma: standard deviation of each mode along each axis.
        balanced: draw every mode equally often.

    Returns:
        The law, drawn afresh whenever it is asked.

    Raises:
        DataError: a spacing or sigma that is not a positive number.
    """
    name = "twenty-five-gaussians"
    if not (math.isfinite(spacing) and spacing > 0):
        raise DataError(f"{name}: spacing is {spacing}; give a positive number")
    axis = spacing * np.arange(-2.0, 3.0)
    return Mixture2D(
        np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(25, 2),
        sigma,
        balanced=balanced,
        name=name,
        origin=(
            f"25 Gaussians of standard deviation {sigma:g} on a square grid of spacing "
            f"{spacing:g}, drawn afresh{', equally many of each' if balanced else ''} "
            "(after Lin, Khetan, Fanti and Oh, 2018)"
        ),
    )
