"""Networks for the recipes: plain modules; generators map noise to samples, critics to values."""

from equilibrist.networks.digits_conv import DigitsCritic, DigitsGenerator
from equilibrist.networks.mlp import MLP, MixtureCritic, MixtureGenerator
from equilibrist.networks.mnist_dcgan import MNISTCritic, MNISTGenerator

__all__ = [
    "MLP",
    "DigitsCritic",
    "DigitsGenerator",
    "MNISTCritic",
    "MNISTGenerator",
    "MixtureCritic",
    "MixtureGenerator",
]
