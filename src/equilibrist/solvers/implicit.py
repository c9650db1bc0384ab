"""The implicit proximal-point step: a reference on small games."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.optimizers import SGD
from equilibrist.solvers.base import (
    DrawSource,
    Rules,
    Sizes,
    State,
    Step,
    flat_part,
    identity_like,
    in_parts,
    measured,
)
from equilibrist.validation import at_least

_LARGEST = 500


@dataclass(frozen=True)
class Implicit(Rules):
    """x_{t+1} = P(y), y = x_t - H v(y): solved by Newton's method with the dense Jacobian.

    What extragradient and optimistic steps approximate (Mokhtari et al. 2020). Rules must be SGD, whose step
    sizes are the diagonal of H. For games of at most 500 parameters: a reference, not a training
    method. Losses and gradient norms are those at x_t.

    Args:
        optimizer, optimizers: SGD, without momentum.
        iterations: Newton steps; one is exact where the field is linear.

    Raises:
        GameError: a larger game. ValueError: rules that are not plain SGD.
    """

    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, iterations=self.iterations)
        for rule in (self.optimizer, *self.optimizers.values()):
            if not isinstance(rule, SGD) or rule.momentum:
                raise ValueError(f"Implicit solves for plain SGD(step size), not for {rule}")

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        members = field.stacked or 1
        sizes = {p: tree.count(part) // members for p, part in players.items()}
        n = sum(sizes.values())
        if n > _LARGEST:
            raise GameError(
                f"Implicit solves with the dense Jacobian of {n} parameters: it is for games of at most "
                f"{_LARGEST}; take Extragradient or Optimistic"
            )
        draw = draws.batch(0)
        constants = field.refresh(players, constants, draw)
        v, losses = field(players, constants, draw)
        info = measured(field, v, losses)
        start = flat_part(players, field.stacked)
        rates = self.step_sizes(start, sizes)
        y = start.clone()
        for _ in range(self.iterations):
            at = in_parts(y, players, field.stacked)
            here, _ = field(at, constants, draw)
            slopes = flat_part({p: here[p] for p in players}, field.stacked)
            residual = y - start + rates * slopes
            unit = torch.eye(n, dtype=y.dtype, device=y.device)
            columns = [
                flat_part(
                    field.jvp(
                        at, constants, in_parts(e.expand_as(y), players, field.stacked), draw
                    ),
                    field.stacked,
                )
                for e in unit
            ]
            matrix = unit + rates[:, None] * torch.stack(columns, -1)
            y = y - torch.linalg.solve(matrix, residual)
        return Step(field.project(in_parts(y, players, field.stacked)), constants, state, info)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """(I + H J)^{-1}."""
        unit = identity_like(jacobian)
        rates = self.step_sizes(jacobian, sizes)[:, None]
        return cast(Tensor, torch.linalg.inv(unit + rates * jacobian))
