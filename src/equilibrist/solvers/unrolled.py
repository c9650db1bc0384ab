"""Unrolled GANs (Metz et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import Evaluation, VectorField
from equilibrist.core.game import Constants, Game, Players, Wrapped
from equilibrist.solvers.base import (
    Directed,
    DrawSource,
    Place,
    Sizes,
    State,
    check_roles,
    identity_like,
)
from equilibrist.validation import at_least, positive


class _Ahead(Wrapped):
    """The game in which the leader's loss is taken against a follower that has answered."""

    zero_sum = False
    separable = False
    why_not_separable = "the mean of unrolled losses is not the unrolled mean"

    def __init__(self, game: Game, leader: str, follower: str, steps: int, rate: float) -> None:
        super().__init__(game)
        self.leader, self.follower, self.steps, self.rate = leader, follower, steps, rate

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        def own(part: dict[str, Tensor]) -> Tensor:
            at = {**players, self.follower: part}
            return self.game.losses(at, constants, draw, self.follower)[self.follower]

        part = players[self.follower]
        for _ in range(self.steps):
            # torch.func, so that vmap over members may lie outside.
            slope = torch.func.grad(own)(part)
            part = {k: x - self.rate * slope[k] for k, x in part.items()}
        answered = {**players, self.follower: part}
        return {self.leader: self.game.losses(answered, constants, draw, self.leader)[self.leader]}


@dataclass(frozen=True)
class Unrolled(Directed):
    """Leader x <- P(x - rule(d/dx f_x(x, y_k(x)))), y_k(x) the follower after k gradient steps from y, through
    which is differentiated; follower y <- P(y - rule(v_y(x, y))), simultaneously (Metz et al. 2017,
    equations 8 to 10).

    Args:
        optimizer, optimizers: update rules.
        unroll: k; 0 is `Simultaneous`.
        rate: step size of the unrolled steps (plain gradient steps, without projections).
        leader, follower: the players' names.

    All k steps see the step's own minibatch. Losses are f_x(x, y_k) and f_y(x, y); norms are those of the
    directions. Not averaged over machines: the mean of unrolled losses is not the unrolled mean.
    """

    unroll: int = 5
    rate: float = 0.1
    leader: str = "generator"
    follower: str = "critic"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, unroll=self.unroll)
        positive(self, rate=self.rate)

    def init(self, players: Players) -> State:
        check_roles(self.leader, self.follower, players)
        return super().init(players)

    def _options(self) -> str:
        return f"{self.unroll} steps of {self.rate:g} unrolled; "

    def direction(
        self, field: VectorField, place: Place, draws: DrawSource
    ) -> tuple[Players, Evaluation]:
        ahead = field.of(_Ahead(field.game, self.leader, self.follower, self.unroll, self.rate))
        found = {
            self.leader: ahead(*place, only=self.leader),
            self.follower: field(*place, only=self.follower),
        }
        v = {player: found[player].v[player] for player in place.players}
        losses = {player: one.losses[player] for player, one in found.items()}
        return v, Evaluation(v, losses)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H J' for a zero-sum quadratic game: J' has the leader's rows of the unrolled game.

        y_k = S^k y + R x + const with S = I - r J_yy, R = -r (sum_j<k S^j) J_yx; the leader's gradient is
        J_xx x + J_xy y_k + R^T (J_yx-part of its own loss at y_k): f_x = -f_y, so d f_x / dy = -v_y.
        """
        where = tree.slices(sizes)
        x, y = where[self.leader], where[self.follower]
        unit = identity_like(jacobian)
        eye = unit[y, y]
        shrink = eye - self.rate * jacobian[y, y]
        total, power = torch.zeros_like(eye), eye
        for _ in range(self.unroll):
            total, power = total + power, power @ shrink
        answer = torch.zeros_like(jacobian[y])
        answer[:, x] = -self.rate * total @ jacobian[y, x]
        moved = answer.clone()
        moved[:, y] = power
        rows = jacobian.clone()
        rows[x] = jacobian[x, x] @ unit[x] + jacobian[x, y] @ moved
        reply = jacobian[y, x] @ unit[x] + jacobian[y, y] @ moved
        rows[x] -= answer[:, x].mT @ reply
        return unit - self.step_sizes(jacobian, sizes)[:, None] * rows
