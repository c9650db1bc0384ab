"""Games whose best responses, gains and gradients are known in closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import GAN, WGAN, WeightClipping
from equilibrist import checks as audits
from equilibrist.checks import Audit, Settings
from equilibrist.checks.context import AuditContext
from equilibrist.data import ArraySource, DataError, Source

F64 = torch.float64
# Of the tests that are about these two checks: the others have tests of their own.
audit_game = functools.partial(audits.audit_game, checks=("stationary", "nash"))
audit = functools.partial(audits.audit, checks=("stationary", "nash"))


@dataclass(frozen=True)
class Gaussian:
    """N(0, scale^2 I) in `dim` dimensions, an infinite law."""

    dim: int = 1
    scale: float = 1.0
    dtype: torch.dtype = F64
    name: str = "gaussian"
    kind: str = "points"
    size: int | None = None
    value_range: tuple[float, float] | None = None
    origin: str = "made up for a test"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim,)

    def sample(self, rng: np.random.Generator, n: int) -> Tensor:
        return torch.from_numpy(self.scale * rng.standard_normal((n, self.dim))).to(self.dtype)

    def all(self) -> Tensor:
        raise DataError("infinite")

    def split(self, fractions: Sequence[float], rng: np.random.Generator) -> tuple[Gaussian, ...]:
        return (self,) * len(fractions)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Gaussian:
        return Gaussian(self.dim, self.scale, dtype or self.dtype)


class Balanced:
    """Latents that are +1 and -1 in turn: mean 0 and variance 1 in every even batch, exactly."""

    def sample(self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Any) -> Tensor:
        return (1.0 - 2.0 * (torch.arange(n, device=device) % 2)).to(dtype).reshape(n, 1)


class Shift(nn.Module):
    """G(z) = z + u."""

    def __init__(self, u: Sequence[float]) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.tensor(u, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.u


class Affine(nn.Module):
    """G(z) = w z + u."""

    def __init__(self, w: float, u: Sequence[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=F64))
        self.u = nn.Parameter(torch.tensor(u, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return self.w * z + self.u


class Linear(nn.Module):
    """D(x) = w . x."""

    def __init__(self, w: Sequence[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


class Modulus(nn.Module):
    """D(x) = a |x| in one dimension."""

    def __init__(self, a: float = 1.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([a], dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.abs().flatten()


class Parabola(nn.Module):
    """D(x) = a x^2 + b x in one dimension."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([a], dtype=F64))
        self.b = nn.Parameter(torch.tensor([b], dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.a * x.square() + self.b * x).flatten()


@dataclass(frozen=True)
class W2:
    """V = E D(x) - E D^c(G(z)), cost eta |x - x'|^2, for a `Parabola` (SCIENCE, section 2)."""

    eta: float = 0.5
    zero_sum: bool = True
    formula: str = "V = E D(x) - E D^c(G(z))"
    unit: str = "cost"

    def losses(
        self, critic: Any, real: Tensor, fake: Tensor, only: str | None = None
    ) -> dict[str, Tensor]:
        right, left = critic(torch.tensor([[1.0], [-1.0]], dtype=fake.dtype))
        a, b = (right + left) / 2, (right - left) / 2
        conjugate = (b + 2 * self.eta * fake).square() / (
            4 * (self.eta - a)
        ) - self.eta * fake.square()
        # Beyond its domain the transform is infinite: a search that jumps there has gained nothing.
        conjugate = conjugate + torch.where(a.detach() < self.eta, 0.0, torch.inf)
        value = critic(real).mean() - conjugate.mean()
        return {"generator": value, "critic": -value}

    def scale(self, critic: Any, real: Tensor, fake: Tensor) -> Tensor:
        return torch.ones((), dtype=real.dtype)


@dataclass(frozen=True)
class Unit(WGAN):
    """WGAN whose yardstick is 1."""

    def scale(self, critic: Any, real: Tensor, fake: Tensor) -> Tensor:
        return torch.ones((), dtype=real.dtype)


def boxed(
    u: Sequence[float], w: Sequence[float], t: float = 1.0, c: float = 1.0, formulation: Any = None
) -> GAN:
    """V = -w . u with |u_i| <= t, |w_i| <= c. Best responses: u = t sign(w), w = -c sign(u)."""
    return GAN(
        Shift(u),
        Linear(w),
        formulation or WGAN(),
        latent=len(u),
        projections=(WeightClipping(t, "generator"), WeightClipping(c, "critic")),
    )


def true_gains(
    u: Sequence[float], w: Sequence[float], t: float = 1.0, c: float = 1.0
) -> dict[str, float]:
    """The largest feasible gains of `boxed`."""
    v = float(np.dot(u, w))
    return {
        "generator": t * float(np.abs(w).sum()) - v,
        "critic": c * float(np.abs(u).sum()) + v,
    }


def folded(w: float, u: float) -> float:
    """E |w Z + u|."""
    w = abs(w)
    return w * math.sqrt(2 / math.pi) * math.exp(-u * u / (2 * w * w)) + u * math.erf(
        u / (w * math.sqrt(2))
    )


def points(values: Any, name: str = "points") -> ArraySource:
    return ArraySource(np.asarray(values), name=name, origin="made up", kind="points", dtype=F64)


def audited(
    game: GAN, data: Source, *, seed: int = 0, checks: Sequence[str] = ("nash",), **settings: Any
) -> Audit:
    """Audit of a game's initial pair."""
    start = game.init()
    return audit_game(
        game,
        start.players,
        start.constants,
        data,
        Settings(**settings),
        seed=seed,
        checks=checks,
        progress="none",
    )


def context(game: GAN, data: Source, seed: int = 0, **settings: Any) -> AuditContext:
    start = game.init()
    return AuditContext(game, start.players, start.constants, data, Settings(**settings), seed)
