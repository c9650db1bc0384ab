"""The least-squares GAN (Mao et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from equilibrist.formulations._base import Critic, ScoreFormulation


@dataclass(frozen=True)
class LeastSquares(ScoreFormulation):
    """Critic: 1/2 E (D(x) - real)^2 + 1/2 E (D(G(z)) - fake)^2. Generator: 1/2 E (D(G(z)) - generator)^2.

    Mao et al. 2017, whose b, a, c are `real`, `fake`, `generator`. Not zero-sum. The best
    critic is (real p + fake q) / (p + q). Where real - generator = 1 and real - fake = 2, as in the
    defaults, E_P (D - generator)^2 + E_Q (D - generator)^2 at the best critic is Pearson's chi-square of
    (p + q) against 2 q, the integral of (p - q)^2 / (p + q). Other usual targets:
    `LeastSquares(1, 0, 1)`. Unit: squared scores.

    Args:
        real: the critic's target at real samples.
        fake: its target at generated ones.
        generator: the generator's target for the critic's scores.

    Raises:
        ValueError: targets that are not finite, or real = fake, which leaves nothing to tell apart.

    Examples:
        >>> import torch
        >>> from equilibrist import LeastSquares
        >>> float(LeastSquares(1, 0, 1).generator_loss(torch.zeros(4)))
        0.5
    """

    real: float = 1.0
    fake: float = -1.0
    generator: float = 0.0

    def __post_init__(self) -> None:
        for name in ("real", "fake", "generator"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(
                    f"LeastSquares.{name} must be finite, not {getattr(self, name)}: it is a target"
                )
        if self.real == self.fake:
            raise ValueError(
                f"LeastSquares.real and LeastSquares.fake are both {self.real}: give two targets"
            )

    def __str__(self) -> str:
        return f"least-squares GAN, targets {self.real:g}, {self.fake:g}, {self.generator:g}"

    zero_sum = False
    unit = "squared score units"

    @property
    def formula(self) -> str:  # type: ignore[override]
        return (
            f"the critic minimises 1/2 E (D(x) - {self.real:g})^2 + 1/2 E (D(G(z)) - {self.fake:g})^2, "
            f"the generator minimises 1/2 E (D(G(z)) - {self.generator:g})^2"
        )

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.real).square().mean() + (fake - self.fake).square().mean()) / 2

    def generator_loss(self, fake: Tensor) -> Tensor:
        return (fake - self.generator).square().mean() / 2

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """(real - fake)^2 / 4: the loss of the best constant critic, which tells nothing apart."""
        return real.new_full((), (self.real - self.fake) ** 2 / 4)
