"""The analytic game of Farnia and Ozdaglar's Theorem 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equilibrist.run import Recipe


def gaussian_w2gan(
    steps: int = 1000,
    dim: int = 2,
    s: float = 2.0,
    t: float = 1.0,
    eta: float = 0.5,
    critic_steps: int = 5,
    batch: int = 64,
    lr: float = 0.05,
    exact: bool = True,
) -> Recipe:
    """W2GAN on X ~ N(0, s^2 I): G(z) = Wz + u with sigma_max(W) <= 1, |u| <= t, against quadratic critics.

    For s > 1 this game has no Nash equilibrium (Theorem 1). Its Stackelberg solution is W orthogonal,
    u = 0, A = eta (1 - 1/s) I, b = 0, with value eta d (s - 1)^2. With exact=true minibatches have
    the law's own mean and covariance, so that quadratic losses are free of sampling noise.
    """
    import torch

    from equilibrist.data import Gaussian
    from equilibrist.formulations import W2GAN
    from equilibrist.games import GAN
    from equilibrist.networks import LinearGenerator, QuadraticCritic
    from equilibrist.optimizers import SGD
    from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall
    from equilibrist.run import Recipe
    from equilibrist.scores import MixtureQuality
    from equilibrist.solvers import Alternating
    from equilibrist_recipes._references import FARNIA

    unit = torch.eye(dim, dtype=torch.float64)
    group = batch if exact else 0
    zero = torch.zeros(dim, dtype=torch.float64)
    return Recipe(
        game=GAN(
            lambda: LinearGenerator(dim, dim, dtype=torch.float64),
            lambda: QuadraticCritic(dim, dtype=torch.float64),
            W2GAN(eta),
            latent=Gaussian(zero, unit, exact_moments=group, name="latents", dtype=torch.float64),
            projections=[
                SpectralBall("generator", "W", 1.0),
                NormBall("generator", "u", t),
                EigenvalueCap("critic", "A", 0.95 * eta),
            ],
        ),
        data=Gaussian(zero, s**2 * unit, exact_moments=group, dtype=torch.float64),
        solver=Alternating(critic_steps, SGD(lr)),
        steps=steps,
        batch=batch,
        dtype=torch.float64,
        title=f"W2GAN on a Gaussian (d = {dim}, s = {s:g})",
        summary=f"Farnia and Ozdaglar's Theorem 1: an affine generator with sigma_max(W) <= 1 and |u| <= {t:g}, "
        f"a quadratic critic, data N(0, {s:g}^2 I).",
        scores=(MixtureQuality(transport=500),),
        references=(FARNIA,),
    )
