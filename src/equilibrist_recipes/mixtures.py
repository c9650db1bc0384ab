"""Laws in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from equilibrist.data import Source
    from equilibrist.formulations import Formulation
    from equilibrist.optimizers import Optimizer
    from equilibrist.run import Recipe, Reference

Divergence = Literal[
    "kl",
    "reverse_kl",
    "jensen_shannon",
    "vanilla",
    "pearson",
    "neyman",
    "squared_hellinger",
    "jeffreys",
]
Method = Literal["simultaneous", "alternating"]


def eight_gaussians(
    steps: int = 5000,
    method: Method = "alternating",
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
    from equilibrist.optimizers import TFRMSProp
    from equilibrist_recipes._references import MESCHEDER

    return _plane(
        Vanilla(saturating),
        circle(sigma=sigma),
        TFRMSProp(lr),
        method,
        steps=steps,
        width=width,
        depth=depth,
        latent=latent,
        batch=batch,
        title="Eight Gaussians",
        summary=f"Two perceptrons of {depth} hidden layers of {width} on a circle of eight narrow Gaussians: "
        "gradient steps circle around the solution rather than reach it.",
        references=(MESCHEDER,),
    )


def eight_gaussians_fgan(
    steps: int = 3000,
    divergence: Divergence = "kl",
    method: Method = "alternating",
    width: int = 64,
    depth: int = 3,
    latent: int = 16,
    batch: int = 256,
    lr: float = 1e-3,
    sigma: float = 0.05,
    clip: float = 1.0,
    penalty: float = 5.0,
    saturating: bool = False,
) -> Recipe:
    """f-GAN of any divergence (Nowozin et al. 2016) on eight Gaussians, gradients clipped.

    The Gaussians are wider than Mescheder's: where data and samples hardly overlap, most of these
    divergences are infinite, and their gradients grow without bound. R1 with weight `penalty` keeps the
    critic from it: with 0.1 KL and Pearson lost all modes but one, with 5 all eight divergences find them.
    """
    from equilibrist.data import eight_gaussians as circle
    from equilibrist.formulations import FGAN
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import R1
    from equilibrist.schedules import Clipped
    from equilibrist_recipes._references import MESCHEDER, NOWOZIN

    formulation = FGAN(divergence, saturating)
    return _plane(
        formulation,
        circle(sigma=sigma),
        Clipped(Adam(lr, 0.5, 0.9), clip),
        method,
        steps=steps,
        width=width,
        depth=depth,
        latent=latent,
        batch=batch,
        title=f"f-GAN on eight Gaussians ({formulation.divergence.name})",
        summary=f"Two perceptrons of {depth} hidden layers of {width} play for the {formulation.divergence.name} "
        "divergence on a circle of eight Gaussians.",
        references=(NOWOZIN, MESCHEDER),
        penalties=[R1(penalty)] if penalty else [],
    )


def twenty_five_gaussians(
    steps: int = 10000,
    method: Method = "alternating",
    width: int = 128,
    depth: int = 3,
    latent: int = 2,
    batch: int = 256,
    lr: float = 2e-4,
    penalty: float = 0.1,
) -> Recipe:
    """A grid of 25 Gaussians: non-saturating GAN with R1, Adam."""
    from equilibrist.data import twenty_five_gaussians as grid

    return _adam(
        grid(),
        "Twenty-five Gaussians",
        "a grid of 25 Gaussians",
        method,
        lr,
        penalty,
        steps=steps,
        width=width,
        depth=depth,
        latent=latent,
        batch=batch,
    )


def swiss_roll(
    steps: int = 10000,
    method: Method = "alternating",
    width: int = 128,
    depth: int = 3,
    latent: int = 2,
    batch: int = 256,
    lr: float = 2e-4,
    penalty: float = 0.1,
) -> Recipe:
    """A Swiss roll in the plane: non-saturating GAN with R1, Adam."""
    from equilibrist.data import swiss_roll as roll

    return _adam(
        roll(),
        "Swiss roll",
        "a Swiss roll in the plane",
        method,
        lr,
        penalty,
        steps=steps,
        width=width,
        depth=depth,
        latent=latent,
        batch=batch,
    )


def _adam(
    data: Source, title: str, what: str, method: Method, lr: float, penalty: float, **sizes: int
) -> Recipe:
    from equilibrist.formulations import Vanilla
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import R1
    from equilibrist_recipes._references import MESCHEDER2018

    return _plane(
        Vanilla(),
        data,
        Adam(lr, 0.5, 0.9),
        method,
        title=title,
        summary=f"Two perceptrons learn {what}; the critic pays for its gradient on real samples (R1).",
        references=(MESCHEDER2018,),
        penalties=[R1(penalty)] if penalty else [],
        **sizes,
    )


def _plane(
    formulation: Formulation,
    data: Source,
    rule: Optimizer,
    method: Method,
    *,
    steps: int,
    width: int,
    depth: int,
    latent: int,
    batch: int,
    title: str,
    summary: str,
    references: tuple[Reference, ...],
    **game: Any,
) -> Recipe:
    from equilibrist.games import GAN
    from equilibrist.networks import MixtureCritic, MixtureGenerator
    from equilibrist.run import Recipe
    from equilibrist.scores import MixtureQuality
    from equilibrist.solvers import Alternating, Simultaneous

    return Recipe(
        game=GAN(
            lambda: MixtureGenerator(latent, width, depth),
            lambda: MixtureCritic(width, depth),
            formulation,
            latent=latent,
            **game,
        ),
        data=data,
        solver=Alternating(1, rule) if method == "alternating" else Simultaneous(rule),
        steps=steps,
        batch=batch,
        title=title,
        summary=summary,
        scores=(MixtureQuality(transport=500),),
        references=references,
    )
