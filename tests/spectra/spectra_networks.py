"""Small pairs of every kind, and their Jacobians by central differences of exact gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import GAN, JacobianOperator, VectorField, tree
from equilibrist.core.exact import Exact
from equilibrist.formulations import (
    FGAN,
    KL,
    W2GAN,
    WGAN,
    LeastSquares,
    Relativistic,
    SquaredHellinger,
    Vanilla,
)
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.penalties import R1, R2, GradientPenalty

F64 = torch.float64
BATCH = 6


def mlp(norm: bool = False, out: int = 2, width: int = 3) -> Any:
    return lambda: nn.Sequential(
        nn.Linear(2, width),
        *([nn.BatchNorm1d(width)] if norm else []),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Softplus(),
        nn.Linear(width, out),
    )


def conv_generator(norm: bool = False) -> Any:
    return lambda: nn.Sequential(
        nn.Linear(2, 8),
        nn.Unflatten(1, (2, 2, 2)),
        *([nn.BatchNorm2d(2)] if norm else []),
        nn.Tanh(),
        nn.ConvTranspose2d(2, 1, 2, 2),
        nn.Tanh(),
    )


def conv_critic(norm: bool = False) -> Any:
    return lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, 1, 1),
        *([nn.BatchNorm2d(3)] if norm else []),
        nn.Softplus(),
        nn.Conv2d(3, 2, 2, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8, 1),
    )


def points(formulation: Any, norms: tuple[bool, bool] = (False, False), **options: Any) -> GAN:
    return GAN(mlp(norms[0]), mlp(norms[1], 1), formulation, latent=2, **options)


def images(formulation: Any, norms: tuple[bool, bool] = (False, False), **options: Any) -> GAN:
    return GAN(conv_generator(norms[0]), conv_critic(norms[1]), formulation, latent=2, **options)


GAMES: dict[str, Any] = {
    "vanilla": lambda: points(Vanilla()),
    "vanilla, zero-sum": lambda: points(Vanilla(saturating=True)),
    "wgan": lambda: points(WGAN()),
    "wgan-gp": lambda: points(WGAN(), penalties=[GradientPenalty()]),
    "r1": lambda: points(Vanilla(), penalties=[R1(1.0)]),
    "r1 and r2": lambda: points(Relativistic(), penalties=[R1(0.5), R2(0.5)]),
    "least squares": lambda: points(LeastSquares()),
    "kl": lambda: points(FGAN(KL())),
    "hellinger": lambda: points(FGAN(SquaredHellinger())),
    "spectral norm": lambda: points(Vanilla(), spectral_norm=True),
    "spectral norm, zero-sum": lambda: points(WGAN(), spectral_norm=True),
    "batch norm in the generator": lambda: points(Vanilla(), (True, False)),
    "batch norm in the critic": lambda: points(Vanilla(), (False, True)),
    "batch norm in both": lambda: points(WGAN(), (True, True)),
    "batch and spectral norm": lambda: points(Vanilla(), (True, False), spectral_norm=True),
    "images": lambda: images(Vanilla()),
    "images, zero-sum": lambda: images(WGAN()),
    "images, wgan-gp": lambda: images(WGAN(), penalties=[GradientPenalty()]),
    "images, r1": lambda: images(Vanilla(), penalties=[R1(1.0)]),
    "images, spectral norm": lambda: images(Vanilla(), spectral_norm=True),
    "images, batch norm": lambda: images(Vanilla(), (True, True)),
    "images, batch and spectral norm": lambda: images(WGAN(), (True, False), spectral_norm=True),
    "quadratic w2gan": lambda: GAN(
        lambda: LinearGenerator(4, 4), lambda: QuadraticCritic(4), W2GAN(), latent=4
    ),
    "quadratic wgan, r1": lambda: GAN(
        lambda: LinearGenerator(5, 5),
        lambda: QuadraticCritic(5),
        WGAN(),
        latent=5,
        penalties=[R1(1.0)],
    ),
}


def made(name: str, seed: int = 0) -> tuple[GAN, Any, Any, list[dict[str, Tensor]]]:
    """(game, players, exact constants, draws) in float64, weights of every parameter random."""
    draws = 1 if "images" in name else 2
    game = GAMES[name]()
    g = torch.Generator().manual_seed(100 + seed)
    start = game.init(seed, dtype=F64)
    players = tree.map(
        lambda t: t + 0.1 * torch.randn(t.shape, generator=g, dtype=F64), start.players
    )
    constants = game.refresh(players, start.constants, {}, exact=True)
    d = {"quadratic w2gan": 4, "quadratic wgan, r1": 5}.get(name)
    shape = (1, 4, 4) if "images" in name else (d or 2,)
    latent = d or 2
    return (
        game,
        players,
        constants,
        [
            {
                "real": torch.randn(BATCH, *shape, generator=g, dtype=F64),
                "latent": torch.randn(BATCH, latent, generator=g, dtype=F64),
                "mix": torch.rand(BATCH, generator=g, dtype=F64),
            }
            for _ in range(draws)
        ],
    )


def operator(name: str, seed: int = 0) -> JacobianOperator:
    game, players, constants, draws = made(name, seed)
    return JacobianOperator(VectorField(Exact(game)), players, constants, draws)


def by_differences(name: str, seed: int = 0) -> np.ndarray:
    """J by central differences of the mean gradient, singular vectors exact at every point: nothing is
    differentiated twice."""
    game, players, constants, draws = made(name, seed)
    field, x = VectorField(game), tree.flatten(players)
    bent = "batch" in name  # batch norm of six samples bends much: differences of fourth order
    h = 1e-4 if bent else 1e-5

    def v(flat: Tensor) -> Tensor:
        at = tree.unflatten(flat, players)
        fixed = game.refresh(at, constants, {}, exact=True)
        return torch.stack([tree.flatten(field(at, fixed, d).v) for d in draws]).mean(0)

    columns = []
    for e in h * torch.eye(len(x), dtype=F64):
        slope = (v(x + e) - v(x - e)) / (2 * h)
        if bent:
            slope = (4 * slope - (v(x + 2 * e) - v(x - 2 * e)) / (4 * h)) / 3
        columns.append(slope)
    return torch.stack(columns, dim=1).numpy()
