"""Symplectic gradient adjustment (Balduzzi et al. 2018; Letcher et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import Linearization, VectorField
from equilibrist.core.game import Players
from equilibrist.solvers._linear_solve import broadcast_weight, stacked_dot
from equilibrist.solvers._members import (
    Weight,
    describe,
    member_weights,
    single_value,
    weight_values,
)
from equilibrist.solvers.base import Directed, DrawSource, Place, Sizes, identity_like
from equilibrist.validation import finite_number


@dataclass(frozen=True)
class SymplecticAdjustment(Directed):
    """x <- P(x - rule(v + lambda A^T v)), A = (J - J^T) / 2 the antisymmetric part of J = dv/dx.

    Args:
        optimizer, optimizers: update rules of the adjusted direction.
        strength: lambda; in an ensemble also a tuple, one a member.
        align: take the sign of lambda from sign(<v, J^T v> <A^T v, J^T v> / n + 1/10), n the number of
            parameters (Balduzzi et al. 2018, section 4.2 with the code's epsilon): towards stable points,
            away from unstable ones. Of several stacked members each has its own sign.

    Balduzzi et al. 2018, Proposition 5 and Algorithm 1. Losses and gradient norms are those at x.
    """

    strength: Weight = 1.0
    align: bool = False
    per_member: ClassVar = ("strength",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for strength in weight_values(self.strength):
            finite_number(self, strength=strength)

    def _options(self) -> str:
        return f"lambda {describe(self.strength)}{', aligned' if self.align else ''}; "

    def direction(
        self, field: VectorField, place: Place, draws: DrawSource
    ) -> tuple[Players, Linearization]:
        players, constants, draw = place
        here = field.linearize(*place)
        v = {player: here.v[player] for player in players}
        pulled = here.pullback(v)
        pushed = field.jvp(players, constants, v, draw)
        adjusted = tree.map(lambda a, b: (a - b) / 2, pulled, pushed)
        weights = member_weights(self.strength, v, field.stacked)
        if self.align:
            size = sum(leaf.numel() for leaf in tree.leaves(v)) / (field.stacked or 1)
            agreement = (
                stacked_dot(v, pulled, field.stacked)
                * stacked_dot(adjusted, pulled, field.stacked)
                / size
                + 0.1
            )
            weights = weights * torch.sign(agreement)
        return tree.map(lambda x, a: x + broadcast_weight(weights, a) * a, v, adjusted), here

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H (I + lambda A^T) J, without alignment (with it the step is not linear: ValueError)."""
        if self.align:
            raise ValueError("linear_map: with align the sign of lambda depends on the point")
        unit = identity_like(jacobian)
        antisymmetric = (jacobian - jacobian.mT) / 2
        rates = self.step_sizes(jacobian, sizes)[:, None]
        return unit - rates * ((unit + single_value(self.strength) * antisymmetric.mT) @ jacobian)
