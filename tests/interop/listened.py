"""Closed trainers of small pairs, as tests of listening use them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

REAL = (
    torch.randn(512, 3, generator=torch.Generator().manual_seed(1)) + 5
)  # generated rows lie near 0


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


Round = Callable[[nn.Module, nn.Module, Tensor], Tensor]


def detached(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    return softplus(-d(real)).mean() + softplus(d(g(torch.randn(len(real), 2)).detach())).mean()


def no_grad(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    with torch.no_grad():
        fake = g(torch.randn(len(real), 2))
    return softplus(d(fake)).mean() + softplus(-d(real)).mean()


def activated(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    """What is shown is not the generator's output, but has its graph (CTGAN)."""
    fake = torch.tanh(g(torch.randn(len(real), 2)))
    return softplus(d(fake)).mean() + softplus(-d(real)).mean()


def joined(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    with torch.no_grad():
        fake = g(torch.randn(len(real) // 2, 2))
    scores = d(torch.cat([real, fake]))
    return softplus(-scores[: len(real)]).mean() + softplus(scores[len(real) :]).mean()


def r1(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    """The real batch requires a gradient."""
    real = real.clone().requires_grad_()
    scores = d(real)
    slope = torch.autograd.grad(scores.sum(), real, create_graph=True)[0]
    fake = g(torch.randn(len(real), 2)).detach()
    return softplus(-scores).mean() + softplus(d(fake)).mean() + slope.square().sum(1).mean()


def penalised(g: nn.Module, d: nn.Module, real: Tensor, graph: bool = True) -> Tensor:
    fake = g(torch.randn(len(real), 2))
    fake = torch.tanh(fake) if graph else fake.detach()
    loss = d(fake).mean() - d(real).mean()
    mixed = real + torch.rand(len(real), 1) * (fake - real)
    if not graph:
        mixed.requires_grad_()
    slope = torch.autograd.grad(d(mixed).sum(), mixed, create_graph=True)[0]
    return loss + 10 * (slope.norm(dim=1) - 1).square().mean()


def penalised_apart(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    return penalised(g, d, real, graph=False)


def train(
    shown: Round = detached, rounds: int = 12, critic_steps: int = 1, seed: int = 0
) -> tuple[nn.Module, nn.Module]:
    """A closed trainer: it returns the generator, and (for the tests alone) the critic."""
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    g, d = Generator(), Critic()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    for _ in range(rounds):
        for _ in range(critic_steps):
            real = REAL[torch.randint(len(REAL), (16,))]
            step(adam_d, shown(g, d, real))
        fake = g(torch.randn(16, 2))
        loss = softplus(-d(torch.tanh(fake) if shown in (activated, penalised) else fake)).mean()
        step(adam_g, loss)
    return g, d


def pair(
    critic: Callable[[], nn.Module] = Critic,
) -> tuple[nn.Module, nn.Module, torch.optim.Adam, torch.optim.Adam]:
    """A generator and a critic that begin alike each time, and the optimiser of the critic, then of the generator."""
    torch.manual_seed(0)
    g, d = Generator(), critic()
    return g, d, torch.optim.Adam(d.parameters(), 1e-3), torch.optim.Adam(g.parameters(), 1e-3)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(), loss.backward(), optimizer.step()


def fooling(g: nn.Module, d: nn.Module) -> Tensor:
    """The generator's loss."""
    return softplus(-d(g(torch.randn(16, 2)))).mean()


def state() -> list[Any]:
    return [torch.get_rng_state(), np.random.get_state()[1], random.getstate()]  # type: ignore[index]


def weights(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def hooks() -> int:
    from torch.nn.modules import module
    from torch.optim import optimizer

    return sum(
        len(table)
        for table in (
            module._global_forward_hooks,
            module._global_forward_pre_hooks,
            optimizer._global_optimizer_pre_hooks,
            optimizer._global_optimizer_post_hooks,
        )
    )
