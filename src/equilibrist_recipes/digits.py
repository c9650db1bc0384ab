"""Real 8x8 digits: small enough to train while one looks on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equilibrist.run import Recipe


def digits_sngan(
    steps: int = 3000,
    dim: int = 32,
    latent: int = 32,
    critic_steps: int = 1,
    batch: int = 64,
    lr: float = 2e-3,
    beta1: float = 0.0,
    saturating: bool = False,
) -> Recipe:
    """Spectrally normalised GAN on scikit-learn's 8x8 digits: the demo, about a minute on two cores."""
    from equilibrist.data import digits
    from equilibrist.formulations import Vanilla
    from equilibrist.games import GAN
    from equilibrist.networks import DigitsCritic, DigitsGenerator
    from equilibrist.optimizers import Adam
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import DIGITS, FARNIA, MIYATO

    return Recipe(
        game=GAN(
            lambda: DigitsGenerator(dim, latent),
            lambda: DigitsCritic(dim),
            Vanilla(saturating),
            latent=latent,
            spectral_norm=True,
        ),
        data=digits(),
        solver=Alternating(critic_steps, Adam(lr, beta1, 0.9)),
        steps=steps,
        batch=batch,
        title="SN-GAN on 8x8 digits",
        summary="A small convolutional pair learns scikit-learn's handwritten digits; the critic's layers "
        "are spectrally normalised.",
        scores=(Frechet(),),
        audit={"steps": 200, "starts": 2, "looks": 8, "local_products": 80},
        references=(FARNIA, MIYATO, DIGITS),
    )


def digits_conditional(
    steps: int = 3000,
    dim: int = 32,
    latent: int = 32,
    critic_steps: int = 1,
    batch: int = 64,
    lr: float = 2e-3,
    average: float = 0.99,
) -> Recipe:
    """Class-conditional GAN on 8x8 digits: projection critic, spectral norm, averaged generator."""
    from equilibrist.data import digits
    from equilibrist.formulations import Vanilla
    from equilibrist.games import GAN
    from equilibrist.networks import ConditionalDigitsGenerator, ProjectionDigitsCritic
    from equilibrist.optimizers import Adam
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Alternating, Averaged, Solver
    from equilibrist_recipes._references import DIGITS, MIYATO, PROJECTION

    solver: Solver = Alternating(critic_steps, Adam(lr, 0.0, 0.9))
    return Recipe(
        game=GAN(
            lambda: ConditionalDigitsGenerator(dim, latent),
            lambda: ProjectionDigitsCritic(dim),
            Vanilla(),
            latent=latent,
            condition=10,
            spectral_norm=True,
        ),
        data=digits(),
        solver=Averaged(solver, average) if average else solver,
        steps=steps,
        batch=batch,
        title="Conditional SN-GAN on 8x8 digits",
        summary="Generator and critic are told which digit; the critic judges by projection on the class.",
        scores=(Frechet(),),
        audit={"steps": 200, "starts": 2, "looks": 8, "local_products": 80},
        references=(PROJECTION, MIYATO, DIGITS),
    )


def digits_wgan_gp(
    steps: int = 4000,
    dim: int = 32,
    latent: int = 32,
    critic_steps: int = 3,
    batch: int = 64,
    lr: float = 5e-4,
    penalty: float = 10.0,
) -> Recipe:
    """Wasserstein GAN with gradient penalty on scikit-learn's 8x8 digits."""
    from equilibrist.data import digits
    from equilibrist.formulations import WGAN
    from equilibrist.games import GAN
    from equilibrist.networks import DigitsCritic, DigitsGenerator
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import GradientPenalty
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import DIGITS, FARNIA, GULRAJANI

    return Recipe(
        game=GAN(
            lambda: DigitsGenerator(dim, latent),
            lambda: DigitsCritic(dim),
            WGAN(),
            latent=latent,
            penalties=[GradientPenalty(penalty)],
        ),
        data=digits(),
        solver=Alternating(critic_steps, Adam(lr, 0.5, 0.9)),
        steps=steps,
        batch=batch,
        title="WGAN-GP on 8x8 digits",
        summary="A small convolutional pair learns scikit-learn's handwritten digits; the critic pays for "
        "gradients whose norm is not one.",
        scores=(Frechet(),),
        audit={"steps": 200, "starts": 2, "looks": 8, "local_products": 80},
        references=(FARNIA, GULRAJANI, DIGITS),
    )


def digits_wgan_wc(
    steps: int = 4000,
    dim: int = 32,
    latent: int = 32,
    critic_steps: int = 5,
    batch: int = 64,
    lr: float = 5e-4,
    limit: float = 0.05,
) -> Recipe:
    """Wasserstein GAN with weight clipping on scikit-learn's 8x8 digits."""
    from equilibrist.data import digits
    from equilibrist.formulations import WGAN
    from equilibrist.games import GAN
    from equilibrist.networks import DigitsCritic, DigitsGenerator
    from equilibrist.optimizers import RMSProp
    from equilibrist.projections import WeightClipping
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import ARJOVSKY, DIGITS, FARNIA

    return Recipe(
        game=GAN(
            lambda: DigitsGenerator(dim, latent),
            lambda: DigitsCritic(dim),
            WGAN(),
            latent=latent,
            projections=[WeightClipping(limit)],
        ),
        data=digits(),
        solver=Alternating(critic_steps, RMSProp(lr)),
        steps=steps,
        batch=batch,
        title="WGAN-WC on 8x8 digits",
        summary="A small convolutional pair learns scikit-learn's handwritten digits; every weight of the critic "
        f"is clipped to +-{limit:g}.",
        scores=(Frechet(),),
        audit={"steps": 200, "starts": 2, "looks": 8, "local_products": 80},
        references=(FARNIA, ARJOVSKY, DIGITS),
    )
