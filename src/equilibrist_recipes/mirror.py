"""Mixed strategies: Mirror-GAN and Mirror-Prox-GAN (Hsieh, Liu and Cevher 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from equilibrist.games import GAN, SampledGame
    from equilibrist.run import Recipe
    from equilibrist.solvers import Solver

Pairing = Literal["random", "mean", "all"]
Law = Literal["eight-gaussians", "twenty-five-gaussians", "swiss-roll"]
Method = Literal["mirror", "mirror-prox"]


def digits_mirror(
    steps: int = 1500,
    particles: int = 4,
    method: Method = "mirror",
    dim: int = 16,
    latent: int = 16,
    batch: int = 64,
    lr: float = 1e-3,
    critic_lr: float = 4e-3,
    noise: float = 1e-4,
    inner: int = 2,
    beta: float = 0.9,
    pairing: Pairing = "random",
    penalty: float = 10.0,
) -> Recipe:
    """A mixture of WGANs with gradient penalty on 8x8 digits, by Langevin dynamics: two minutes or so.

    `particles` generators and critics, paired at random, share each minibatch; particles=1 trains one
    pair, the mean-network form of the paper. The step size falls to a twentieth in the second half.
    """
    from equilibrist.data import digits
    from equilibrist.formulations import WGAN
    from equilibrist.games import GAN
    from equilibrist.networks import DigitsCritic, DigitsGenerator
    from equilibrist.penalties import GradientPenalty
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist_recipes._references import DIGITS, GULRAJANI, HSIEH, WELLING

    lone = GAN(
        lambda: DigitsGenerator(dim, latent),
        lambda: DigitsCritic(dim),
        WGAN(),
        latent=latent,
        penalties=[GradientPenalty(penalty)],
    )
    return Recipe(
        game=_mixed(lone, particles),
        data=digits(),
        solver=_solver(method, steps, lr, critic_lr, noise, inner, beta, pairing, adaptive=True),
        steps=steps,
        batch=batch,
        title=f"{_TITLES[method]} on 8x8 digits",
        summary=f"{_counted(particles)} of small convolutional networks, moved by Langevin dynamics, learn "
        "scikit-learn's handwritten digits in mixed strategies.",
        scores=(Frechet(),),
        audit={
            "steps": 100,
            "starts": 1,
            "looks": 4,
            "batches": 16,
            "local_products": 40,
            "spectrum_products": 30,
        },
        references=(HSIEH, WELLING, GULRAJANI, DIGITS),
    )


def plane_mirror(
    law: Law = "eight-gaussians",
    steps: int = 2000,
    particles: int = 8,
    method: Method = "mirror",
    width: int = 64,
    depth: int = 2,
    latent: int = 2,
    batch: int = 256,
    lr: float = 1e-2,
    critic_lr: float = 1e-2,
    noise: float = 1e-3,
    inner: int = 5,
    beta: float = 0.9,
    pairing: Pairing = "random",
    adaptive: bool = False,
    penalty: float = 1.0,
    clip: float = 0.0,
) -> Recipe:
    """A mixture of WGANs on a law in the plane: with gradient penalty, or clipped where clip is not 0."""
    from equilibrist import data
    from equilibrist.formulations import WGAN
    from equilibrist.games import GAN
    from equilibrist.networks import MixtureCritic, MixtureGenerator
    from equilibrist.penalties import GradientPenalty
    from equilibrist.projections import WeightClipping
    from equilibrist.run import Recipe
    from equilibrist.scores import MixtureQuality
    from equilibrist_recipes._references import GULRAJANI, HSIEH, WELLING

    lone = GAN(
        lambda: MixtureGenerator(latent, width, depth),
        lambda: MixtureCritic(width, depth),
        WGAN(),
        latent=latent,
        penalties=[GradientPenalty(penalty)] if penalty and not clip else [],
        projections=[WeightClipping(clip)] if clip else [],
    )
    source = getattr(data, law.replace("-", "_"))()
    return Recipe(
        game=_mixed(lone, particles),
        data=source,
        solver=_solver(method, steps, lr, critic_lr, noise, inner, beta, pairing, adaptive),
        steps=steps,
        batch=batch,
        title=f"{_TITLES[method]}: {law.replace('-', ' ')}",
        summary=f"{_counted(particles)} of perceptrons, moved by Langevin dynamics, learn a law in the plane "
        "in mixed strategies.",
        scores=(MixtureQuality(transport=500),),
        audit={"steps": 200, "starts": 1, "looks": 4},
        references=(HSIEH, WELLING, GULRAJANI),
    )


_TITLES = {"mirror": "Mirror-GAN", "mirror-prox": "Mirror-Prox-GAN"}


def _counted(particles: int) -> str:
    return f"A mixture of {particles} pairs" if particles > 1 else "A pair"


def _mixed(lone: GAN, particles: int) -> SampledGame:
    from equilibrist.games import Mixture

    return Mixture(lone, particles) if particles != 1 else lone


def _solver(
    method: Method,
    steps: int,
    lr: float,
    critic_lr: float,
    noise: float,
    inner: int,
    beta: float,
    pairing: Pairing,
    adaptive: bool,
) -> Solver:
    from equilibrist.langevin import SGLD, RMSPropSGLD
    from equilibrist.schedules import Piecewise
    from equilibrist.solvers import MirrorGAN, MirrorProxGAN

    solver = MirrorGAN if method == "mirror" else MirrorProxGAN
    options: dict[str, Any] = {"decay": 0.9} if adaptive else {}
    rule: Any = RMSPropSGLD if adaptive else SGLD
    return solver(
        rule(lr, noise, **options),
        {"critic": rule(critic_lr, noise, **options)},
        inner=inner,
        beta=beta,
        pace=Piecewise(((steps // 2, 1.0), (max(steps, steps // 2 + 1), 0.05))),
        pairing=pairing,
    )
