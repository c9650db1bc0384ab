"""Recipes: functions of typed settings that return a Recipe. Importing them needs no torch."""

from equilibrist_recipes.cifar10 import (
    cifar10_dcgan,
    cifar10_r3gan,
    cifar10_sngan,
    cifar10_wgan_gp,
    cifar10_wgan_wc,
)
from equilibrist_recipes.digits import (
    digits_conditional,
    digits_sngan,
    digits_wgan_gp,
    digits_wgan_wc,
)
from equilibrist_recipes.faces import faces64_resnet, faces64_sngan
from equilibrist_recipes.gaussian import gaussian_w2gan
from equilibrist_recipes.mirror import digits_mirror, plane_mirror
from equilibrist_recipes.mixtures import (
    eight_gaussians,
    eight_gaussians_fgan,
    swiss_roll,
    twenty_five_gaussians,
)
from equilibrist_recipes.mnist import mnist_sngan, mnist_wgan_gp, mnist_wgan_wc

RECIPES = {
    "cifar10-dcgan": cifar10_dcgan,
    "cifar10-r3gan": cifar10_r3gan,
    "cifar10-sngan": cifar10_sngan,
    "cifar10-wgan-gp": cifar10_wgan_gp,
    "cifar10-wgan-wc": cifar10_wgan_wc,
    "digits-conditional": digits_conditional,
    "digits-mirror": digits_mirror,
    "digits-sngan": digits_sngan,
    "digits-wgan-gp": digits_wgan_gp,
    "digits-wgan-wc": digits_wgan_wc,
    "eight-gaussians": eight_gaussians,
    "eight-gaussians-fgan": eight_gaussians_fgan,
    "faces64-resnet": faces64_resnet,
    "faces64-sngan": faces64_sngan,
    "gaussian-w2gan": gaussian_w2gan,
    "mnist-sngan": mnist_sngan,
    "mnist-wgan-gp": mnist_wgan_gp,
    "mnist-wgan-wc": mnist_wgan_wc,
    "plane-mirror": plane_mirror,
    "swiss-roll": swiss_roll,
    "twenty-five-gaussians": twenty_five_gaussians,
}
"""What the entry point `equilibrist.recipes` offers."""
