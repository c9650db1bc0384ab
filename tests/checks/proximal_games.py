"""Gaussian games whose proximal equilibria are known, exact and on samples."""

from __future__ import annotations

from typing import Any

import torch
from audit_games import F64, Gaussian

from equilibrist import GAN, Adam
from equilibrist.checks import Audit, Settings, audit_game
from equilibrist.formulations import W2GAN
from equilibrist.games import GaussianW2GAN
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall

EXACT = {"tolerance": 1e-6, "groups": 3, "group_batches": 1, "linear_batches": 1}
RULES = {"generator": Adam(0.04), "critic": Adam(0.02)}
SMALL: dict[str, Any] = {
    "batch": 256,
    "absolute": 5e-3,
    "prox_starts": 2,
    "prox_steps": 30,
    "prox_track": 2,
    "inner_steps": 20,
    "perturbation": 0.1,
    "optimizers": RULES,
}


def at_optimum(game: Any) -> dict[str, Any]:
    return dict(game.points()[0].players)


def exact(game: Any, players: Any, *checks: str, **settings: Any) -> Audit:
    return audit_game(
        game, players, settings=Settings(**{**EXACT, **settings}), checks=checks, progress="none"
    )


def sampled_game(s: float = 2.0, eta: float = 0.5, t: float = 1.0, a: float | None = None) -> GAN:
    """The 1-d Gaussian W2GAN on samples, at its optimum unless the critic's A is given."""
    generator, critic = LinearGenerator(1, 1, dtype=F64), QuadraticCritic(1, dtype=F64)
    truth = GaussianW2GAN(s=s, dim=1, eta=eta, t=t)
    with torch.no_grad():
        generator.W.fill_(1.0)
        critic.A.fill_(eta * (1 - 1 / s) if a is None else a)
    sets = (
        [SpectralBall("generator", "W", 1.0), NormBall("generator", "u", t)]
        if s > 1
        else [NormBall("generator", "u", t)]
    )
    return GAN(
        generator,
        critic,
        W2GAN(eta),
        latent=1,
        projections=(*sets, EigenvalueCap("critic", "A", truth.ceiling)),
    )


def sampled(game: GAN, s: float, *checks: str, seed: int = 0, **settings: Any) -> Audit:
    start = game.init()
    return audit_game(
        game,
        start.players,
        start.constants,
        Gaussian(1, s),
        Settings(**{**SMALL, **settings}),
        checks=checks,
        seed=seed,
        progress="none",
    )
