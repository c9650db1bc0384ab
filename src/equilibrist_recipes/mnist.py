"""The three GANs of Farnia and Ozdaglar's section 2 on MNIST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equilibrist.formulations import Formulation
    from equilibrist.optimizers import Optimizer
    from equilibrist.run import Recipe, Reference


def mnist_sngan(
    steps: int = 20000,
    dim: int = 16,
    critic_steps: int = 5,
    batch: int = 50,
    lr: float = 2e-4,
    beta1: float = 0.5,
    beta2: float = 0.9,
    batch_norm: bool = True,
    saturating: bool = False,
) -> Recipe:
    """Spectrally normalised vanilla GAN on MNIST (Miyato et al. 2018). The paper's size: dim=64, steps=200000.

    Batch norm in the generator only, as in Miyato's: without it (batch_norm=false) the generator's
    sigmoid saturates within some hundred steps and every sample is black.
    """
    from equilibrist.formulations import Vanilla
    from equilibrist.optimizers import Adam
    from equilibrist_recipes._references import MIYATO

    return _mnist(
        "SN-GAN",
        "a spectrally normalised critic",
        Vanilla(saturating),
        dim,
        steps,
        critic_steps,
        batch,
        Adam(lr, beta1, beta2),
        MIYATO,
        norms=(batch_norm, False),
        spectral_norm=True,
    )


def mnist_wgan_gp(
    steps: int = 20000,
    dim: int = 16,
    critic_steps: int = 5,
    batch: int = 50,
    lr: float = 1e-4,
    penalty: float = 10.0,
) -> Recipe:
    """WGAN with gradient penalty on MNIST (Gulrajani et al. 2017). The paper's size: dim=64, steps=200000."""
    from equilibrist.formulations import WGAN
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import GradientPenalty
    from equilibrist_recipes._references import GULRAJANI

    return _mnist(
        "WGAN-GP",
        "a gradient penalty on the critic",
        WGAN(),
        dim,
        steps,
        critic_steps,
        batch,
        Adam(lr, 0.5, 0.9),
        GULRAJANI,
        penalties=[GradientPenalty(penalty)],
    )


def mnist_wgan_wc(
    steps: int = 20000,
    dim: int = 16,
    critic_steps: int = 5,
    batch: int = 50,
    lr: float = 5e-5,
    limit: float = 0.01,
    batch_norm: bool = True,
    critic_batch_norm: bool = True,
) -> Recipe:
    """WGAN with weight clipping on MNIST (Arjovsky et al. 2017). The paper's size: dim=64, steps=200000.

    Batch norm in both players, or in the generator alone (critic_batch_norm=false), or in neither
    (batch_norm=false). V_prox and lambda* need a critic that scores every sample by itself: one without.
    """
    from equilibrist.formulations import WGAN
    from equilibrist.optimizers import RMSProp
    from equilibrist.projections import WeightClipping
    from equilibrist_recipes._references import ARJOVSKY

    return _mnist(
        "WGAN-WC",
        f"every weight of the critic clipped to +-{limit:g}",
        WGAN(),
        dim,
        steps,
        critic_steps,
        batch,
        RMSProp(lr),
        ARJOVSKY,
        norms=(batch_norm, batch_norm and critic_batch_norm),
        projections=[WeightClipping(limit)],
    )


def _mnist(
    name: str,
    text: str,
    formulation: Formulation,
    dim: int,
    steps: int,
    critic_steps: int,
    batch: int,
    rule: Optimizer,
    reference: Reference,
    norms: tuple[bool, bool] = (False, False),
    **game: Any,
) -> Recipe:
    from equilibrist.data import mnist
    from equilibrist.games import GAN
    from equilibrist.networks import MNISTCritic, MNISTGenerator
    from equilibrist.run import Recipe
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import FARNIA, LECUN

    return Recipe(
        game=GAN(
            lambda: MNISTGenerator(dim, batch_norm=norms[0]),
            lambda: MNISTCritic(dim, batch_norm=norms[1]),
            formulation,
            latent=128,
            **game,
        ),
        data=mnist(),
        solver=Alternating(critic_steps, rule),
        steps=steps,
        batch=batch,
        title=f"{name} on MNIST (DIM {dim})",
        summary=f"The reference DCGAN pair at width {dim} on MNIST's 60,000 training digits, with {text}.",
        audit={"steps": 1000, "starts": 2},
        references=(FARNIA, reference, LECUN),
    )
