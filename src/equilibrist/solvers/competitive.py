"""Competitive gradient descent (Schaefer and Anandkumar 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import Linearization, VectorField
from equilibrist.core.game import Players
from equilibrist.solvers._linear_solve import conjugate_gradients
from equilibrist.solvers.base import (
    Directed,
    DrawSource,
    Place,
    Sizes,
    flat_part,
    identity_like,
    in_parts,
)
from equilibrist.tree import Tree
from equilibrist.validation import at_least, not_negative, positive


@dataclass(frozen=True)
class Competitive(Directed):
    """x <- P(x - rule(d)), (I + eta O) d = v: the Nash equilibrium of the regularised local bilinear game.

    O is the off-diagonal part of J = dv/dx (each player's gradient by the other's parameters). With SGD of
    step eta this is competitive gradient descent (Schaefer and Anandkumar 2019, equation 4), whose
    closed form for two players is d_x = (I - eta^2 O_xy O_yx)^{-1} (v_x - eta O_xy v_y). Other rules
    precondition the competitive direction d (not the adaptive form of their follow-up).

    Args:
        optimizer, optimizers: update rules of d.
        eta: how far the other's answer is anticipated; the paper's step size. None takes the step size
            of `optimizer`.
        iterations: the most iterations of conjugate gradients, each with two products. In a zero-sum game
            of two players O is antisymmetric, and they solve the closed form above for the player with
            fewer parameters (blocks of O alone: each product is half a one with J); elsewhere
            they run on (I + eta O)^T (I + eta O).
        tolerance: iterations stop where the residual is at most that part of the right side. 0 takes all of them,
            which never waits for the device.

    Any number of players; not zero-sum games as well. Losses and gradient norms are those at x.
    """

    eta: float | None = None
    iterations: int = 10
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta is not None:
            positive(self, eta=self.eta)
        elif not hasattr(self.optimizer, "lr"):
            raise ValueError(
                f"Competitive.eta is needed: {self.optimizer} has no step size of its own"
            )
        at_least(self, 1, iterations=self.iterations)
        not_negative(self, tolerance=self.tolerance)

    def _options(self) -> str:
        return f"eta {self._reach:g}, {self.iterations} iterations, tolerance {self.tolerance:g}; "

    @property
    def _reach(self) -> float:
        return float(self.optimizer.lr if self.eta is None else self.eta)  # type: ignore[attr-defined]

    def direction(
        self, field: VectorField, place: Place, draws: DrawSource
    ) -> tuple[Players, Linearization]:
        here = field.linearize(*place)
        if field.game.zero_sum:
            return self._on_one_player(field, here), here
        return self._on_all(field, here, place), here

    def _on_one_player(self, field: VectorField, here: Linearization) -> Players:
        """d of a zero-sum game, where O_xy = -O_yx^T: both blocks are pullbacks along one player."""
        one, other = sorted(here.v, key=lambda player: tree.count(here.v[player]))
        eta, members = self._reach, field.stacked
        flat = {player: flat_part(part, members) for player, part in here.v.items()}

        def crossed(mover: str, u: Tensor, reached: str) -> Tensor:
            """-O u: the mover's u, felt by the other."""
            pulled = here.pullback({mover: in_parts(u, here.v[mover], members)}, only=reached)
            return flat_part(pulled[reached], members)

        def apply(u: Tree) -> Tree:
            twice = crossed(other, crossed(one, u[one], other), one)
            return {one: u[one].sub(twice, alpha=eta**2)}

        right = flat[one].add(crossed(other, flat[other], one), alpha=eta)
        found = conjugate_gradients(apply, {one: right}, self.iterations, members, self.tolerance)[
            one
        ]
        answer = flat[other].add(crossed(one, found, other), alpha=eta)
        solved = {one: found, other: answer}
        return {p: in_parts(solved[p], part, members) for p, part in here.v.items()}

    def _on_all(self, field: VectorField, here: Linearization, place: Place) -> Players:
        eta, (players, constants, draw) = self._reach, place

        def crossed(u: Players) -> Players:
            """u + eta O u: every player's part moved by the others alone."""
            return _add(u, eta, _off(lambda w: field.jvp(players, constants, w, draw), u))

        def returned(u: Players) -> Players:
            """u + eta O^T u."""
            return _add(u, eta, _off(here.pullback, u))

        v = {player: here.v[player] for player in players}
        return conjugate_gradients(
            lambda u: returned(crossed(u)),
            returned(v),
            self.iterations,
            field.stacked,
            self.tolerance,
        )

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H (I + eta O)^{-1} J (tolerance 0, and as many iterations as are needed: in a zero-sum game the
        parameters of the smaller player, elsewhere those of all)."""
        unit = identity_like(jacobian)
        off = jacobian.clone()
        for part in tree.slices(sizes).values():
            off[part, part] = 0
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
