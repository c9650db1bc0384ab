"""The hinge GAN (Lim and Ye 2017; Tran, Ranganath and Blei 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist.formulations._base import Critic, ScoreFormulation


@dataclass(frozen=True)
class Hinge(ScoreFormulation):
    """Critic: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))). Generator: -E D(G(z)). Not zero-sum.

    Lim and Ye 2017; Miyato et al. 2018 pair it with spectral normalisation. The best critic is the
    sign of p - q, its loss 2 (1 - TV(P, Q)) with TV half the integral of |p - q|. Unit: margins.

    Examples:
        >>> import torch
        >>> from equilibrist import Hinge
        >>> float(Hinge().critic_loss(torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])))
        0.75
    """

    def __str__(self) -> str:
        return "hinge GAN"

    zero_sum = False
    formula = (
        "the critic minimises E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), the generator minimises "
        "-E D(G(z))"
    )
    unit = "margins"

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """One: the margin, in which the critic's loss counts and within which its best scores lie."""
        return torch.ones((), dtype=real.dtype, device=real.device)
