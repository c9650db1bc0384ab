"""Games: players with losses. Analytic games carry their truth."""

from equilibrist.games._setup import Latent, Normal
from equilibrist.games.gan import GAN
from equilibrist.games.quadratic import Quadratic, bilinear

__all__ = ["GAN", "Latent", "Normal", "Quadratic", "bilinear"]
