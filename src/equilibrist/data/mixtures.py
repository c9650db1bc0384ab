"""Mixtures of Gaussians in the plane, with their densities."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from equilibrist._errors import DataError
from equilibrist.data._source import Kind, check_count, cumulated

_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class Mixture2D:
    """The law with density p(x) = 1/K sum_k exp(-|x - m_k|^2 / (2 sigma^2)) / (2 pi sigma^2).

    Arguments:
        modes: the K centres m_k, [K, 2].
        sigma: standard deviation of each mode along each axis, in the unit of the modes.
        balanced: draw every mode equally often (see `sample`).
        name, origin: as in `Source`.
        dtype: torch.float32 or torch.float64; draws are made in it, not converted to it.

    Attributes besides those of `Source`: `modes` (tensor [K, 2]), `sigma`, `balanced`.
    Raises `DataError` for modes of another shape or not finite, and for a sigma that is not a
    positive number.
    """

    kind: Kind = "points"
    shape: tuple[int, ...] = (2,)
    size: int | None = None
    value_range: tuple[float, float] | None = None

    def __init__(
        self,
        modes: torch.Tensor | np.ndarray[Any, Any] | Sequence[Sequence[float]],
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
        self._place(torch.device("cpu"), dtype)

    def _place(self, device: torch.device, dtype: torch.dtype) -> None:
        if dtype not in _NUMPY:
            raise DataError(
                f"{self.name}: points cannot be drawn in {dtype}; "
                "choose torch.float32 or torch.float64"
            )
        self._dtype, self._draw_dtype = dtype, _NUMPY[dtype]
        self._draw_centres = self._centres.astype(self._draw_dtype)
        self.modes = torch.from_numpy(self._centres).to(device, dtype, copy=True)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw [n, 2].

        Balanced: floor(n / K) of each mode, the rest from different modes chosen at random, in
        random order. Each row follows p, but the rows of one draw are not independent: means over
        them vary less than those of n independent draws. Otherwise the rows are independent.
        """
        check_count(self.name, n)
        modes = len(self._draw_centres)
        if self.balanced:
            # The remainder leads, so that the arithmetic below it needs no second array.
            which = np.arange(n)
            rest = n % modes
            which -= rest
            which %= modes
            if rest:
                which[:rest] = rng.permutation(modes)[:rest]
            # Neighbouring rows must not come from neighbouring modes: losses may pair rows.
            rng.shuffle(which)
        else:
            which = rng.integers(0, modes, size=n)
        drawn = torch.empty(n, 2, dtype=self._dtype)  # torch's memory is aligned, NumPy's is not
        points = drawn.numpy()
        rng.standard_normal(dtype=self._draw_dtype, out=points)
        points *= self.sigma
        points += self._draw_centres.take(which, axis=0)
        device = self.modes.device
        return drawn if device.type == "cpu" else drawn.to(device, non_blocking=True)

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) in nats: [..., 2] to [...], in the dtype of x and differentiable in it.

        Raises `DataError` for x of another shape or of integers.
        """
        if x.shape[-1:] != (2,) or not x.dtype.is_floating_point:
            raise DataError(
                f"{self.name}: no density at {x.dtype} {list(x.shape)}; give floats [..., 2]"
            )
        # Not self.modes: those may be rounded to fewer digits than x has.
        modes = torch.from_numpy(self._centres).to(x)
        distance = (x.unsqueeze(-2) - modes).square().sum(-1)
        scale = math.log(2 * math.pi * self.sigma**2 * len(modes))
        return torch.logsumexp(distance / (-2 * self.sigma**2), -1) - scale

    def all(self) -> torch.Tensor:
        """Always raises `DataError`: the law has no list of samples."""
        raise DataError(f"{self.name}: an infinite law has no list of samples; use sample(rng, n)")

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple["Mixture2D", ...]:
        """This law once per fraction: fresh draws share no sample, so nothing need be cut."""
        return (self,) * len(cumulated(self.name, fractions))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Mixture2D":
        """The same law, drawn in `dtype` (float32 or float64, else `DataError`) onto `device`."""
        moved = copy.copy(self)
        place = self.modes.device if device is None else torch.device(device)
        moved._place(place, self.modes.dtype if dtype is None else dtype)
        return moved


def eight_gaussians(radius: float = 1.0, sigma: float = 0.01, balanced: bool = True) -> Mixture2D:
    """Eight Gaussians evenly on a circle: m_k = radius (cos(pi k / 4), sin(pi k / 4)), k = 0..7.

    The planar experiment of Mescheder, Nowozin and Geiger, "The Numerics of GANs", NeurIPS 2017,
    which has radius 1, sigma 0.01 and batches of 512 with 64 points of each mode. Raises
    `DataError` for a radius or sigma that is not a positive number.
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
