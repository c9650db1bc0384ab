"""Real 8x8 digits: small enough to train while one looks on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equilibrist.run import Recipe, Reference
    from equilibrist.solvers import Solver


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
    from equilibrist.solvers import Alternating, Averaged
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
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import GradientPenalty
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import GULRAJANI

    return _wgan(
        "WGAN-GP",
        "the critic pays for gradients whose norm is not one.",
        Alternating(critic_steps, Adam(lr, 0.5, 0.9)),
        GULRAJANI,
        (dim, latent),
        {"penalties": [GradientPenalty(penalty)]},
        steps=steps,
        batch=batch,
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
    from equilibrist.optimizers import RMSProp
    from equilibrist.projections import WeightClipping
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import ARJOVSKY

    return _wgan(
        "WGAN-WC",
        f"every weight of the critic is clipped to +-{limit:g}.",
        Alternating(critic_steps, RMSProp(lr)),
        ARJOVSKY,
        (dim, latent),
        {"projections": [WeightClipping(limit)]},
        steps=steps,
        batch=batch,
    )


def _wgan(
    name: str,
    text: str,
    solver: Solver,
    reference: Reference,
    sizes: tuple[int, int],
    game: dict[str, Any],
    **recipe: Any,
) -> Recipe:
    from equilibrist.data import digits
    from equilibrist.formulations import WGAN
    from equilibrist.games import GAN
    from equilibrist.networks import DigitsCritic, DigitsGenerator
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist_recipes._references import DIGITS, FARNIA

    dim, latent = sizes
    return Recipe(
        game=GAN(
            lambda: DigitsGenerator(dim, latent),
            lambda: DigitsCritic(dim),
            WGAN(),
            latent=latent,
            **game,
        ),
        data=digits(),
        solver=solver,
        title=f"{name} on 8x8 digits",
        summary=f"A small convolutional pair learns scikit-learn's handwritten digits; {text}",
        scores=(Frechet(),),
        audit={"steps": 200, "starts": 2, "looks": 8, "local_products": 80},
        references=(FARNIA, reference, DIGITS),
        **recipe,
    )
