"""Continuous zero-sum games given by a payoff function, played by probability measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.mixed.domains import Domain
from equilibrist.mixed.measures import Density, Measure, chosen

Role = Literal["x", "y"]
PAIRS = (
    2**17
)  # evaluated at a time, rows in blocks of this many pairs: 1 MiB, which stays in the cache


class Reply(NamedTuple):
    """A pure response: point [d], the payoff f that it leads to, and whether it is known to be the best."""

    point: Tensor
    value: float
    exact: bool


@dataclass(frozen=True)
class NashGap:
    """How far (nu, mu) is from equilibrium: (nu, mu) is an epsilon-Nash equilibrium for `epsilon` and no less.

    x = f(nu, mu) - min_x f(x, mu) and y = max_y f(nu, y) - f(nu, mu) are what each player gains by its best response;
    where a best response was searched (not `exact`) the part is a lower bound.
    """

    value: float
    x: float
    y: float
    exact_x: bool
    exact_y: bool

    @property
    def total(self) -> float:
        """The duality gap max_y f(nu, y) - min_x f(x, mu) (exploitability)."""
        return self.x + self.y

    @property
    def epsilon(self) -> float:
        """The larger part."""
        return max(self.x, self.y)

    @property
    def exact(self) -> bool:
        """Whether both parts come from exact best responses."""
        return self.exact_x and self.exact_y


@dataclass(frozen=True)
class PayoffGame:
    """x pays f(x, y) to y: the measure nu over x minimises, the measure mu over y maximises f(nu, mu).

    Args:
        payoff: f, differentiable: points x [..., d] and y [..., e] of broadcasting shapes to values [...].
        x_domain, y_domain: the sets of pure strategies.
        best_x: exact best response to mu, as a `Reply`; None if there is none: it is then searched.
        best_y: the same to nu.
        optimal_value: min_nu max_mu f(nu, mu) where it is known.
    """

    payoff: Callable[[Tensor, Tensor], Tensor]
    x_domain: Domain
    y_domain: Domain
    best_x: Callable[[Measure], Reply] | None = None
    best_y: Callable[[Measure], Reply] | None = None
    optimal_value: float | None = None

    # -- payoffs ------------------------------------------------------------------------------------------

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x_i, y_j) [N, M] of points x [N, d] and y [M, e], all pairs in one evaluation."""
        return self._checked(self.payoff(x[:, None, :], y[None, :, :]), (len(x), len(y)))

    def against_mu(self, x: Tensor, mu: Measure, opponents: Tensor | None = None) -> Tensor:
        """f(x_i, mu) [N] at points x [N, d]; with `opponents` [N, k, e] the mean over these, row by row, instead."""
        return self._costs("x", x, mu, opponents)

    def against_nu(self, y: Tensor, nu: Measure, opponents: Tensor | None = None) -> Tensor:
        """f(nu, y_j) [M] at points y [M, e]; with `opponents` [M, k, d] the mean over these, row by row, instead."""
        return self._costs("y", y, nu, opponents)

    def gradient(
        self, role: Role, points: Tensor, other: Measure, opponents: Tensor | None = None
    ) -> Tensor:
        """The gradient [N, d] of `against_mu` (role "x") or `against_nu` (role "y") at each point: of f, for both."""
        rows = []
        for block, faced in self._blocks(points, other, opponents):
            block = block.detach().requires_grad_()
            with torch.enable_grad():
                total = self._block(role, block, other, faced).sum()
            if not total.requires_grad:  # f does not depend on this player
                rows.append(torch.zeros_like(block))
                continue
            rows.append(torch.autograd.grad(total, block, materialize_grads=True)[0])
        return torch.cat(rows)

    def value(self, nu: Measure, mu: Measure) -> float:
        """f(nu, mu)."""
        return float(nu.mean(self.against_mu(nu.points, mu)))

    # -- gaps ---------------------------------------------------------------------------------------------

    def gap(self, nu: Measure, mu: Measure, nodes: int = 64, rounds: int = 60) -> NashGap:
        """Each player's part of the Nash gap: by exact best responses where the game gives them, else by `search`."""
        value = self.value(nu, mu)
        low = self.best_x(mu) if self.best_x else self.search("x", mu, nodes, rounds, nu.points)
        high = self.best_y(nu) if self.best_y else self.search("y", nu, nodes, rounds, mu.points)
        return NashGap(value, value - low.value, high.value - value, low.exact, high.exact)

    def search(
        self,
        role: Role,
        other: Measure,
        nodes: int = 64,
        rounds: int = 60,
        points: Tensor | None = None,
        starts: int = 8,
    ) -> Reply:
        """A best response by search: the best of a grid with `nodes` along each dimension and of `points`, the best
        `starts` of them then improved by `rounds` steps of projected gradient, each kept only if it gains (step sizes
        double after a gain and fall to a quarter after a loss).

        Never better than the true best response; what it misses are optima whose basin holds none of the starts.
        """
        sign = 1.0 if role == "x" else -1.0
        domain = self.x_domain if role == "x" else self.y_domain
        held = domain.grid(nodes).nodes
        if points is not None:
            held = torch.cat([held, points])
        costs = sign * self._costs(role, held, other, None)
        costs, order = torch.topk(costs, min(starts, len(costs)), largest=False)
        at = held[order]
        step = torch.full_like(costs, 1e-2)
        for _ in range(rounds):
            direction = -sign * self.gradient(role, at, other)
            tried = domain.nearest(at + step[:, None] * direction)
            found = sign * self._costs(role, tried, other, None)
            better = found < costs
            at = torch.where(better[:, None], tried, at)
            costs = torch.where(better, found, costs)
            step = torch.where(better, 2 * step, step / 4)
        best = int(costs.argmin())
        return Reply(at[best], sign * float(costs[best]), False)

    def entropic_gap(self, nu: Density, mu: Density, temperature: float) -> float:
        """The gap of f(nu, mu) + tau int nu log nu - tau int mu log mu, tau the temperature, by the grids' quadrature:

            tau (log int e^{f(nu, y) / tau} dy + log int e^{-f(x, mu) / tau} dx - H(nu) - H(mu)),

        tau times the divergences of nu and mu from each other's smoothed best responses: 0 at the entropic equilibrium.
        """
        x = -self.against_mu(nu.points, mu) / temperature + nu.grid.weights.log()
        y = self.against_nu(mu.points, nu) / temperature + mu.grid.weights.log()
        free = float(torch.logsumexp(x, 0) + torch.logsumexp(y, 0))
        return temperature * (free - nu.entropy() - mu.entropy())

    # -- inside -------------------------------------------------------------------------------------------

    def _costs(
        self, role: Role, points: Tensor, other: Measure, opponents: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [
                    self._block(role, block, other, faced)
                    for block, faced in self._blocks(points, other, opponents)
                ]
            )

    def _blocks(
        self, points: Tensor, other: Measure, opponents: Tensor | None
    ) -> list[tuple[Tensor, Tensor | None]]:
        if opponents is not None and opponents.shape[:1] != points.shape[:1]:
            raise GameError(
                f"opponents: {len(points)} points face opponents of shape {list(opponents.shape)}: "
                "give k opponents to each, [N, k, e]"
            )
        faces = len(other.points) if opponents is None else opponents.shape[1]
        rows = max(1, PAIRS // faces)
        blocks = points.split(rows)
        if opponents is None:
            return [(block, None) for block in blocks]
        return list(zip(blocks, opponents.split(rows), strict=True))

    def _block(self, role: Role, block: Tensor, other: Measure, faced: Tensor | None) -> Tensor:
        own = block[:, None, :]
        them = other.points[None, :, :] if faced is None else faced
        pairs = self.payoff(own, them) if role == "x" else self.payoff(them, own)
        pairs = self._checked(pairs, (len(block), them.shape[1]))
        return pairs @ other.masses if faced is None else pairs.mean(1)

    @staticmethod
    def _checked(pairs: Tensor, shape: tuple[int, int]) -> Tensor:
        # A payoff that does not depend on one of the players may leave its dimension at 1.
        if pairs.ndim != 2 or any(n not in (1, m) for n, m in zip(pairs.shape, shape, strict=True)):
            raise GameError(
                f"payoff: {shape[0]} points of one player and {shape[1]} of the other gave values of shape "
                f"{list(pairs.shape)}: reduce the last dimension of x and y, and nothing else"
            )
        return pairs.expand(shape)


def opponents(measure: Measure, n: int, k: int, rng: np.random.Generator) -> Tensor:
    """k random opponents for each of n points [n, k, d], drawn from a measure in proportion to mass."""
    return measure.points[chosen(measure.masses, rng.random((n, k)))]


def smoothness(payoffs: Tensor) -> float:
    """L [.] of a payoff matrix f(x_i, y_j) [N, M]: a quarter of its largest second difference

        D = max |f(x, y) - f(x', y) - f(x, y') + f(x', y')|  <=  2 (max f - min f).

    Where mu becomes mu', f(., mu) changes, up to a constant, by at most L |mu - mu'|_1 in the maximum norm; so
    mirror-prox may take eta <= 1/L, and descent at temperature tau may take eta <= tau / L^2 (`GridDescent`).
    """
    largest = 0.0
    for row in payoffs:
        difference = payoffs - row
        largest = max(largest, float((difference.amax(1) - difference.amin(1)).amax()))
    return largest / 4
