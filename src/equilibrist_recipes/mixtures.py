"""Mixtures in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from equilibrist.run import Recipe


def eight_gaussians(
    steps: int = 5000,
    method: Literal["simultaneous", "alternating"] = "alternating",
    width: int = 16,
    depth: int = 4,
    latent: int = 16,
    batch: int = 512,
    lr: float = 1e-4,
    sigma: float = 0.01,
    saturating: bool = True,
) -> Recipe:
    """The circle of eight Gaussians of Mescheder et al. (section 6.1): vanilla GAN, RMSProp."""
    from equilibrist.data import eight_gaussians as circle
    from equilibrist.formulations import Vanilla
    from equilibrist.games import GAN
    from equilibrist.networks import MixtureCritic, MixtureGenerator
    from equilibrist.optimizers import TFRMSProp
    from equilibrist.run import Recipe
    from equilibrist.solvers import Alternating, Simultaneous
    from equilibrist_recipes._references import MESCHEDER

    rule = TFRMSProp(lr)
    return Recipe(
        game=GAN(
            lambda: MixtureGenerator(latent, width, depth),
            lambda: MixtureCritic(width, depth),
            Vanilla(saturating),
            latent=latent,
        ),
        data=circle(sigma=sigma),
        solver=Alternating(1, rule) if method == "alternating" else Simultaneous(rule),
        steps=steps,
        batch=batch,
        title="Eight Gaussians",
        summary=f"Two perceptrons of {depth} hidden layers of {width} on a circle of eight narrow Gaussians: "
        "gradient steps circle around the solution rather than reach it.",
        references=(MESCHEDER,),
    )
