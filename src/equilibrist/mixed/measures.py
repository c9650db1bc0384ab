"""Probability measures as strategies: densities at the nodes of a quadrature, and weighted particles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist import tree
from equilibrist.errors import GameError
from equilibrist.mixed.domains import Grid

Function = Callable[[Tensor], Tensor]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Density:
    """The law with log density `log_density` [N] at a grid's nodes, relative to the domain's own measure.

    Any constant may be added to `log_density` on the way in: what is kept integrates to 1 by the grid's weights.
    -inf is a density of 0.

    Raises:
        GameError: a shape that does not fit the grid, no mass, undefined or infinite densities.
    """

    grid: Grid
    log_density: Tensor

    def __post_init__(self) -> None:
        weights = self.grid.weights
        if self.log_density.shape != weights.shape:
            raise GameError(
                f"Density: the grid has {len(weights)} nodes, log_density the shape "
                f"{list(self.log_density.shape)}: give one number per node"
            )
        total = torch.logsumexp(self.log_density + weights.log(), 0)
        if not math.isfinite(float(total)):
            raise GameError(
                f"Density: the logarithm of its mass is {float(total)}: it must be finite"
            )
        object.__setattr__(self, "log_density", self.log_density - total)

    @classmethod
    def uniform(cls, grid: Grid) -> Density:
        """The constant density."""
        return cls(grid, torch.zeros_like(grid.weights))

    @property
    def points(self) -> Tensor:
        """The nodes [N, d]."""
        return self.grid.nodes

    @property
    def masses(self) -> Tensor:
        """Probabilities of the nodes [N]: weights times density."""
        return self.grid.weights * self.log_density.exp()

    def mean(self, values: Tensor | Function) -> Tensor:
        """The mean of a function: values [N, ...] at the nodes, or the function itself."""
        return _mean(self, values)

    def entropy(self) -> float:
        """-int rho log rho, relative to the domain's measure: the uniform law has the logarithm of its volume."""
        masses = self.masses
        return -float(torch.where(masses > 0, masses * self.log_density, 0.0).sum())

    def divergence(self, other: Density) -> float:
        """KL(self || other), both on one grid."""
        masses = self.masses
        return float(
            torch.where(masses > 0, masses * (self.log_density - other.log_density), 0.0).sum()
        )

    def tilted(self, h: Tensor, step: float, temperature: float = 0.0) -> Density:
        """rho+ proportional to (rho e^{-step h})^{1 / (1 + step temperature)}: the minimiser over rho' of

        step (int h rho' + temperature int rho' log rho') + KL(rho' || rho);  MD_step(rho, h) at temperature 0.
        """
        return Density(self.grid, (self.log_density - step * h) / (1 + step * temperature))

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """n nodes [n, d] drawn in proportion to their masses."""
        return self.points[chosen(self.masses, rng.random(n))]


