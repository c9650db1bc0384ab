"""The audit of a critic that was kept while its training went on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from equilibrist.critics import CriticAudit, audit_critic
from equilibrist.formulations import Formulation
from equilibrist.nn.noise import GLOBAL, derived, seeded


def audited(
    critic: nn.Module,
    real: object,
    fake: object,
    loss: Formulation | str | Callable[..., Tensor],
    *,
    seed: int = 0,
    **options: Any,
) -> CriticAudit:
    """`audit_critic`, with global random states put back: of a critic with dropout in training mode too."""
    with seeded(derived(seed), GLOBAL):
        return audit_critic(critic, real, fake, loss, seed=seed, **options)
