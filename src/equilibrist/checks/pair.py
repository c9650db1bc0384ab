"""Audits of a user's own modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from equilibrist.checks._audit import Audit, audit_game
from equilibrist.checks._registry import CHECKS
from equilibrist.checks._settings import Settings
from equilibrist.formulations import Formulation
from equilibrist.games import GAN


def audit_pair(
    generator: nn.Module,
    critic: nn.Module,
    data: Any,
    formulation: Formulation,
    *,
    latent: Any,
    settings: Settings | None = None,
    seed: int = 0,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    **game: Any,
) -> Audit:
    """Audit two modules as they are: nothing is written, and they are left as they were.

    Args:
        generator, critic: the modules, in the mode in which they are to be looked at.
        data: real samples: a `Source`, a tensor or a DataLoader (`equilibrist.data.source_of`).
        formulation: `Vanilla()`, `WGAN()`, ...
        latent: dimension, shape or law of the generator's input.
        settings, seed, checks, progress: see `audit`.
        game: arguments of `GAN` besides (penalties, projections, condition, ...).

    Raises:
        GameError: modules whose losses are no functions of their parameters, with the mend.
    """
    from equilibrist.data.loaders import source_of

    made = GAN(generator, critic, formulation, latent=latent, **game)
    here = made.read(generator, critic)
    return audit_game(
        made,
        here.players,
        here.constants,
        source_of(data),
        settings,
        seed=seed,
        checks=checks,
        progress=progress,
    )
