"""Simultaneous gradient steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.optimizers import SGD
from equilibrist.solvers.base import DrawSource, Rules, Sizes, State, Step, measured


@dataclass(frozen=True)
class Simultaneous(Rules):
    """x_p <- P(x_p - rule_p(v_p(x))) for all players at once, on one minibatch.

    Args:
        optimizer, optimizers: update rules (see `Rules`). A negative momentum damps rotation (Gidel
            et al. 2019).

    Losses and gradients are taken at the iterate before the step, after the refresh of the power
    vectors. SimGA of Mescheder et al. 2017 with the sign of own losses.
    """

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        draw = draws.batch()
        constants = field.refresh(players, constants, draw)
        v, losses = field(players, constants, draw)
        info = measured(field, v, losses)
        return Step(self.move(field, v, state, players), constants, state, info)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H J; with momentum m on all players [[I - H J, -m H], [J, m I]] on (x, b)."""
        unit = torch.eye(len(jacobian), dtype=jacobian.dtype, device=jacobian.device)
        rules = [self.rule(player) for player in sizes]
        momenta = {rule.momentum for rule in rules if isinstance(rule, SGD)}
        if momenta == {0.0}:
            return unit - self.step_sizes(jacobian, sizes)[:, None] * jacobian
        if len(momenta) != 1 or not all(isinstance(rule, SGD) for rule in rules):
            raise ValueError(f"linear_map is that of SGD with one momentum for all, not of {self}")
        m = momenta.pop()
        plain = Simultaneous(optimizers={p: SGD(self.rule(p).lr) for p in sizes})  # type: ignore[attr-defined]
        h = plain.step_sizes(jacobian, sizes)
        top = torch.cat([unit - h[:, None] * jacobian, -m * torch.diag(h)], 1)
        return torch.cat([top, torch.cat([jacobian, m * unit], 1)])
