"""What the tests of other people's modules share: small pairs, data of every shape, and audits of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import equilibrist as eq
from equilibrist.checks import Settings

F64 = torch.float64
QUICK = Settings(
    batch=32, starts=1, steps=20, groups=3, group_batches=2, looks=2, batches=8, look_batches=4
)
SMALL = Settings(
    batch=16, starts=1, steps=8, groups=3, group_batches=2, looks=2, batches=8, look_batches=4
)
VANILLA: dict[str, Any] = {"formulation": eq.Vanilla()}
PENALISED: dict[str, Any] = {"formulation": eq.Hinge(), "penalties": [eq.R1(1.0)]}


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


POINTS, IMAGES = rand(160, 2), rand(128, 1, 8, 8)


def generator() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def critic() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def painter() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))


class PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def judge(*layers: nn.Module, features: int) -> nn.Module:
    """A critic of images around these layers."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), *layers, nn.Flatten(), nn.Linear(features, 1))


def audited(g: nn.Module, c: nn.Module, data: Any = POINTS, **options: Any) -> Any:
    """An audit of a small budget, whose self-tests must pass: they hold first and second derivatives (a third under a
    penalty) against finite differences."""
    formulation = options.pop("formulation", eq.Vanilla())
    given = {"latent": 4, "settings": QUICK, "checks": ("self-tests", "stationary", "nash")}
    found = eq.audit_pair(g, c, data, formulation, progress="none", **{**given, **options})
    assert found["self-tests"].verdict is eq.Verdict.VERIFIED, found["self-tests"].summary
    return found


def works(
    g: Callable[[], nn.Module], c: Callable[[], nn.Module], data: Any, **options: Any
) -> None:
    """The pair is audited, without a gradient penalty and with one."""
    given = {"settings": SMALL, **options}
    torch.manual_seed(3)
    found = audited(g(), c(), data, checks=("self-tests", "stationary"), **VANILLA, **given)
    assert found["stationary"].verdict in eq.Verdict
    torch.manual_seed(3)
    audited(g(), c(), data, checks=("self-tests",), **PENALISED, **given)


def said(found: Any) -> dict[str, Any]:
    """Verdicts and every number of an audit."""
    return {c.claim: (c.verdict, c.evidence) for c in found.values()}


def losses(game: Any, x: Tensor, z: Tensor, **draw: Tensor) -> dict[str, Tensor]:
    """Both losses of a GAN on these real samples and latents, in their precision."""
    start = game.init(dtype=x.dtype)
    return game.losses(start.players, start.constants, {"real": x, "latent": z, **draw})
