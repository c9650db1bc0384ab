"""A recipe of your own: two modules, a formulation, data, a solver.

    equilibrist info examples/own_recipe.py:rings
    equilibrist run examples/own_recipe.py:rings --set steps=500
    equilibrist audit runs/own_recipe-rings --recipe examples/own_recipe.py:rings

A recipe is a function of typed settings with defaults; each can be changed with --set. Its code is
executed only when you name the file.
"""

import torch
from torch import nn

import equilibrist as eq


def two_rings(n: int = 4000) -> eq.ArraySource:
    """Points on two circles, radii 1 and 0.4, with a little noise."""
    g = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(n, generator=g)
    radius = torch.where(torch.arange(n) % 2 == 0, 1.0, 0.4)
    points = torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None]
    noisy = points + 0.02 * torch.randn(n, 2, generator=g)
    return eq.ArraySource(noisy, name="two rings", kind="points", origin="made by this example")


def rings(steps: int = 3000, width: int = 64, lr: float = 5e-4, critic_steps: int = 2) -> eq.Recipe:
    """WGAN with gradient penalty on two rings."""
    # Functions that build modules, not modules: every seed starts from weights of its own.
    game = eq.GAN(
        generator=lambda: nn.Sequential(
            nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        ),
        critic=lambda: nn.Sequential(
            nn.Linear(2, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        ),
        formulation=eq.WGAN(),
        latent=8,
        penalties=[eq.GradientPenalty(weight=1.0)],
    )
    return eq.Recipe(
        game=game,
        data=two_rings(),
        solver=eq.Alternating(critic_steps, eq.Adam(lr)),
        steps=steps,
        batch=128,
        title="WGAN-GP on two rings",
        summary="Two small perceptrons; a recipe of one's own.",
        audit={"steps": 300},
    )
