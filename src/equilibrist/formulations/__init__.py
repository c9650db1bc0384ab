"""GAN formulations: from a critic, real and generated samples to each player's own loss."""

from equilibrist.formulations._base import Critic, Formulation, ScoreFormulation
from equilibrist.formulations.vanilla import Vanilla
from equilibrist.formulations.wgan import WGAN

__all__ = ["WGAN", "Critic", "Formulation", "ScoreFormulation", "Vanilla"]
