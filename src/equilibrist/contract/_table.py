"""Every solver of the library on every game that carries its truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist.contract._arena import Arena, arena
from equilibrist.contract._checks import check_solver
from equilibrist.contract._outcomes import CheckOutcome
from equilibrist.core.draws import normal
from equilibrist.core.game import Game
from equilibrist.formulations import W2GAN, Vanilla
from equilibrist.games import (
    GAN,
    Dirac,
    GaussianW2GAN,
    GaussianWGAN,
    Planar,
    Quadratic,
    SampledGame,
    bilinear,
    curved_ridge,
    false_attractor,
    hidden_minimax,
    three_nash,
)
from equilibrist.langevin import SGLD
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp
from equilibrist.projections import EigenvalueCap
from equilibrist.schedules import Piecewise
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Implicit,
    Lookahead,
    MirrorGAN,
    MirrorProxGAN,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    Solver,
    SymplecticAdjustment,
    Unrolled,
)

F64 = torch.float64


@dataclass(frozen=True)
class SolverRow:
    """A solver of the table.

    Args:
        make: (h, leader, follower) -> the solver with step size h.
        excluded: (game, arena) -> checks that do not apply there ("*": all), each with its reason.
    """

    make: Callable[[float, str, str], Solver]
    excluded: Callable[[Game], dict[str, str]] = lambda game: {}


@dataclass(frozen=True)
class Cell:
    """One solver on one game: names, values, and the checks left out, each with its reason."""

    solver: str
    game: str
    subject: Solver
    arena: Arena
    excluded: dict[str, str]

    def run(self) -> tuple[CheckOutcome, ...]:
        """The checks."""
        return check_solver(self.subject, self.arena, excluded=self.excluded)


def cells(
    solvers: dict[str, SolverRow] | None = None,
    games: dict[str, tuple[Callable[[], Arena], float]] | None = None,
) -> Iterator[Cell]:
    """The table: `SOLVERS` x `GAMES`, or yours.

    Args:
        solvers: rows by name; the library's own if None.
        games: games by name; the library's own if None.

    Returns:
        One cell for each pair, to be run.
    """
    for game_name, (build, h) in (GAMES if games is None else games).items():
        place = build()
        leader = getattr(place.game, "leader", place.game.players[0])
        (follower,) = (p for p in place.game.players if p != leader)
        for name, row in (SOLVERS if solvers is None else solvers).items():
            subject = row.make(h, leader, follower)
            yield Cell(name, game_name, subject, place, row.excluded(place.game))


# -- why a cell, or a check in it, is left out ---------------------------------------------------


def _reads_the_free_field(game: Game) -> dict[str, str]:
    # In the 1-d WGAN what is held and what is free do not mix at the optimum.
    if not isinstance(game, GaussianW2GAN):
        return {}
    return {
        "still": "the direction mixes all players' gradients before the projection, and the gradient of what "
        "the boundary holds does not vanish there: constrained points are not its fixed points"
    }


def _adaptive(game: Game) -> dict[str, str]:
    inexact = isinstance(game, Planar) or (
        isinstance(game, Quadratic) and bool(torch.cat([game.a, game.c]).any())
    )
    if not inexact:
        return {}
    return {
        "still": "the rule divides the gradient by its own size: where it vanishes up to rounding only, the "
        "rounding is a step"
    }


def _needs_zero_sum(game: Game) -> dict[str, str]:
    if game.zero_sum or not getattr(game, "linear", False):
        return {}
    why = "its linear_map is that of zero-sum games: elsewhere J alone does not give the unrolled gradient"
    return {"linear map": why, "factor": why}


def _needs_a_regular_follower(game: Game) -> dict[str, str]:
    if (isinstance(game, Quadratic) and not bool(game.C.any())) or (
        isinstance(game, Dirac) and game.gamma == 0
    ):
        return {
            "*": "the follower's own Hessian vanishes at the equilibrium: there is no ridge to follow"
        }
    return {}


def _needs_samples(game: Game) -> dict[str, str]:
    if isinstance(game, SampledGame):
        return {}
    return {"*": "its penalty is the critic's slope at real samples, which only a GAN has"}


SOLVERS: dict[str, SolverRow] = {
    "simultaneous": SolverRow(lambda h, x, y: Simultaneous(SGD(h))),
    "simultaneous, two time scales": SolverRow(
        lambda h, x, y: Simultaneous(optimizers={x: SGD(h / 3), y: SGD(h)})
    ),
    "simultaneous, negative momentum": SolverRow(lambda h, x, y: Simultaneous(SGD(h, -0.3))),
    "simultaneous, Adam": SolverRow(lambda h, x, y: Simultaneous(Adam(h)), _adaptive),
    "alternating": SolverRow(lambda h, x, y: Alternating(1, SGD(h), leader=x, follower=y)),
    "alternating, 3 follower steps": SolverRow(
        lambda h, x, y: Alternating(3, SGD(h), leader=x, follower=y)
    ),
    "alternating, RMSProp": SolverRow(
        lambda h, x, y: Alternating(2, RMSProp(h), leader=x, follower=y), _adaptive
    ),
    "consensus": SolverRow(lambda h, x, y: Consensus(SGD(h), gamma=0.3), _reads_the_free_field),
    "consensus, two minibatches": SolverRow(
        lambda h, x, y: Consensus(SGD(h), gamma=0.3, batches=2), _reads_the_free_field
    ),
    "consensus, RMSProp of TensorFlow": SolverRow(
        lambda h, x, y: Consensus(TFRMSProp(h), gamma=0.3), _reads_the_free_field
    ),
    "extragradient": SolverRow(lambda h, x, y: Extragradient(SGD(h))),
    "extragradient, fresh minibatch": SolverRow(lambda h, x, y: Extragradient(SGD(h), fresh=True)),
    "extragradient, look-ahead twice as far": SolverRow(
        lambda h, x, y: Extragradient(SGD(h), explore=2.0)
    ),
    "extragradient, look-ahead by a schedule": SolverRow(
        lambda h, x, y: Extragradient(SGD(h), fresh=True, explore=Piecewise(((0, 1.0), (8, 3.0))))
    ),
    "extragradient, Adam": SolverRow(lambda h, x, y: Extragradient(Adam(h)), _adaptive),
    "anchored extragradient": SolverRow(lambda h, x, y: AnchoredExtragradient(SGD(h))),
    "anchored extragradient, restarted": SolverRow(
        lambda h, x, y: AnchoredExtragradient(SGD(h), restart=2)
    ),
    "extrapolation from the past": SolverRow(lambda h, x, y: PastExtragradient(SGD(h))),
    "optimistic": SolverRow(lambda h, x, y: Optimistic(SGD(h))),
    "optimistic Adam": SolverRow(lambda h, x, y: Optimistic(Adam(h)), _adaptive),
    "symplectic adjustment": SolverRow(
        lambda h, x, y: SymplecticAdjustment(SGD(h), strength=0.5), _reads_the_free_field
    ),
    "symplectic adjustment, aligned": SolverRow(
        lambda h, x, y: SymplecticAdjustment(SGD(h), strength=0.5, align=True),
        _reads_the_free_field,
    ),
    "competitive": SolverRow(
        lambda h, x, y: Competitive(SGD(h), iterations=3, tolerance=0.0), _reads_the_free_field
    ),
    "follow the ridge": SolverRow(
        lambda h, x, y: FollowTheRidge(SGD(h), leader=x, follower=y, iterations=4),
        _needs_a_regular_follower,
    ),
    "follow the ridge, damped": SolverRow(
        lambda h, x, y: FollowTheRidge(SGD(h), leader=x, follower=y, iterations=4, damping=0.1),
        _needs_a_regular_follower,
    ),
    "mirror-gan without noise": SolverRow(
        lambda h, x, y: MirrorGAN(SGLD(h, 0.0), inner=3, beta=0.8)
    ),
    "mirror-prox-gan without noise": SolverRow(
        lambda h, x, y: MirrorProxGAN(SGLD(h, 0.0), inner=2, beta=0.9)
    ),
    "implicit": SolverRow(lambda h, x, y: Implicit(SGD(h), iterations=2), _reads_the_free_field),
    "unrolled": SolverRow(
        lambda h, x, y: Unrolled(SGD(h), unroll=3, rate=h / 2, leader=x, follower=y),
        _needs_zero_sum,
    ),
    "lookahead": SolverRow(lambda h, x, y: Lookahead(Simultaneous(SGD(h)), 4)),
    "averaged, uniform": SolverRow(
        lambda h, x, y: Averaged(Simultaneous(SGD(h)), players=(x, y), kind="uniform")
    ),
    "averaged, tail": SolverRow(
        lambda h, x, y: Averaged(Simultaneous(SGD(h)), players=(x, y), kind="tail", start=3)
    ),
    "averaged": SolverRow(lambda h, x, y: Averaged(Simultaneous(SGD(h)), 0.9, (x, y))),
    "proximal": SolverRow(
        lambda h, x, y: Proximal(3, 0.2, SGD(h)),
        _needs_samples,
    ),
}


# -- the games, each with a step size that suits it ----------------------------------------------


class _Cloud:
    """Normal samples [n, dim], shifted and stretched."""

    def __init__(self, dim: int, scale: float) -> None:
        self.dim, self.scale = dim, scale

    def sample(self, rng: np.random.Generator, n: int) -> Tensor:
        return 0.3 + self.scale * normal(rng, (n, self.dim), F64, None)


def _matrix(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=F64)


def _monotone() -> Quadratic:
    return Quadratic(
        _matrix((1.2, 0.3, -0.2), (0.3, 0.8, 0.1), (-0.2, 0.1, 0.5)),
        _matrix((0.9, -0.4), (0.2, 1.1), (-0.7, 0.5)),
        _matrix((0.6, 0.2), (0.2, 0.9)),
        torch.tensor([0.5, -1.0, 0.3], dtype=F64),
        torch.tensor([-0.4, 0.8], dtype=F64),
    )


def _indefinite() -> Quadratic:
    return Quadratic(
        _matrix((-0.5, 0.4), (0.4, 1.1)),
        _matrix((1.5, -0.3, 0.2), (0.4, 0.9, -1.2)),
        _matrix((1.4, 0.1, 0.0), (0.1, 0.7, 0.3), (0.0, 0.3, 1.6)),
        torch.tensor([1.0, 0.2], dtype=F64),
        torch.tensor([0.3, 0.0, -0.6], dtype=F64),
    )


def _linear_w2gan() -> Arena:
    game = GAN(
        lambda: LinearGenerator(1, 1, dtype=F64),
        lambda: QuadraticCritic(1, dtype=F64),
        W2GAN(0.5),
        latent=1,
        projections=[EigenvalueCap("critic", "A", 0.4)],
    )
    return arena(game, _Cloud(1, 1.5), batch=8)


def _small_gan() -> Arena:
    game = GAN(
        lambda: LinearGenerator(1, 2, dtype=F64),
        lambda: nn.Sequential(
            nn.Linear(2, 2, dtype=F64), nn.Softplus(), nn.Linear(2, 1, dtype=F64)
        ),
        Vanilla(),
        latent=1,
    )
    return arena(game, _Cloud(2, 1.0), batch=8)


GAMES: dict[str, tuple[Callable[[], Arena], float]] = {
    "bilinear": (lambda: arena(bilinear()), 0.3),
    "bilinear, 3 numbers each": (lambda: arena(bilinear(3)), 0.2),
    "quadratic, monotone": (lambda: arena(_monotone()), 0.15),
    "quadratic, indefinite": (lambda: arena(_indefinite()), 0.1),
    "false attractor": (lambda: arena(false_attractor()), 0.05),
    "hidden minimax": (lambda: arena(hidden_minimax()), 0.05),
    "Dirac, vanilla": (lambda: arena(Dirac()), 0.3),
    "Dirac, non-saturating, R1": (lambda: arena(Dirac("non-saturating", 0.5)), 0.3),
    "Dirac, WGAN": (lambda: arena(Dirac("wgan")), 0.2),
    "Dirac, WGAN, R1": (lambda: arena(Dirac("wgan", 0.7)), 0.2),
    "three Nash": (lambda: arena(three_nash()), 0.02),
    "curved ridge": (lambda: arena(curved_ridge()), 0.005),
    "Gaussian W2GAN, s > 1": (lambda: arena(GaussianW2GAN(2.0, 2)), 0.05),
    "Gaussian W2GAN, s < 1": (lambda: arena(GaussianW2GAN(0.5, 1)), 0.1),
    "Gaussian WGAN": (lambda: arena(GaussianWGAN(2.0)), 0.1),
    "sampled W2GAN": (_linear_w2gan, 0.05),
    "sampled vanilla GAN": (_small_gan, 0.1),
}
