"""Games: players with losses. Analytic games carry their truth."""

from equilibrist.games.gan import GAN, Latent, Normal
from equilibrist.games.quadratic import Quadratic, bilinear

__all__ = ["GAN", "Latent", "Normal", "Quadratic", "bilinear"]
