"""Small critics whose state is known by how they are made."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.critics import CriticAudit, audit_critic

ROWS = 800
APART = 1.5  # standard deviations between the two laws


@functools.cache
def gaussians(dim: int = 3, apart: float = APART, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Real and generated samples, N(0, I) and N(apart e_1, I), in double precision."""
    g = torch.Generator().manual_seed(1)
    by = torch.zeros(dim, dtype=torch.float64)
    by[0] = apart
    real = torch.randn(rows, dim, generator=g, dtype=torch.float64)
    return real, torch.randn(rows, dim, generator=g, dtype=torch.float64) + by


def linear(weight: list[float], bias: float = 0.0) -> nn.Linear:
    """A linear critic."""
    critic = nn.Linear(len(weight), 1).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([weight]))
        critic.bias.fill_(bias)
    return critic


def bayes(dim: int = 3, apart: float = APART) -> nn.Linear:
    """The logarithm of the two laws' densities' ratio: the best critic of the vanilla loss."""
    return linear([-apart, *[0.0] * (dim - 1)], apart**2 / 2)


def separation(apart: float = APART) -> float:
    """The share of pairs that it orders rightly: Phi(apart / sqrt 2)."""
    return 0.5 * (1 + math.erf(apart / 2))


def audited(critic: nn.Module, real: Any, fake: Any, loss: Any, **options: Any) -> CriticAudit:
    """An audit of few gradients."""
    return audit_critic(
        critic, real, fake, loss, **{"gradients": 400, "progress": "none", **options}
    )
