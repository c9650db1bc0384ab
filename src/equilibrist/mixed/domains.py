"""Sets of pure strategies of continuous games: their quadrature, their uniform laws, moves that stay inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import roots_gegenbauer
from torch import Tensor

from equilibrist.core.draws import normal, uniform
from equilibrist.errors import GameError
from equilibrist.validation import positive

MOST_NODES = 2**22

Array = NDArray[np.float64]


class Grid(NamedTuple):
    """Nodes [N, d] and quadrature weights [N] (float64): the integral of h is about sum_i weights_i h(nodes_i)."""

    nodes: Tensor
    weights: Tensor


class Domain(Protocol):
    """A set of points [d] with a measure on it that plays the part of dx: densities are relative to it."""

    @property
    def dim(self) -> int:
        """d, the number of coordinates of a point."""
        ...

    def grid(self, n: int) -> Grid:
        """A quadrature rule with n nodes along each of the set's dimensions."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """n independent points [n, d] of the law that runs start from: uniform where the set is bounded."""
        ...

    def move(self, points: Tensor, direction: Tensor, noise: Tensor | None = None) -> Tensor:
        """points + direction + noise, brought back into the set: all [N, d], noise standard normal times its scale."""
        ...

    def nearest(self, points: Tensor) -> Tensor:
        """The nearest points of the set [N, d]."""
        ...


