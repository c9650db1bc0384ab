"""GAN formulations: from a critic, real and generated samples to each player's own loss."""

from equilibrist.formulations._base import Critic, Formulation, ScoreFormulation
from equilibrist.formulations.divergences import (
    KL,
    Divergence,
    Jeffreys,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    VanillaDivergence,
)
from equilibrist.formulations.fgan import FGAN
from equilibrist.formulations.hinge import Hinge
from equilibrist.formulations.least_squares import LeastSquares
from equilibrist.formulations.named import formulation_of
from equilibrist.formulations.relativistic import Relativistic
from equilibrist.formulations.vanilla import Vanilla
from equilibrist.formulations.w2gan import W2GAN
from equilibrist.formulations.wgan import WGAN

__all__ = [
    "FGAN",
    "KL",
    "W2GAN",
    "WGAN",
    "Critic",
    "Divergence",
    "Formulation",
    "Hinge",
    "Jeffreys",
    "JensenShannon",
    "LeastSquares",
    "Neyman",
    "Pearson",
    "Relativistic",
    "ReverseKL",
    "ScoreFormulation",
    "SquaredHellinger",
    "Vanilla",
    "VanillaDivergence",
    "formulation_of",
]
