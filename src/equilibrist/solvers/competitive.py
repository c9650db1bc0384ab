"""Competitive gradient descent (Schaefer and Anandkumar 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist._field import VectorField
from equilibrist._game import Constants, Players
from equilibrist.solvers._base import (
    DrawSource,
    Rules,
    Sizes,
    State,
    Step,
    at_least,
    measured,
    positive,
)
from equilibrist.solvers._linear_solve import conjugate_gradients


@dataclass(frozen=True)
class Competitive(Rules):
    """x <- P(x - rule(d)), (I + eta O) d = v: the Nash equilibrium of the regularised local bilinear game.

    O is the off-diagonal part of J = dv/dx (each player's gradient by the other's parameters). With SGD of
    step eta this is competitive gradient descent (Schaefer and Anandkumar 2019, equation 4), whose
    closed form for two players is d_x = (I - eta^2 O_xy O_yx)^{-1} (v_x - eta O_xy v_y). Other rules
    precondition the competitive direction d (not the adaptive form of their follow-up).

    Args:
        optimizer, optimizers: update rules of d.
        eta: how far the other's answer is anticipated; the paper's step size. None takes the step size
            of `optimizer`.
        iterations: products with O and O^T in the conjugate gradients on (I + eta O)^T (I + eta O).

    Any number of players; not zero-sum games as well. Losses and gradient norms are those at x.
    """

    eta: float | None = None
    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta is not None:
            positive(self, eta=self.eta)
        elif not hasattr(self.optimizer, "lr"):
            raise ValueError(
                f"Competitive.eta is needed: {self.optimizer} has no step size of its own"
            )
        at_least(self, 1, iterations=self.iterations)

    def _options(self) -> str:
        return f"eta {self._reach:g}, {self.iterations} iterations; "

    @property
    def _reach(self) -> float:
        return float(self.optimizer.lr if self.eta is None else self.eta)  # type: ignore[attr-defined]

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        draw = draws.batch(0)
        constants = field.refresh(players, constants, draw)
        here = field.linearize(players, constants, draw)
        v, eta = {player: here.v[player] for player in players}, self._reach

        def crossed(u: Players) -> Players:
            """u + eta O u: every player's part moved by the others alone."""
            return _add(u, eta, _off(lambda w: field.jvp(players, constants, w, draw), u))

        def returned(u: Players) -> Players:
            """u + eta O^T u."""
            return _add(u, eta, _off(here.pullback, u))

        direction = conjugate_gradients(
            lambda u: returned(crossed(u)), returned(v), self.iterations, field.stacked
        )
        info = measured(field, here.v, here.losses)
        return Step(self.move(field, direction, state, players), constants, state, info)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H (I + eta O)^{-1} J (with as many iterations as the game has parameters)."""
        unit = torch.eye(len(jacobian), dtype=jacobian.dtype, device=jacobian.device)
        off = jacobian.clone()
        start = 0
        for size in sizes.values():
            off[start : start + size, start : start + size] = 0
            start += size
        rates = self.step_sizes(jacobian, sizes)[:, None]
        direction: Tensor = torch.linalg.solve(unit + self._reach * off, jacobian)
        return unit - rates * direction


def _off(product: Callable[[Players], Players], u: Players) -> Players:
    """The product with the off-diagonal part: for each player's part of u alone, what the others get."""
    total: Players = tree.zeros_like(u)
    for mover in u:
        moved = product({p: part if p == mover else tree.zeros_like(part) for p, part in u.items()})
        for other in u:
            if other != mover:
                total[other] = tree.map(torch.add, total[other], moved[other])
    return total


def _add(u: Players, eta: float, o: Players) -> Players:
    return tree.map(lambda a, b: a + eta * b, u, {p: o[p] for p in u})