@dataclass(frozen=True)
class Particles:
    """sum_i w_i delta(points_i), points [N, d]; `log_weights` [N] up to a constant (None: equal weights).

    Raises:
        GameError: shapes that do not fit, points or weights that are not finite (a weight of 0, -inf, is allowed).
    """

    points: Tensor
    log_weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or not len(self.points):
            raise GameError(
                f"Particles: points must have the shape [N, d], not {list(self.points.shape)}"
            )
        if not tree.all_finite(self.points):
            raise GameError("Particles: points must be finite: take smaller steps")
        n = len(self.points)
        given = self.points.new_zeros(n) if self.log_weights is None else self.log_weights
        if given.shape != (n,):
            raise GameError(
                f"Particles: {n} points, but log_weights of shape {list(given.shape)}: give one per point"
            )
        total = torch.logsumexp(given, 0)
        if not math.isfinite(float(total)):
            raise GameError(
                f"Particles: the logarithm of the total weight is {float(total)}: it must be finite"
            )
        object.__setattr__(self, "log_weights", given - total)

    @property
    def masses(self) -> Tensor:
        """Weights [N], of sum 1."""
        assert self.log_weights is not None
        return self.log_weights.exp()

    def mean(self, values: Tensor | Function) -> Tensor:
        """The mean of a function: values [N, ...] at the points, or the function itself."""
        return _mean(self, values)

    @property
    def effective_size(self) -> float:
        """1 / sum w_i^2: N for equal weights, 1 where one particle has all (Kong 1992)."""
        return 1 / float(self.masses.square().sum())

    def reweighted(self, h: Tensor, step: float) -> Particles:
        """log w <- log w - step h: entropic mirror descent on the weights."""
        assert self.log_weights is not None
        return Particles(self.points, self.log_weights - step * h)

    def resampled(self, rng: np.random.Generator, n: int | None = None) -> Particles:
        """n particles of equal weight by systematic resampling: one uniform number u, the points where the weights'
        running sum passes (u + k) / n. Particle i comes floor(n w_i) or ceil(n w_i) times; means are unbiased."""
        n = len(self.points) if n is None else n
        return Particles(self.points[chosen(self.masses, (rng.random() + np.arange(n)) / n)])

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """n points [n, d] drawn independently in proportion to weight."""
        return self.points[chosen(self.masses, rng.random(n))]


Measure = Density | Particles


def chosen(masses: Tensor, levels: Array) -> Tensor:
    """Indices, shaped as `levels`, at which the running sum of `masses` [N] passes levels in [0, 1)."""
    total = masses.detach().cpu().double().cumsum(0)
    found = torch.searchsorted(total, torch.from_numpy(levels) * total[-1], right=True)
    # Rounding may lift a level to the very total: the last point with mass takes it.
    last = int(torch.nonzero(masses)[-1])
    return found.clamp(max=last).to(masses.device)


class DensityAverage:
    """The average over time of densities on one grid: exact."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._grid: Grid | None = None

    def add(self, density: Density) -> None:
        self._grid = density.grid
        self._sum = density.masses if self._sum is None else self._sum + density.masses

    @property
    def value(self) -> Density:
        """The average of all that was added."""
        assert self._sum is not None
        assert self._grid is not None
        return Density(self._grid, (self._sum / self._grid.weights).log())


class Reservoir:
    """The average over time of particle measures nu_1, ..., nu_t, as `size` particles of equal weight.

    At time t each slot is replaced, independently and with probability 1/t, by a draw from nu_t in proportion to
    weight: given the path, each slot then holds a draw from (nu_1 + ... + nu_t) / t, and the slots are independent.
    So a mean over the reservoir is unbiased for the average's, with an error of order size^{-1/2}; memory does not
    grow with t. Where times count differently (`add` with a weight b_t), the probability is b_t / (b_1 + ... + b_t),
    and the average is weighted by b.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"Reservoir.size must be at least 1, not {size!r}")
        self.size, self.added, self._total = size, 0, 0.0
        self._points: Tensor | None = None

    def add(self, particles: Particles, rng: np.random.Generator, weight: float = 1.0) -> None:
        self.added += 1
        self._total += weight
        if self._points is None:
            self._points = particles.sample(self.size, rng)
            return
        replaced = torch.from_numpy(np.flatnonzero(rng.random(self.size) * self._total < weight))
        self._points[replaced] = particles.sample(len(replaced), rng)

    @property
    def value(self) -> Particles:
        """The reservoir's particles."""
        assert self._points is not None
        return Particles(self._points.clone())


def _mean(measure: Measure, values: Tensor | Function) -> Tensor:
    found = values(measure.points) if callable(values) else values
    if found.shape[:1] != measure.masses.shape:
        raise GameError(
            f"mean: {len(measure.masses)} points, but values of shape {list(found.shape)}: give one per point"
        )
    return cast(Tensor, torch.tensordot(measure.masses.to(found.dtype), found, dims=1))
