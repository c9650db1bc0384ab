"""Games: players with losses. Analytic games carry their truth."""

from equilibrist.games._own_players import Modules, roles
from equilibrist.games._own_scores import accepted_arguments
from equilibrist.games.adversarial import AdversarialGame
from equilibrist.games.dirac import Dirac
from equilibrist.games.finite import FiniteGAN, draw_of_rows
from equilibrist.games.gan import GAN
from equilibrist.games.gaussian import GaussianW2GAN, GaussianWGAN
from equilibrist.games.gaussian_fgan import GaussianFGAN
from equilibrist.games.inputs import Latent, Normal, Uniform
from equilibrist.games.mixture import Mixture
from equilibrist.games.planar import Planar, curved_ridge, three_nash
from equilibrist.games.quadratic import Quadratic, bilinear, false_attractor, hidden_minimax
from equilibrist.games.sampled import SampledGame
from equilibrist.games.truth import Analytic, Known, Point

__all__ = [
    "GAN",
    "AdversarialGame",
    "Analytic",
    "Dirac",
    "FiniteGAN",
    "GaussianFGAN",
    "GaussianW2GAN",
    "GaussianWGAN",
    "Known",
    "Latent",
    "Mixture",
    "Modules",
    "Normal",
    "Planar",
    "Point",
    "Quadratic",
    "SampledGame",
    "Uniform",
    "accepted_arguments",
    "bilinear",
    "curved_ridge",
    "draw_of_rows",
    "false_attractor",
    "hidden_minimax",
    "roles",
    "three_nash",
]
