"""Extragradient steps, with a gradient at the look-ahead point or with one kept from the past."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.schedules import Schedule
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
from equilibrist.validation import is_number


@dataclass(frozen=True)
class Extragradient(Rules):
    """y = P(x - explore rule(v(x))), then x <- P(x - rule(v(y))).

    Korpelevich 1976; Gidel et al. 2019, Algorithm 1. Losses and gradient norms are those at x. Two
    gradients a step.

    With explore > 1 the look-ahead goes further than the update: the double step size of Hsieh, Iutzeler, Malick and
    Mertikopoulos 2020 (DSEG), which lets the method converge where gradients are noisy. On the bilinear game x y, with
    independent noise of variance s^2 in every gradient, SGD's look-aheads g and updates e settle at

        E x^2 = E y^2 = s^2 e (1 + g^2) / (2 g - e (1 + g^2)),

    which is above s^2 for equal steps, however small they are, and vanishes with e at a fixed g. If e falls like
    1 / t at a fixed g, so does the mean square; g / e then grows, which a schedule as `explore` says.

    Args:
        optimizer, optimizers: update rules. The look-ahead y takes the rule's own step with a copy of
            its state; moments advance once an iteration, by v(y). (ExtraAdam as published, Gidel et
            al. 2019, advances them twice.)
        fresh: take v(y) on a minibatch of its own (independent samples), not on that of v(x).
        explore: how many times further than the update the look-ahead goes: a number from 1 on, or a schedule
            (`schedules.Piecewise`, any function of t) of such numbers at step t = 0, 1, ...

    Raises:
        ValueError: an explore below 1, or one that is neither a number nor a schedule.

    Examples:
        >>> from equilibrist import SGD, Extragradient, Scheduled
        >>> print(Extragradient(SGD(0.05), fresh=True, explore=10.0))
        Extragradient: fresh minibatch at the look-ahead; explore 10; SGD(lr=0.05, momentum=0.0)

        Updates that fall like 1 / t, always looking 0.5 ahead:

        >>> falling = Scheduled(SGD(0.5), lambda t: 1 / (1 + t / 20))
        >>> solver = Extragradient(falling, fresh=True, explore=lambda t: 1 + t / 20)
    """

    fresh: bool = False
    explore: float | Schedule = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if callable(self.explore):
            sound = not isinstance(self.explore, type)
        else:
            sound = is_number(self.explore) and 1 <= self.explore < math.inf
        if not sound:
            raise ValueError(
                "Extragradient.explore must be a number of at least 1, or a schedule such as Piecewise(...), not "
                f"{self.explore!r}"
            )

    def _options(self) -> str:
        fresh = "fresh minibatch at the look-ahead; " if self.fresh else ""
        if self.explore == 1:
            return fresh
        shown = f"by {self.explore}" if callable(self.explore) else f"{self.explore:g}"
        return f"{fresh}explore {shown}; "

    def init(self, players: Players) -> State:
        rules = super().init(players)
        if not callable(self.explore):
            return rules
        device = tree.leaves(players)[0].device
        # Counted in float64: float32 stands still at 2^24.
        return {"rules": rules, "t": torch.zeros((), dtype=torch.float64, device=device)}

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        factor: float | Tensor
        if callable(self.explore):
            rules, factor = state["rules"], self.explore(state["t"])
            state = {"rules": rules, "t": state["t"] + 1}
        else:
            rules, factor = state, self.explore
        draw = draws.batch(0)
        constants = field.refresh(players, constants, draw)
        v, losses = field(players, constants, draw)
        info = measured(field, v, losses)
        ahead = self._ahead(field, v, rules, players, factor)
        there = independent(draws, 1) if self.fresh else draw
        constants = field.refresh(ahead, constants, there)
        v, _ = field(ahead, constants, there)
        return Step(self.move(field, v, rules, players), constants, state, info)

    def _ahead(
        self, field: VectorField, v: Players, rules: State, players: Players, factor: float | Tensor
    ) -> Players:
        """P(x + factor (rule(v) - x)); neither x nor the rules' state is touched."""
        ahead, rules = tree.clone(players), tree.clone(rules)
        if self.explore == 1:
            return self.move(field, v, rules, ahead)
        with torch.no_grad():
            self.descend(field, v, rules, ahead)
            return field.project(tree.map(lambda x, y: x + factor * (y - x), players, ahead))

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H J + explore H J H J; explore must be a number."""
        if callable(self.explore):
            raise ValueError(f"linear_map is that of one factor, not of explore={self.explore}")
        unit = identity_like(jacobian)
        step = self.step_sizes(jacobian, sizes)[:, None] * jacobian
        return unit - step + self.explore * (step @ step)


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