@dataclass(frozen=True)
class Box:
    """The box prod_i [low_i, high_i], with dx; Gauss-Legendre rules, product in several dimensions.

    A move that leaves the box is reflected at its faces, as often as it takes: the step of Bossy, Gobet and Talay
    2004 for the reflected diffusion. It leaves the uniform law alone where there is no drift, for any step, and
    keeps Langevin's law, which the projection does not: that puts a part of the mass on the faces, of the order of
    the root of the step. Where nothing but gradients moves the points and optima lie on faces, project:
    reflected points hover about a gradient step inside.

    Args:
        low, high: the corners.
        boundary: "reflect" or "project".

    Raises:
        ValueError: corners that do not fit each other, another boundary.
    """

    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (1.0,)
    boundary: Literal["reflect", "project"] = "reflect"

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(
                f"Box.low and Box.high must have the same number of coordinates, at least 1, "
                f"not {len(self.low)} and {len(self.high)}"
            )
        if not all(-math.inf < a < b < math.inf for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Box.low must lie below Box.high, not {self.low} and {self.high}")
        if self.boundary not in ("reflect", "project"):
            raise ValueError(f'Box.boundary must be "reflect" or "project", not {self.boundary!r}')

    @property
    def dim(self) -> int:
        return len(self.low)

    def grid(self, n: int) -> Grid:
        _few(self, n, self.dim)
        z, w = np.polynomial.legendre.leggauss(n)
        sides = [
            (a + (b - a) * (z + 1) / 2, (b - a) * w / 2)
            for a, b in zip(self.low, self.high, strict=True)
        ]
        return _product(sides)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        low, width = self._corners(torch.float64)
        return low + width * uniform(rng, (n, self.dim), torch.float64, "cpu")

    def move(self, points: Tensor, direction: Tensor, noise: Tensor | None = None) -> Tensor:
        moved = _added(points, direction, noise)
        if self.boundary == "project":
            return self.nearest(moved)
        low, width = self._corners(points.dtype)
        folded = low + width - (torch.remainder(moved - low, 2 * width) - width).abs()
        return self.nearest(folded)  # rounding

    def nearest(self, points: Tensor) -> Tensor:
        low, width = self._corners(points.dtype)
        return torch.minimum(torch.maximum(points, low), low + width)

    def _corners(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        low, high = (torch.tensor(c, dtype=dtype) for c in (self.low, self.high))
        return low, high - low


@dataclass(frozen=True)
class Circle:
    """Angles [N, 1] modulo 2 pi, in [0, 2 pi), with d angle; the trapezoid rule, exact for trigonometric polynomials
    of degree below n. Payoffs must have that period. (As points of the plane: `Sphere(2)`.)"""

    @property
    def dim(self) -> int:
        return 1

    def grid(self, n: int) -> Grid:
        _few(self, n, 1)
        nodes = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
        return Grid(nodes[:, None], torch.full((n,), 2 * math.pi / n, dtype=torch.float64))

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return 2 * math.pi * uniform(rng, (n, 1), torch.float64, "cpu")

    def move(self, points: Tensor, direction: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.nearest(_added(points, direction, noise))

    def nearest(self, points: Tensor) -> Tensor:
        turned = torch.remainder(points, 2 * math.pi)
        return torch.where(turned < 2 * math.pi, turned, 0.0)  # remainder(-1e-17, 2 pi) is 2 pi


@dataclass(frozen=True)
class Sphere:
    """The sphere |x| = radius of R^dim, with its surface measure; dim = 1: the two points +-radius, each of weight 1.

    Rules: the trapezoid on the circle; above, Gauss-Gegenbauer along one axis times the rule of the sphere one
    dimension lower, n^(dim - 1) nodes, exact for polynomials of degree below n. Moves take the part of direction
    and noise that is tangent at the point and return to the sphere along the radius: with tangent noise of variance
    2 gamma eps^2 the step is one of Brownian motion on the sphere, up to higher order in gamma.

    Raises:
        ValueError: a dimension below 1, a radius that is not positive.
    """

    dim: int = 2
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"Sphere.dim must be at least 1, not {self.dim!r}")
        positive(self, radius=self.radius)

    def grid(self, n: int) -> Grid:
        _few(self, n, self.dim - 1)
        nodes, weights = _sphere(self.dim, n)
        scale = self.radius ** (self.dim - 1)
        return Grid(torch.from_numpy(self.radius * nodes), torch.from_numpy(scale * weights))

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return self.nearest(normal(rng, (n, self.dim), torch.float64, "cpu"))

    def move(self, points: Tensor, direction: Tensor, noise: Tensor | None = None) -> Tensor:
        step = direction if noise is None else direction + noise
        along = (step * points).sum(-1, keepdim=True) / self.radius**2
        return self.nearest(points + step - along * points)

    def nearest(self, points: Tensor) -> Tensor:
        """x radius / |x|; x = 0, where all are nearest, is refused.

        Raises:
            GameError: a point at the centre.
        """
        norm = points.norm(dim=-1, keepdim=True)
        if bool((norm == 0).any()):
            raise GameError(
                "Sphere: a point lies at the centre, which has no nearest point: move it"
            )
        return cast(Tensor, points * (self.radius / norm))


@dataclass(frozen=True)
class Space:
    """R^dim with dx (dim = 1: the line). Samples are N(0, scale^2 I); the rule is Gauss-Legendre on the cube
    [-reach, reach]^dim, a truncation: what lies outside is left out of integrals and of grid searches.

    Raises:
        ValueError: a dimension below 1, a scale or reach that is not positive.
    """

    dim: int = 1
    scale: float = 1.0
    reach: float = 8.0

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"Space.dim must be at least 1, not {self.dim!r}")
        positive(self, scale=self.scale, reach=self.reach)

    def grid(self, n: int) -> Grid:
        return Box((-self.reach,) * self.dim, (self.reach,) * self.dim).grid(n)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return self.scale * normal(rng, (n, self.dim), torch.float64, "cpu")

    def move(self, points: Tensor, direction: Tensor, noise: Tensor | None = None) -> Tensor:
        return _added(points, direction, noise)

    def nearest(self, points: Tensor) -> Tensor:
        return points


@dataclass(frozen=True)
class Projected:
    """A closed set of R^dim given by its projection [N, dim] -> [N, dim]. Moves are projected; samples are
    projections of N(0, scale^2 I). It has no rule, so games on it need exact best responses, and particles.

    Raises:
        ValueError: a dimension below 1, a scale that is not positive.
    """

    dim: int
    project: Callable[[Tensor], Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"Projected.dim must be at least 1, not {self.dim!r}")
        positive(self, scale=self.scale)

    def grid(self, n: int) -> Grid:
        """Refused.

        Raises:
            GameError: always.
        """
        raise GameError(
            "Projected has no quadrature rule: play particles, and give the game exact best responses"
        )

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return self.nearest(self.scale * normal(rng, (n, self.dim), torch.float64, "cpu"))

    def move(self, points: Tensor, direction: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.nearest(_added(points, direction, noise))

    def nearest(self, points: Tensor) -> Tensor:
        return self.project(points)


def _added(points: Tensor, direction: Tensor, noise: Tensor | None) -> Tensor:
    return points + direction if noise is None else points + direction + noise


def _few(domain: Domain, n: int, sides: int) -> None:
    if n < 1 or n != int(n):
        raise ValueError(
            f"{type(domain).__name__}.grid: n must be a whole number, at least 1, not {n!r}"
        )
    if n**sides > MOST_NODES:
        raise ValueError(
            f"{type(domain).__name__}.grid: {n}^{sides} nodes are more than {MOST_NODES}: take fewer, or particles"
        )


def _product(sides: list[tuple[Array, Array]]) -> Grid:
    nodes = np.stack(np.meshgrid(*(z for z, _ in sides), indexing="ij"), -1)
    weights = np.ones(())
    for _, w in sides:
        weights = weights[..., None] * w
    return Grid(torch.from_numpy(nodes.reshape(-1, len(sides))), torch.from_numpy(weights.ravel()))


def _sphere(dim: int, n: int) -> tuple[Array, Array]:
    """Rule on the unit sphere of R^dim: dS_dim = (1 - z^2)^((dim - 3) / 2) dz dS_{dim - 1}."""
    if dim == 1:
        return np.array([[1.0], [-1.0]]), np.ones(2)
    if dim == 2:
        angle = 2 * np.pi * np.arange(n) / n
        return np.stack([np.cos(angle), np.sin(angle)], 1), np.full(n, 2 * np.pi / n)
    z, w = roots_gegenbauer(n, (dim - 2) / 2)
    inner, inner_weights = _sphere(dim - 1, n)
    across = np.sqrt((1 - z) * (1 + z))
    first = np.repeat(z, len(inner))[:, None]
    rest = (across[:, None, None] * inner).reshape(-1, dim - 1)
    return np.concatenate([first, rest], 1), np.outer(w, inner_weights).ravel()
