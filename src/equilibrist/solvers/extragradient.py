"""Extragradient steps, with a gradient at the look-ahead point or with one kept from the past."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.solvers.base import (
    DrawSource,
    Rules,
    Sizes,
    State,
    Step,
    identity_like,
    independent,
    measured,
)


@dataclass(frozen=True)
class Extragradient(Rules):
    """y = P(x - rule(v(x))), then x <- P(x - rule(v(y))).

    Args:
        optimizer, optimizers: update rules. The look-ahead y takes the rule's own step with a copy of
            its state; moments advance once an iteration, by v(y). (ExtraAdam as published, Gidel et
            al. 2019, advances them twice.)
        fresh: take v(y) on a minibatch of its own (independent samples), not on that of v(x).

    Korpelevich 1976; Gidel et al. 2019, Algorithm 1. Losses and gradient norms are those at x. Two
    gradients a step.
    """

    fresh: bool = False

    def _options(self) -> str:
        return "fresh minibatch at the look-ahead; " if self.fresh else ""

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
        ahead = self.move(field, v, tree.clone(state), tree.clone(players))
        there = independent(draws, 1) if self.fresh else draw
        constants = field.refresh(ahead, constants, there)
        v, _ = field(ahead, constants, there)
        return Step(self.move(field, v, state, players), constants, state, info)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H J + H J H J."""
        unit = identity_like(jacobian)
        step = self.step_sizes(jacobian, sizes)[:, None] * jacobian
        return unit - step + step @ step


@dataclass(frozen=True)
class PastExtragradient(Rules):
    """y_t = P(x_t - rule(v(y_{t-1}))), then x_{t+1} = P(x_t - rule(v(y_t))): one gradient a step.

    The look-ahead reuses the last gradient (extrapolation from the past: Popov 1980; Gidel et al.
    2019, equation 15); v(y_{-1}) = 0. Losses and gradient norms are those at y_t. Look-aheads take the
    rule's step with a copy of its state, as in `Extragradient`.
    """

    def init(self, players: Players) -> State:
        return {"rules": super().init(players), "past": tree.zeros_like(players)}

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        draw = draws.batch(0)
        rules = state["rules"]
        ahead = self.move(field, state["past"], tree.clone(rules), tree.clone(players))
        constants = field.refresh(ahead, constants, draw)
        v, losses = field(ahead, constants, draw)
        players = self.move(field, v, rules, players)
        kept = {player: v[player] for player in players}
        return Step(players, constants, {"rules": rules, "past": kept}, measured(field, v, losses))

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """On (x, g): y = x - H g, x <- x - H J y, g <- J y."""
        unit = identity_like(jacobian)
        rates = torch.diag(self.step_sizes(jacobian, sizes))
        ahead = torch.cat([unit, -rates], 1)
        gradient = jacobian @ ahead
        return torch.cat(
            [torch.cat([unit, torch.zeros_like(unit)], 1) - rates @ gradient, gradient]
        )
