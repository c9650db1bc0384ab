"""Simultaneous gradient steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist.core.field import Evaluation, VectorField
from equilibrist.core.game import Players
from equilibrist.optimizers import SGD
from equilibrist.solvers.base import Directed, DrawSource, Place, Sizes, identity_like


@dataclass(frozen=True)
class Simultaneous(Directed):
    """x_p <- P(x_p - rule_p(v_p(x))) for all players at once, on one minibatch.

    Args:
        optimizer, optimizers: update rules (see `Rules`). A negative momentum damps rotation (Gidel
            et al. 2019).

    Losses and gradient norms are those at x, after the refresh of the power vectors. SimGA of Mescheder
    et al. 2017 with the sign of own losses.
    """

    def direction(
        self, field: VectorField, place: Place, draws: DrawSource
    ) -> tuple[Players, Evaluation]:
        here = field(*place)
        return here.v, here

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H J; with momentum m on all players [[I - H J, -m H], [J, m I]] on (x, b)."""
        unit = identity_like(jacobian)
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
