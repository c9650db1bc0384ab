"""The Wasserstein GAN (Arjovsky et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist.formulations._base import Critic, ScoreFormulation


@dataclass(frozen=True)
class WGAN(ScoreFormulation):
    """V(G, D) = E D(x) - E D(G(z)) over 1-Lipschitz D (Farnia and Ozdaglar 2020, equation 8).

    The constraint is not part of this class: pass `GradientPenalty`, `WeightClipping` or
    `spectral_norm=True` to the GAN. Zero-sum without a penalty. Unit: that of the critic's scores.

    Examples:
        >>> import torch
        >>> from equilibrist import WGAN
        >>> float(WGAN().critic_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])))
        -1.5
    """

    def __str__(self) -> str:
        return "Wasserstein GAN"

    zero_sum: bool = True
    formula: str = "V = E D(x) - E D(G(z)); the critic maximises V, the generator minimises V"
    unit: str = "score units"

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def real_term(self, real: Tensor) -> Tensor | None:
        return real.mean()

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Standard deviation of the scores over real and generated samples together: a critic's
        scores have no natural unit, and clipping makes them tiny."""
        return torch.cat([critic(real), critic(fake)]).std()
