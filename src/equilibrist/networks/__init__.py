"""Networks for the recipes: plain modules; generators map noise to samples, critics to values."""

from equilibrist.networks.affine import LinearGenerator, QuadraticCritic
from equilibrist.networks.cifar10_dcgan import CIFAR10Critic, CIFAR10Generator
from equilibrist.networks.conditional import (
    ConditionalDigitsGenerator,
    EmbeddingGenerator,
    LabelEmbedding,
    ProjectionCritic,
    ProjectionDigitsCritic,
)
from equilibrist.networks.dcgan import DCGANCritic, DCGANGenerator
from equilibrist.networks.dcgan64 import DCGAN64Critic, DCGAN64Generator
from equilibrist.networks.digits_conv import DigitsCritic, DigitsGenerator
from equilibrist.networks.mlp import MLP, MixtureCritic, MixtureGenerator
from equilibrist.networks.mnist_dcgan import MNISTCritic, MNISTGenerator
from equilibrist.networks.r3gan import R3GANCritic, R3GANGenerator
from equilibrist.networks.resnet_constant import ResNetConstantCritic, ResNetConstantGenerator
from equilibrist.networks.several import CriticEnsemble, GeneratorMixture

__all__ = [
    "MLP",
    "CIFAR10Critic",
    "CIFAR10Generator",
    "ConditionalDigitsGenerator",
    "CriticEnsemble",
    "DCGAN64Critic",
    "DCGAN64Generator",
    "DCGANCritic",
    "DCGANGenerator",
    "DigitsCritic",
    "DigitsGenerator",
    "EmbeddingGenerator",
    "GeneratorMixture",
    "LabelEmbedding",
    "LinearGenerator",
    "MNISTCritic",
    "MNISTGenerator",
    "MixtureCritic",
    "MixtureGenerator",
    "ProjectionCritic",
    "ProjectionDigitsCritic",
    "QuadraticCritic",
    "R3GANCritic",
    "R3GANGenerator",
    "ResNetConstantCritic",
    "ResNetConstantGenerator",
]
