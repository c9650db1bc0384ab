"""Recipes: functions of typed settings that return a Recipe. Importing them needs no torch."""

from equilibrist_recipes.digits import digits_sngan, digits_wgan_gp
from equilibrist_recipes.mixtures import eight_gaussians
from equilibrist_recipes.mnist import mnist_sngan, mnist_wgan_gp, mnist_wgan_wc

RECIPES = {
    "digits-sngan": digits_sngan,
    "digits-wgan-gp": digits_wgan_gp,
    "eight-gaussians": eight_gaussians,
    "mnist-sngan": mnist_sngan,
    "mnist-wgan-gp": mnist_wgan_gp,
    "mnist-wgan-wc": mnist_wgan_wc,
}
"""What the entry point `equilibrist.recipes` offers."""
