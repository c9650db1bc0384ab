"""Nonlinear games of one number a player, with stationary points of every kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games.truth import Analytic, Point, classify


class Planar(Analytic):
    """A zero-sum game of two numbers: one player minimises f(x, y), the other maximises it.

    Args:
        f: a smooth function of two 0-d tensors, of torch operations.
        minimiser: "x" or "y"; "local minimax" is meant with the minimiser as the leader.
        near: rough places of the stationary points, to which Newton's method adds the digits: as many as
            the caller knows.
        dtype: of the points.

    Players are {"x": {"value": [1]}, "y": {"value": [1]}}, as those of `Quadratic`.

    Raises:
        ValueError: a minimiser that is neither, or a place from which Newton's method goes elsewhere.
    """

    players = ("x", "y")
    zero_sum = True

    def __init__(
        self,
        f: Callable[[Tensor, Tensor], Tensor],
        minimiser: str = "x",
        near: tuple[tuple[float, float], ...] = (),
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if minimiser not in self.players:
            raise ValueError(f"Planar.minimiser must be 'x' or 'y', not {minimiser!r}")
        self.f, self.leader, self.near, self.dtype = f, minimiser, near, dtype
        self._points = tuple(self._point(*place) for place in near)

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        value = self.f(players["x"]["value"].squeeze(), players["y"]["value"].squeeze())
        return {"x": value, "y": -value} if self.leader == "x" else {"x": -value, "y": value}

    def points(self) -> tuple[Point, ...]:
        """The stationary points near the places that were given, to rounding."""
        return self._points

    @property
    def why_none(self) -> str:
        """Why there is no point; "" where there is one."""
        return "" if self.near else "no place was given where v vanishes"

    def _point(self, x: float, y: float) -> Point:
        z = torch.tensor([x, y], dtype=torch.float64)
        for _ in range(20):
            slope = torch.autograd.functional.jacobian(self._flat, z)
            step = torch.linalg.solve(torch.autograd.functional.hessian(self._flat, z), slope)
            z = z - step
            if float(step.abs().max()) < 1e-15 * max(1.0, float(z.abs().max())):
                break
        if not float((z - torch.tensor([x, y], dtype=torch.float64)).norm()) < 0.1:
            raise ValueError(f"Planar.near: no stationary point lies within 0.1 of ({x}, {y})")
        here: Players = {p: {"value": v.clone()} for p, v in zip("xy", z.split(1), strict=True)}
        kind, attracts, leaders = classify(self.jacobian(here), {"x": 1, "y": 1}, self.leader)
        cast = {p: {"value": part["value"].to(self.dtype)} for p, part in here.items()}
        return Point(cast, kind, attracts, leaders)

    def _flat(self, z: Tensor) -> Tensor:
        return self.f(z[0], z[1])


def three_nash(dtype: torch.dtype = torch.float64) -> Planar:
    """f = exp(-(x^2 + y^2)/100) ((0.3 x^2 + y)^2 + (0.5 y^2 + x)^2), x maximises, y minimises.

    After Mazumdar, Jordan and Sastry 2019. (0, 0) is a saddle of the dynamics. (-1.3165, -1.2243)
    attracts gradient dynamics and is not Nash, for x could gain; nor minimax where y leads (it is one
    where x, the maximiser, leads). Local Nash equilibria: (-12.477, -8.678), (-11.427, 8.004),
    (12.395, -6.373). Four more saddles of the dynamics: all that Newton's method found from a grid of
    starts with |x|, |y| <= 30.

    Args:
        dtype: of the players.

    Returns:
        The game, with its points and what each of them is.
    """

    def f(x: Tensor, y: Tensor) -> Tensor:
        first, second = 0.3 * x.square() + y, 0.5 * y.square() + x
        return torch.exp(-(x.square() + y.square()) / 100) * (first.square() + second.square())

    near = (
        (0.0, 0.0),
        (-1.3165, -1.2243),
        (-12.477, -8.678),
        (-11.427, 8.004),
        (12.395, -6.373),
        (-13.843, 1.190),
        (-2.811, -2.371),
        (0.915, -14.012),
        (1.083, 13.991),
    )
    return Planar(f, "y", near, dtype)


def curved_ridge(dtype: torch.dtype = torch.float64) -> Planar:
    """f = (4 x^2 - (y - 3 x + x^3/20)^2 - y^4/10) exp(-(x^2 + y^2)/100), x minimises, y maximises.

    Wang, Zhang and Ba 2020, section 5.1. (0, 0) is a local minimax point, no Nash equilibrium, and gradient
    steps leave it. The other ten stationary points (all that Newton's method found from a grid of starts
    with |x|, |y| <= 30) are saddles of the dynamics or repel.

    Args:
        dtype: of the players.

    Returns:
        The game, with its points and what each of them is.
    """

    def f(x: Tensor, y: Tensor) -> Tensor:
        ridge = y - 3 * x + x**3 / 20
        inside = 4 * x.square() - ridge.square() - y**4 / 10
        return inside * torch.exp(-(x.square() + y.square()) / 100)

    half = (
        (11.387, -13.399),
        (10.060, 13.113),
        (8.101, -0.621),
        (1.106, -13.837),
        (18.607, 0.382),
    )
    return Planar(f, "x", ((0.0, 0.0), *half, *((-x, -y) for x, y in half)), dtype)
