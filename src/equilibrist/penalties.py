"""Penalties on the critic, added to its own loss (and to nobody else's: no longer zero-sum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from equilibrist.formulations import Critic


class Penalty(Protocol):
    """A 0-d tensor that the critic pays. `needs_mix`: the draw must hold `mix` ~ U[0,1], one a sample."""

    @property
    def needs_mix(self) -> bool: ...

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None
    ) -> Tensor: ...


def input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """grad_x D(x_i) for each sample i, shape of `x`; differentiable, and right under vmap.

    Needs a critic that scores each sample by itself: batch norm would mix their gradients.
    """
    gradient: Tensor = torch.func.grad(lambda points: critic(points).sum())(x)
    return gradient


@dataclass(frozen=True)
class GradientPenalty:
    """weight * mean_i (|grad_x D(x_i)| - target)^2 at x_i = mix_i real_i + (1 - mix_i) fake_i.

    Two-sided, one norm and one mixing weight per sample (Gulrajani et al. 2017, equation 3,
    whose weight is 10).
    """

    weight: float = 10.0
    target: float = 1.0
    needs_mix: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"GradientPenalty.weight must be finite and not negative, not {self.weight}"
            )

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None) -> Tensor:
        assert mix is not None
        between = torch.lerp(fake, real, mix.reshape(-1, *[1] * (real.ndim - 1)))
        norms = _norms(input_gradient(critic, between).flatten(1))
        return self.weight * (norms - self.target).square().mean()


def _norms(rows: Tensor) -> Tensor:
    """|row_i|, with derivatives of every order zero where a row is zero (a ReLU critic whose units are
    all dead on a sample): the norm's own second derivative is undefined there."""
    dead = (rows == 0).all(dim=1)
    norms: Tensor = torch.linalg.vector_norm(torch.where(dead[:, None], 1.0, rows), dim=1)
    return torch.where(dead, 0.0, norms)
