"""Optimistic steps: optimistic gradient, optimistic Adam."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.solvers.base import DrawSource, Rules, Sizes, State, Step, identity_like, measured
from equilibrist.validation import not_negative


@dataclass(frozen=True)
class Optimistic(Rules):
    """x_{t+1} = P(x_t + u_t + strength (u_t - u_{t-1})), u_t the rule's own change at t.

    With SGD that is x - h (2 v_t - v_{t-1}) for strength 1 (Daskalakis et al. 2018, equation 5); with
    Adam it is their Optimistic Adam (Algorithm 1: optimism acts on the preconditioned change). At the first step
    u_{-1} = u_0: a plain step. One gradient a step. Losses and gradient norms are those at x_t.

    Args:
        optimizer, optimizers: update rules.
        strength: weight of the correction (1: the paper's).

    Raises:
        ValueError: a strength that is negative or no number.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, strength=self.strength)

    def _options(self) -> str:
        return "" if self.strength == 1 else f"strength {self.strength:g}; "

    def init(self, players: Players) -> State:
        anchor = tree.leaves(players)[0]
        return {
            "rules": super().init(players),
            "past": tree.zeros_like(players),
            # An integer: no part of the linear state. It says whether there is a past.
            "begun": torch.zeros((), dtype=torch.int64, device=anchor.device),
        }

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
        before = tree.clone(players)
        with torch.no_grad():
            # The change that the rule makes, not what a projection leaves of it: at a wall the latter falls to
            # zero, and the correction would throw the player back from it.
            self.descend(field, v, state["rules"], players)
            change = tree.map(torch.sub, players, before)
            begun = state["begun"] > 0
            past = tree.map(lambda u, p: torch.where(begun, p, u), change, state["past"])
            players = tree.map(
                lambda x, u, p: x + u + self.strength * (u - p), before, change, past
            )
            players = field.project(players)
        state = {"rules": state["rules"], "past": change, "begun": state["begun"] + 1}
        return Step(players, constants, state, measured(field, v, losses))

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """On (x, u): u' = -H J x, x' = x + (1 + s) u' - s u. Exact from the second step on."""
        unit = identity_like(jacobian)
        change = -self.step_sizes(jacobian, sizes)[:, None] * jacobian
        s = self.strength
        top = torch.cat([unit + (1 + s) * change, -s * unit], 1)
        return torch.cat([top, torch.cat([change, torch.zeros_like(unit)], 1)])
