"""Follow-the-ridge (Wang, Zhang and Ba 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.solvers._linear_solve import conjugate_gradients
from equilibrist.solvers.base import (
    DrawSource,
    Rules,
    Sizes,
    State,
    Step,
    check_roles,
    identity_like,
    measured,
)
from equilibrist.tree import Tree
from equilibrist.validation import at_least, not_negative


@dataclass(frozen=True)
class FollowTheRidge(Rules):
    """Leader x <- P(x - rule(v_x)); follower y <- P(y - rule(v_y) - J_yy^{-1} J_yx dx), dx the leader's change.

    The last term keeps the follower on the ridge where its gradient vanishes, so that exactly the
    local minimax points attract (Wang et al. 2020, Algorithm 1, with the sign of own losses).

    Args:
        optimizer, optimizers: update rules; the correction uses the leader's change as its rule
            and the projection made it.
        leader, follower: the players' names.
        damping: (J_yy^2 + damping I)^{-1} J_yy in place of J_yy^{-1}.
        iterations: products in the conjugate gradients on J_yy^2 + damping I, which works for an
            indefinite J_yy as well.

    Losses and gradient norms are those at the iterate before the step.
    """

    leader: str = "generator"
    follower: str = "critic"
    damping: float = 0.0
    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, damping=self.damping)
        at_least(self, 1, iterations=self.iterations)

    def init(self, players: Players) -> State:
        check_roles(self.leader, self.follower, players)
        return super().init(players)

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
        v, losses = field(players, constants, draw)
        info = measured(field, v, losses)
        here = tree.clone(players)
        with torch.no_grad():
            part = players[self.leader]
            field.descend(
                self.rule(self.leader), self.leader, v[self.leader], state[self.leader], part
            )
            # Projected, for the ridge is followed as far as the leader may go.
            players = field.project(players)
            change = tree.map(torch.sub, players[self.leader], here[self.leader])
        zero = tree.zeros_like(here)

        def product(leader: Tree | None, follower: Tree | None) -> Tree:
            u = {
                **zero,
                **({self.leader: leader} if leader is not None else {}),
                **({self.follower: follower} if follower is not None else {}),
            }
            return field.jvp(here, constants, u, draw)[self.follower]

        # J_yy is a Hessian, hence symmetric: its square is positive semi-definite.
        crossed = product(change, None)
        inverse = conjugate_gradients(
            lambda u: tree.map(
                lambda a, b: a + self.damping * b, product(None, product(None, u)), u
            ),
            product(None, crossed),
            self.iterations,
            field.stacked,
        )
        with torch.no_grad():
            mine = players[self.follower]
            field.descend(
                self.rule(self.follower),
                self.follower,
                v[self.follower],
                state[self.follower],
                mine,
            )
            players = {**players, self.follower: tree.map(torch.sub, mine, inverse)}
            players = field.project(players)
        return Step(players, constants, state, info)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H J, the follower's rows less J_yy^{-1} J_yx times the leader's change -H_x J_x."""
        if self.damping:
            raise ValueError("linear_map is that of damping 0")
        unit = identity_like(jacobian)
        plain = -self.step_sizes(jacobian, sizes)[:, None] * jacobian
        where = tree.slices(sizes)
        x, y = where[self.leader], where[self.follower]
        correction = torch.linalg.solve(jacobian[y, y], jacobian[y, x] @ plain[x])
        change = plain.clone()
        change[y] -= correction
        return unit + change
