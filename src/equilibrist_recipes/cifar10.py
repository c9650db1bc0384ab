"""CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from equilibrist.formulations import Formulation
    from equilibrist.run import Recipe, Reference
    from equilibrist.solvers import Solver

DCGANMethod = Literal["consensus", "alternating", "simultaneous"]


def cifar10_sngan(
    steps: int = 20000,
    dim: int = 16,
    critic_steps: int = 5,
    batch: int = 64,
    lr: float = 2e-4,
    beta1: float = 0.5,
    beta2: float = 0.9,
    conditional: bool = False,
    flip: bool = False,
    average: float = 0.0,
    accumulate: int = 1,
    mixed_precision: bool = False,
    batch_norm: bool = True,
    saturating: bool = False,
) -> Recipe:
    """Spectrally normalised vanilla GAN on CIFAR-10 (Miyato et al. 2018). The paper's size: dim=64 or 128.

    conditional=true shows both players the class (projection critic); average=0.999 keeps an
    exponential average of the generator, from which samples, scores and audits come. accumulate
    needs batch_norm=false (it is the generator's; the critic has none).
    """
    from equilibrist.formulations import Vanilla
    from equilibrist.networks import CIFAR10Critic, CIFAR10Generator
    from equilibrist.optimizers import Adam
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import FARNIA, KRIZHEVSKY, MIYATO

    classes = 10 if conditional else 0
    return _cifar(
        "SN-GAN",
        f"the reference DCGAN pair at width {dim} with a spectrally normalised critic",
        (
            lambda: CIFAR10Generator(dim, batch_norm=batch_norm, conditions=classes),
            lambda: CIFAR10Critic(dim, conditions=classes),
        ),
        Vanilla(saturating),
        Alternating(critic_steps, Adam(lr, beta1, beta2)),
        (FARNIA, MIYATO, KRIZHEVSKY),
        flip,
        average,
        game={
            "latent": 128,
            "spectral_norm": True,
            **({"condition": classes} if conditional else {}),
        },
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        mixed_precision=mixed_precision,
    )


def cifar10_wgan_gp(
    steps: int = 20000,
    dim: int = 16,
    critic_steps: int = 5,
    batch: int = 64,
    lr: float = 1e-4,
    penalty: float = 10.0,
    average: float = 0.0,
) -> Recipe:
    """WGAN with gradient penalty on CIFAR-10 (Gulrajani et al. 2017). The paper's size: dim=64 or 128."""
    from equilibrist.formulations import WGAN
    from equilibrist.networks import CIFAR10Critic, CIFAR10Generator
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import GradientPenalty
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import GULRAJANI, KRIZHEVSKY

    return _cifar(
        "WGAN-GP",
        f"the reference DCGAN pair at width {dim} with a gradient penalty on the critic",
        (lambda: CIFAR10Generator(dim), lambda: CIFAR10Critic(dim)),
        WGAN(),
        Alternating(critic_steps, Adam(lr, 0.5, 0.9)),
        (GULRAJANI, KRIZHEVSKY),
        False,
        average,
        game={"latent": 128, "penalties": [GradientPenalty(penalty)]},
        steps=steps,
        batch=batch,
    )


def cifar10_wgan_wc(
    steps: int = 20000,
    dim: int = 16,
    critic_steps: int = 5,
    batch: int = 64,
    lr: float = 5e-5,
    limit: float = 0.01,
    critic_batch_norm: bool = True,
    average: float = 0.0,
) -> Recipe:
    """WGAN with weight clipping on CIFAR-10 (Arjovsky et al. 2017). The paper's size: dim=64 or 128.

    V_prox and lambda* need a critic that scores every sample by itself: critic_batch_norm=false.
    """
    from equilibrist.formulations import WGAN
    from equilibrist.networks import CIFAR10Critic, CIFAR10Generator
    from equilibrist.optimizers import RMSProp
    from equilibrist.projections import WeightClipping
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import ARJOVSKY, FARNIA, KRIZHEVSKY

    return _cifar(
        "WGAN-WC",
        f"the reference DCGAN pair at width {dim}, every weight of the critic clipped to +-{limit:g}",
        (lambda: CIFAR10Generator(dim), lambda: CIFAR10Critic(dim, batch_norm=critic_batch_norm)),
        WGAN(),
        Alternating(critic_steps, RMSProp(lr)),
        (FARNIA, ARJOVSKY, KRIZHEVSKY),
        False,
        average,
        game={"latent": 128, "projections": [WeightClipping(limit)]},
        steps=steps,
        batch=batch,
    )


def cifar10_dcgan(
    steps: int = 20000,
    dim: int = 16,
    layers: int = 3,
    method: DCGANMethod = "consensus",
    gamma: float = 0.1,
    batch_norm: bool = False,
    batch: int = 64,
    lr: float = 1e-4,
) -> Recipe:
    """Vanilla DCGAN on CIFAR-10 (Mescheder et al. 2017), by consensus without batch norm. Their size: dim=64.

    layers=3 or 4 convolutions in each player; the slides take gamma 0.1 with three and 10 with four. Batch norm
    is in both players or in neither. The generator's loss is the non-saturating one and z has 256 coordinates, as
    in the authors' published code.
    """
    from equilibrist.formulations import Vanilla
    from equilibrist.networks import DCGANCritic, DCGANGenerator
    from equilibrist.optimizers import TFRMSProp
    from equilibrist.solvers import Alternating, Consensus, Simultaneous
    from equilibrist_recipes._references import KRIZHEVSKY, MESCHEDER

    rule, latent = TFRMSProp(lr), 256
    solvers: dict[str, Solver] = {
        "consensus": Consensus(rule, gamma=gamma),
        "alternating": Alternating(1, rule),
        "simultaneous": Simultaneous(rule),
    }
    norm = "with" if batch_norm else "without"
    return _cifar(
        "DCGAN",
        f"a DCGAN of {layers} convolutions and width {dim}, {norm} batch norm",
        (
            lambda: DCGANGenerator(layers, (3, 32), dim, latent, batch_norm),
            lambda: DCGANCritic(layers, (3, 32), dim, batch_norm),
        ),
        Vanilla(saturating=False),
        solvers[method],
        (MESCHEDER, KRIZHEVSKY),
        False,
        0.0,
        game={"latent": latent},
        steps=steps,
        batch=batch,
    )


def cifar10_r3gan(
    steps: int = 20000,
    width: int = 64,
    blocks: int = 2,
    batch: int = 64,
    lr: float = 2e-4,
    gamma: float = 0.5,
    flip: bool = True,
    average: float = 0.999,
    accumulate: int = 1,
    mixed_precision: bool = False,
) -> Recipe:
    """Relativistic pairing GAN with R1 and R2 after R3GAN (Huang et al. 2024), at a small width."""
    from equilibrist.formulations import Relativistic
    from equilibrist.networks import R3GANCritic, R3GANGenerator
    from equilibrist.optimizers import Adam
    from equilibrist.penalties import R1, R2
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import HUANG, KRIZHEVSKY

    return _cifar(
        "R3GAN",
        f"residual networks without normalisation, width {width}",
        (
            lambda: R3GANGenerator(32, width, blocks=blocks),
            lambda: R3GANCritic(32, width, blocks=blocks),
        ),
        Relativistic(),
        Alternating(1, Adam(lr, 0.0, 0.99)),
        (HUANG, KRIZHEVSKY),
        flip,
        average,
        game={"latent": 64, "penalties": [R1(gamma), R2(gamma)]},
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        mixed_precision=mixed_precision,
    )


def _cifar(
    name: str,
    text: str,
    players: tuple[Any, Any],
    formulation: Formulation,
    solver: Solver,
    references: tuple[Reference, ...],
    flip: bool,
    average: float,
    game: dict[str, Any],
    **recipe: Any,
) -> Recipe:
    from equilibrist.data import Augmented, Source, cifar10
    from equilibrist.games import GAN
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Averaged

    data: Source = Augmented(cifar10(), flip=True) if flip else cifar10()
    return Recipe(
        game=GAN(*players, formulation, **game),
        data=data,
        solver=Averaged(solver, average) if average else solver,
        title=f"{name} on CIFAR-10",
        summary=f"CIFAR-10's 50,000 training photographs: {text}.",
        scores=(Frechet(),),
        audit={"steps": 1000},
        references=references,
        **recipe,
    )
