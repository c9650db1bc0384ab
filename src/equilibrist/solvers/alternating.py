"""Alternating gradient steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.optimizers import Adam, Optimizer
from equilibrist.solvers.base import (
    ByPlayer,
    DrawSource,
    Sizes,
    State,
    Step,
    check_roles,
    identity_like,
)
from equilibrist.validation import at_least


@dataclass(frozen=True)
class Alternating(ByPlayer):
    """k critic steps, each on a fresh minibatch, then one generator step against the new critic.

        for j = 0..k-1:  w <- P(w - rule(v_w(theta, w; batch j)))
        theta <- P(theta - rule(v_theta(theta, w; batch k)))

    Args:
        critic_steps: k (Goodfellow et al. 2014, Algorithm 1; Arjovsky et al. 2017: 5).
        optimizer: the update rule of every player that `optimizers` does not name.
        optimizers: rules by player's name.
        leader, follower: the players' names.

    Power vectors are refreshed before each critic gradient. Each player's loss and gradient norm
    are those of its last update, taken before it; the critic's are of inner step k - 1. Terms that
    do not depend on the mover's parameters are left out of its loss: that of the generator in a
    zero-sum game is V without its real term.
    """

    critic_steps: int = 1
    optimizer: Optimizer = field(default_factory=Adam)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    leader: str = "generator"
    follower: str = "critic"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, critic_steps=self.critic_steps)

    def __str__(self) -> str:
        plural = "step" if self.critic_steps == 1 else "steps"
        rules = [f"{p}: {self.rule(p)}" for p in (self.follower, self.leader)]
        same = self.rule(self.follower) == self.rule(self.leader)
        return (
            f"Alternating: {self.critic_steps} {self.follower} {plural} per {self.leader} step; "
            f"{self.rule(self.leader) if same else ', '.join(rules)}"
        )

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
        loss, grad_norm = {}, {}
        turns = [self.follower] * self.critic_steps + [self.leader]
        for index, mover in enumerate(turns):
            draw = draws.batch(index)
            if mover == self.follower:
                constants = field.refresh(players, constants, draw)
            v, losses = field(players, constants, draw, only=mover)
            with torch.no_grad():
                field.descend(self.rule(mover), mover, v[mover], state[mover], players[mover])
                players = field.project(players)
            if index >= self.critic_steps - 1:
                loss[mover] = losses[mover]
                grad_norm.update(field.norms(v))
        return Step(players, constants, state, {"loss": loss, "grad_norm": grad_norm})

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """(I - H P_x J) (I - H P_y J)^k, P_x and P_y the leader's and the follower's rows. Plain SGD."""
        unit = identity_like(jacobian)
        rates = self.step_sizes(jacobian, sizes)
        total = {}
        for player, part in tree.slices(sizes).items():
            rows = torch.zeros_like(rates)
            rows[part] = rates[part]
            total[player] = unit - rows[:, None] * jacobian
        follower = torch.linalg.matrix_power(total[self.follower], self.critic_steps)
        return cast(Tensor, total[self.leader] @ follower)
