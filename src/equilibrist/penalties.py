"""Penalties on the critic, added to its own loss (and to nobody else's: no longer zero-sum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from equilibrist.formulations import Critic
from equilibrist.formulations.gradient import input_gradient

__all__ = ["R1", "R2", "GradientPenalty", "Penalty", "input_gradient"]


class Penalty(Protocol):
    """A 0-d tensor that the critic pays. `needs_mix`: the draw must hold `mix` ~ U[0,1], one a sample.

    Generated samples keep their graph: the critic's own gradient does not see it, but the Jacobian's block
    that says how this gradient moves with the generator does.

    Of a critic that returns a map of scores, D(x) is the sum over the map of x.
    """

    @property
    def needs_mix(self) -> bool: ...

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None
    ) -> Tensor: ...


@dataclass(frozen=True)
class GradientPenalty:
    """weight * mean_i (|grad_x D(x_i)| - target)^2 at x_i = mix_i real_i + (1 - mix_i) fake_i.

    One norm and one mixing weight per sample, two-sided (Gulrajani et al. 2017, equation 3, whose weight
    is 10). With `one_sided` only what exceeds the target is paid for, max(0, |grad_x D(x_i)| - target)^2
    (their section 4; Petzka et al. 2018).

    Args:
        weight: the factor.
        target: the slope that costs nothing.
        needs_mix: says that it is taken at mixtures of real and generated samples.
        one_sided: pay only for what exceeds the target.

    Raises:
        ValueError: a weight that is negative or not finite.

    Examples:
        >>> import torch
        >>> from equilibrist import GradientPenalty
        >>> x = torch.randn(8, 2)
        >>> steep = lambda x: 3 * x[:, 0]  # slope 3 everywhere
        >>> float(GradientPenalty(10.0)(steep, x, x, torch.rand(8, 1)))
        40.0
    """

    weight: float = 10.0
    target: float = 1.0
    needs_mix: bool = True
    one_sided: bool = False

    def __post_init__(self) -> None:
        _check_weight(self, self.weight)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None) -> Tensor:
        assert mix is not None
        between = torch.lerp(fake, real, mix.reshape(-1, *[1] * (real.ndim - 1)))
        excess = _norms(input_gradient(critic, between).flatten(1)) - self.target
        if self.one_sided:
            excess = excess.clamp_min(0)
        return self.weight * excess.square().mean()


@dataclass(frozen=True)
class R1:
    """weight / 2 * mean_i |grad_x D(x_i)|^2 at real samples (Mescheder, Geiger and Nowozin 2018).

    Their gamma is the weight.

    Args:
        weight: gamma.

    Raises:
        ValueError: a weight that is negative or not finite.

    Examples:
        >>> import torch
        >>> from equilibrist import R1
        >>> x = torch.randn(8, 2)
        >>> float(R1(10.0)(lambda x: 3 * x[:, 0], x, x, None))  # 10 / 2 * 3^2
        45.0
    """

    weight: float = 10.0

    needs_mix: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_weight(self, self.weight)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None) -> Tensor:
        return self.weight / 2 * _mean_square(input_gradient(critic, real))


@dataclass(frozen=True)
class R2:
    """weight / 2 * mean_i |grad_x D(x_i)|^2 at generated samples (Mescheder et al. 2018).

    Args:
        weight: gamma.

    Raises:
        ValueError: a weight that is negative or not finite.
    """

    weight: float = 10.0

    needs_mix: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_weight(self, self.weight)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None) -> Tensor:
        return self.weight / 2 * _mean_square(input_gradient(critic, fake))


def _check_weight(penalty: object, weight: float) -> None:
    if not 0 <= weight < float("inf"):
        raise ValueError(
            f"{type(penalty).__name__}.weight must be finite and not negative, not {weight}"
        )


def _mean_square(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(dim=1).mean()


def _norms(rows: Tensor) -> Tensor:
    """|row_i|, with derivatives of every order zero where a row is zero (a ReLU critic whose units are
    all dead on a sample, or so near that the square underflows): the norm's own second derivative is
    undefined there."""
    squares = rows.square().sum(dim=1)
    dead = squares == 0
    return torch.where(dead, 0.0, torch.where(dead, 1.0, squares).sqrt())
