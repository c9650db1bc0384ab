"""A critic as a user's function hands it to the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from equilibrist.critics._audit import audit_critic
from equilibrist.critics._groups import Columns
from equilibrist.critics._result import CriticAudit
from equilibrist.critics.judge import CriticPenalty
from equilibrist.formulations import Formulation
from equilibrist.projections import Projection


@dataclass(frozen=True)
class LoneCritic:
    """What `equilibrist audit FILE:FUNCTION` needs to know of a critic alone; the function returns it.

    Args:
        critic, real, fake, loss, penalties, reward, score, train_real, train_fake, fresh, columns, projections, pack,
            mode, gradients, tolerance, absolute, limit: as `audit_critic` takes them.
    """

    critic: nn.Module
    real: object
    fake: object
    loss: Formulation | str | Callable[..., Tensor]
    penalties: Sequence[CriticPenalty] = ()
    reward: Callable[..., object] | None = None
    score: Callable[..., object] | None = None
    train_real: object = None
    train_fake: object = None
    fresh: Callable[[], nn.Module] | None = None
    columns: Columns | None = None
    projections: Sequence[Projection] = ()
    pack: int = 1
    mode: str = "eval"
    gradients: int = 2000
    tolerance: float = 0.02
    absolute: float = 0.0
    limit: int = 10_000

    def audit(self, **options: Any) -> CriticAudit:
        """The audit of this critic.

        Args:
            options: arguments of `audit_critic`, which replace its own or are added to them.

        Returns:
            The audit.
        """
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return audit_critic(**{**held, **options})
