"""How often is the audit wrong where the truth is known? False alarms, power, and coverage of lambda*.

    python campaigns/audit_calibration.py              # the tables of docs/results.md
    python campaigns/audit_calibration.py --games 20 --only local-nash lambda
    python campaigns/audit_calibration.py --keep games.jsonl   # goes on after the games in this file

Random games on samples whose truth has a closed form. Each plants, for one player or for the pair, a deviation that
gains k tolerances: at k <= 1 the claim holds to its tolerance and REFUTED is a false alarm, beyond it REFUTED is right.
Intervals are two-sided at 95%, so that the lower end is above the truth in 2.5% of games: what a false alarm may
cost at k = 1, and less below.

Two families. Both players' parameters are in float64.

`box`: G(z) = a z + u and D(x) = w . x + q . x^2, coordinate by coordinate, WGAN, every parameter in a box. With data of
mean m and second moment p, V = w . (m - u) + q . (p - u^2 - a^2): gradients and best responses are seen at once.

`noisy`: a quadratic game whose matrices are means of random ones over the samples,
V = 1/2 u^T A u + u^T B b - 1/2 b^T C b with A = P diag(alpha) P^T, B = U diag(beta) W^T, C = O diag(gamma) O^T in
expectation; every diagonal is multiplied, sample by sample, by weights 1 + tau (x^2 - 1) of mean one, tau of either
sign: as skewed as a chi-square, with outliers that are low (tau < 0) or high.

The checks are called as an audit calls them, without its self-tests, which take longer than such a game.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import binomtest, ortho_group
from torch import Tensor, nn

from equilibrist import GAN, WGAN, Adam, WeightClipping
from equilibrist.checks import Settings
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.registry import REGISTRY
from equilibrist.data import DataError, Source
from equilibrist.formulations import W2GAN
from equilibrist.games import GaussianW2GAN, Quadratic
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.progress import showing
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall

F64 = torch.float64
SIZES = (0.0, 0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 3.0, 5.0)
PLAYERS = ("generator", "critic")
VERDICTS = ("REFUTED", "UNASSESSED", "NOT_REFUTED", "VERIFIED")
Rng = np.random.Generator
Rows = list[tuple[str, str]]  # (row of the table, verdict)


# ---- data and players ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """mean + scale * e, an infinite law: e standard normal, or exponential less one (skewed)."""

    mean: tuple[float, ...]
    scale: float = 1.0
    skewed: bool = False
    dtype: torch.dtype = F64
    name: str = "law"
    kind: str = "points"
    size: int | None = None
    value_range: tuple[float, float] | None = None
    origin: str = "drawn for the campaign"

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean),)

    def sample(self, rng: Rng, n: int) -> Tensor:
        shape = (n, len(self.mean))
        e = rng.exponential(size=shape) - 1 if self.skewed else rng.standard_normal(shape)
        return torch.from_numpy(np.asarray(self.mean) + self.scale * e).to(self.dtype)

    def all(self) -> Tensor:
        raise DataError("the law is infinite: draw from it")

    def split(self, fractions: Sequence[float], rng: Rng) -> tuple[Law, ...]:
        return (self,) * len(fractions)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Law:
        return self if dtype is None else Law(self.mean, self.scale, self.skewed, dtype)


class Stretch(nn.Module):
    """G(z) = a z + u, coordinate by coordinate."""

    def __init__(self, a: np.ndarray, u: np.ndarray) -> None:
        super().__init__()
        self.a, self.u = (nn.Parameter(torch.from_numpy(x.copy())) for x in (a, u))

    def forward(self, z: Tensor) -> Tensor:
        return self.a * z + self.u


class Features(nn.Module):
    """D(x) = w . x + q . x^2."""

    def __init__(self, w: np.ndarray, q: np.ndarray) -> None:
        super().__init__()
        self.w, self.q = (nn.Parameter(torch.from_numpy(x.copy())) for x in (w, q))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + x.square() @ self.q


class Shift(nn.Module):
    """G(z) = z + u in the first coordinates, u = 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(dim, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return z + nn.functional.pad(self.u, (0, z.shape[1] - len(self.u)))


class Slope(nn.Module):
    """D(x) = b . x of the first coordinates, b = 0: its Sobolev norm is |b|^2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(dim, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : len(self.b)] @ self.b


# ---- the box: best responses and gradients in closed form ----------------------------------------


@dataclass(frozen=True)
class Box:
    """A pair in the first family and its truth. `limit` holds the sizes of the players' boxes (None: no walls)."""

    law: Law
    a: np.ndarray
    u: np.ndarray
    w: np.ndarray
    q: np.ndarray
    limit: tuple[float, float] | None = None

    def game(self) -> GAN:
        walls = zip(self.limit or (), ("generator", "critic"), strict=False)
        return GAN(
            Stretch(self.a, self.u),
            Features(self.w, self.q),
            WGAN(),
            latent=len(self.u),
            projections=tuple(WeightClipping(t, player) for t, player in walls),
        )

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """E x - E g and E x^2 - E g^2."""
        m = np.asarray(self.law.mean)
        return m - self.u, m**2 + self.law.scale**2 - self.u**2 - self.a**2

    def parameters(self, player: str) -> np.ndarray:
        """Flat, in the order of the modules."""
        return np.concatenate((self.a, self.u) if player == "generator" else (self.w, self.q))

    def best(self, player: str) -> np.ndarray:
        """The best response [2 d] in the box."""
        assert self.limit is not None
        t, c = self.limit
        if player == "critic":
            return c * np.sign(np.concatenate(self.moments))
        # It maximises w u + q u^2 + q a^2: at a corner or, where q < 0, at the top in between.
        with np.errstate(divide="ignore", invalid="ignore"):
            top = np.where(self.q < 0, np.clip(-self.w / (2 * self.q), -t, t), t * np.sign(self.w))
        return np.concatenate([np.where(self.q > 0, t, 0.0), np.where(np.isnan(top), 0.0, top)])

    def value(self, player: str, x: np.ndarray) -> float:
        """V where this player plays x."""
        n = len(self.u)
        one = {"a": self.a, "u": self.u, "w": self.w, "q": self.q}
        names = ("a", "u") if player == "generator" else ("w", "q")
        moved = Box(self.law, **(one | {names[0]: x[:n], names[1]: x[n:]}))
        first, second = moved.moments
        return float(moved.w @ first + moved.q @ second)

    def gain(self, player: str) -> float:
        """What the best response gains."""
        sign = 1 if player == "critic" else -1
        here = self.value(player, self.parameters(player))
        return sign * (self.value(player, self.best(player)) - here)

    def gradient(self, player: str) -> np.ndarray:
        """E v of the player's own loss, without what a wall blocks."""
        if player == "critic":
            v = -np.concatenate(self.moments)
        else:
            v = -np.concatenate([2 * self.q * self.a, self.w + 2 * self.q * self.u])
        if self.limit is None:
            return v
        t, x = self.limit[player == "critic"], self.parameters(player)
        return np.where((np.abs(x) == t) & (x * v < 0), 0.0, v)

    def spread(self, player: str, step: np.ndarray | None, rng: Rng, n: int = 4000) -> float:
        """Standard deviation, one sample, of what a step gains, or of the gradient (norm) where it is None."""
        x, z = self.law.sample(rng, n).numpy(), rng.standard_normal((n, len(self.u)))
        g = self.a * z + self.u
        if player == "critic":
            v = -np.hstack([x - g, x**2 - g**2])
            return float((v @ step).std() if step is not None else np.sqrt(v.var(0).sum()))
        if step is None:
            slope = self.w + 2 * self.q * g
            return float(np.sqrt((-np.hstack([slope * z, slope])).var(0).sum()))
        moved = (self.a + step[: len(z[0])]) * z + self.u + step[len(z[0]) :]
        score = [y @ self.w + y**2 @ self.q for y in (moved, g)]
        return float((score[0] - score[1]).std())


def law_of(rng: Rng, low: float, high: float, scale: tuple[float, float]) -> Law:
    """Of random dimension, shape and scale; |mean| of every coordinate within [low, high]."""
    dim = int(rng.integers(1, 5))
    mean = rng.uniform(low, high, dim) * rng.choice([-1.0, 1.0], dim)
    return Law(tuple(mean), rng.uniform(*scale), bool(rng.integers(2)))


def planted_nash(rng: Rng, player: str, equilibrium: bool) -> Box:
    """All corners are each other's best responses, and `player` is moved away from its own; or, where the pair is to
    be an equilibrium on which noise acts, the generator that realises the first two moments and D = 0."""
    size = rng.uniform(0.2, 3.0)
    if equilibrium:
        law = law_of(rng, 0.0, 0.9, (0.2, 0.9))
        zero = np.zeros(len(law.mean))
        return Box(law, np.full(len(zero), law.scale), np.array(law.mean), zero, zero, (1.0, size))
    law = law_of(rng, 1.1, 1.6, (1.0, 2.0))
    sign, n = np.sign(law.mean), len(law.mean)
    far = 1 - rng.uniform(0.05, 0.8, (2, n)) * (rng.random((2, n)) < 0.7)
    far[0, 0] = rng.uniform(0.2, 0.9)
    one = np.ones((2, n))
    (a, u), (w, q) = (far, one) if player == "generator" else (one, far)
    return Box(law, 1.0 * a, sign * u, size * sign * w, size * q, (1.0, size))


def nash_case(rng: Rng, k: float, i: int, seed: int) -> Rows:
    player = "critic" if k == 0 else PLAYERS[i % 2]
    box = planted_nash(rng, player, k == 0)
    step = (
        box.limit[1] * np.ones(2 * len(box.u))  # any deviation gains nothing, with noise
        if k == 0
        else box.best(player) - box.parameters(player)
    )
    batches, noise = int(rng.integers(8, 65)), rng.uniform(0.1, 1.0)
    spread = box.spread(player, step, rng)
    tolerance = spread * rng.uniform(0.02, 0.2) if k == 0 else box.gain(player) / k
    batch = int(np.clip((2 * spread / (noise * tolerance)) ** 2 / batches, 2, 512))
    settings = Settings(
        batch=batch,
        batches=batches,
        look_batches=4,
        starts=int(rng.integers(1, 3)),
        steps=150,
        looks=2,
        perturbation=0.05,
        absolute=tolerance,
        optimizers={"generator": Adam(0.1), "critic": Adam(0.1 * box.limit[1])},
    )
    claim = f"nash/{player}"
    return [(claim, verdict("nash", box.game(), box.law, settings, seed, claim))]


def stationary_case(rng: Rng, k: float, i: int, seed: int) -> Rows:
    player = "critic" if k == 0 else PLAYERS[i // 2 % 2]
    law = law_of(rng, 0.0, 1.0, (0.3, 2.0))
    n = len(law.mean)
    a, u, w, q = rng.uniform(-0.9, 0.9, (4, n))
    walled = k > 0 and i % 2 == 1
    if k == 0:  # the critic rests
        a, u = np.full(n, law.scale), np.array(law.mean)
    box = Box(law, a, u, w, q, (1.0, 1.0) if walled else None)
    if walled:  # the first coordinate pushes against its wall
        out = -np.sign(Box(law, a, u, w, q).gradient(player)[0])
        (a if player == "generator" else w)[0] = out
        if player == "generator":  # its slope depends on where it stands: q a, of the sign of q
            q[0] = abs(q[0]) + 0.1
    size, spread = float(np.linalg.norm(box.gradient(player))), box.spread(player, None, rng)
    noise = rng.uniform(0.05, 0.5)  # of the mean gradient, in tolerances
    if k == 0:
        size, share = spread * rng.uniform(0.02, 0.2), 1.0
    else:
        share = 1 / k
    groups, inside = int(rng.integers(5, 11)), int(rng.integers(1, 4))
    batch = int(np.clip((spread / (noise * size * share)) ** 2 / groups / inside, 2, 1024))
    settings = Settings(
        batch=batch,
        groups=groups,
        group_batches=inside,
        absolute=0.01 * float(np.linalg.norm(box.parameters(player))) * size * share,
    )
    claim = f"stationary/{player}"
    row = "stationary, walls" if walled else "stationary"
    return [(row, verdict("stationary", box.game(), law, settings, seed, claim))]


# ---- the noisy quadratic game: curvature and eigenvalues -----------------------------------------


@dataclass(frozen=True, eq=False)
class Weighted:
    """A formulation for `Shift` and `Slope`, the second family. Real samples x [batch, n + m + min(n, m)] are standard
    normal, of which the weights are made: the first n for A, the next m for C, the rest for B."""

    P: Tensor
    alpha: Tensor
    O: Tensor  # noqa: E741 (the letter of the formula)
    gamma: Tensor
    U: Tensor
    beta: Tensor
    W: Tensor
    tau: float
    zero_sum: bool = True
    formula: str = "V = 1/2 u^T A u + u^T B b - 1/2 b^T C b, its matrices means over samples"
    unit: str = "value units"

    def losses(
        self, critic: Any, real: Tensor, fake: Tensor, only: str | None = None
    ) -> dict[str, Tensor]:
        n, m = len(self.alpha), len(self.gamma)
        b = critic(torch.eye(m, real.shape[1], dtype=real.dtype))
        weights, fake = 1 + self.tau * (real.square() - 1), fake[:, :n]
        own = (weights[:, :n] * (fake @ self.P).square()) @ self.alpha / 2
        paid = weights[:, n : n + m].mean(0) * self.gamma @ (self.O.mT @ b).square() / 2
        both = (weights[:, n + m :] * (fake @ self.U)) @ (self.beta * (self.W.mT @ b))
        value = own.mean() + both.mean() - paid
        return {"generator": value, "critic": -value}

    def scale(self, critic: Any, real: Tensor, fake: Tensor) -> Tensor:
        return torch.ones((), dtype=real.dtype)

    @property
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A, B and C in expectation."""
        A = self.P * self.alpha @ self.P.mT
        B, C = self.U * self.beta @ self.W.mT, self.O * self.gamma @ self.O.mT
        return A.numpy(), B.numpy(), C.numpy()

    @property
    def jacobian(self) -> np.ndarray:
        A, B, C = self.matrices
        return np.block([[A, B], [-B.T, C]])

    def schur(self, lam: float = 0.0) -> float:
        """The smallest eigenvalue of A + B (C + 2 lambda I)^-1 B^T."""
        A, B, C = self.matrices
        S = A + B @ np.linalg.solve(C + 2 * lam * np.eye(len(C)), B.T)
        return float(np.linalg.eigvalsh((S + S.T) / 2)[0])

    def game(self) -> GAN:
        n, m = len(self.alpha), len(self.gamma)
        return GAN(Shift(n), Slope(m), self, latent=n + m + min(n, m))

    @property
    def law(self) -> Law:
        return Law((0.0,) * (len(self.alpha) + len(self.gamma) + len(self.beta)))


def weighted(rng: Rng, n: int, m: int, low: float, follower: float, pull: float) -> Weighted:
    """Random matrices: alpha in [low, 1] with at least one near its lower end, gamma in [follower, 1] likewise, beta in
    [pull / 2, pull]."""

    def turn(d: int) -> np.ndarray:
        return ortho_group.rvs(d, random_state=rng) if d > 1 else np.ones((1, 1))

    def signs(d: int, least: float) -> np.ndarray:
        x = rng.uniform(least, 1.0, d)
        x[0] = least * (1 + 0.1 * rng.uniform(-1, 1))
        return x

    r = min(n, m)
    parts = (
        turn(n),
        signs(n, low),
        turn(m),
        signs(m, follower),
        turn(n)[:, :r],
        rng.uniform(pull / 2, pull, r),
        turn(m)[:, :r],
    )
    tau = float(rng.uniform(0.1, 0.7) * rng.choice([-1, 1]))
    return Weighted(*(torch.from_numpy(np.ascontiguousarray(x)) for x in parts), tau)


def dims(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(1, 6)), int(rng.integers(1, 6))


def batch_of(rng: Rng) -> int:
    return int(rng.choice([16, 32, 64, 128, 256]))


def stable_case(rng: Rng, k: float, i: int, seed: int) -> Rows:
    share = 0.0
    while not 1e-6 < share < 0.5:
        low = 10 ** rng.uniform(-2.5, -0.3) * (1 if k == 0 else -1)
        made = weighted(rng, *dims(rng), low, 10 ** rng.uniform(-2, 0), rng.uniform(0.02, 1.5))
        values = np.linalg.eigvals(made.jacobian)
        real, size = float(values.real.min()), float(np.abs(values).max())
        share = (1e-3 if real > 0 else 0.0) if k == 0 else -real / (k * size)
    settings = Settings(batch=batch_of(rng), spectrum_tolerance=share)
    (found,) = certificates("stable", AuditContext(*begun(made.game()), made.law, settings, seed))
    rows = [("stable", found.verdict.value)]
    # The tolerance is a share of the largest eigenvalue found on minibatches, so that k is known roughly only.
    if (real >= -found.tolerance.value) == (k <= 1):
        rows.append(("stable, by the tolerance printed", found.verdict.value))
    return rows


def reach(n: int) -> float:
    """move * |x|, of a player whose parameters are all zero."""
    return 0.01 * math.sqrt(n)


def local_nash_case(rng: Rng, k: float, i: int, seed: int) -> Rows:
    """One player's own Hessian has the smallest eigenvalue planted; the other's is positive definite."""
    player = PLAYERS[i % 2]
    least = 10 ** rng.uniform(-2, 0) * (1 if k == 0 else -1)
    low, follower = (least, 0.3) if player == "generator" else (0.3, least)
    made = weighted(rng, *dims(rng), low, follower, rng.uniform(0.1, 1.5))
    own = made.alpha if player == "generator" else made.gamma
    half = reach(len(own)) ** 2 / 2
    gain = half * 10 ** rng.uniform(-3, -1) if k == 0 else -half * float(own.min()) / k
    settings = Settings(batch=batch_of(rng), absolute=gain)
    claim = f"local-nash/{player}"
    row = f"local-nash, {'low' if made.tau < 0 else 'high'} outliers"
    return [(row, verdict("local", made.game(), made.law, settings, seed, claim))]


def local_minimax_case(rng: Rng, k: float, i: int, seed: int) -> Rows:
    """The follower answers best; the Schur complement's smallest eigenvalue is planted, that of A is negative."""
    made = leading(rng, holds=k == 0)
    half = reach(len(made.alpha)) ** 2 / 2
    gain = half * 10 ** rng.uniform(-3, -1) if k == 0 else -half * made.schur() / k
    settings = Settings(batch=batch_of(rng), absolute=gain)
    claim = "local-minimax"
    return [(claim, verdict("local", made.game(), made.law, settings, seed, claim))]


def leading(rng: Rng, holds: bool) -> Weighted:
    """A is indefinite, C positive definite, and the Schur complement positive definite or not."""
    while True:
        n = int(rng.integers(1, 5))
        m = n + int(rng.integers(0, 3))
        made = weighted(rng, n, m, -rng.uniform(0.05, 0.9), 0.3, rng.uniform(0.3, 1.5))
        least = made.schur()
        if abs(least) > 0.02 and (least > 0) == holds:
            return made


# ---- lambda* -------------------------------------------------------------------------------------


def lambda_star(made: Weighted) -> float:
    """Where the smallest eigenvalue of S(lambda) passes zero."""
    high = 1.0
    while made.schur(high) > 0:
        high *= 4
    return float(brentq(made.schur, 0.0, high, xtol=1e-12))


def noisy_lambda(rng: Rng, seed: int) -> tuple[float, Any]:
    made = leading(rng, holds=True)
    settings = Settings(batch=batch_of(rng), absolute=1e-14)
    (found,) = certificates("proximal", AuditContext(*begun(made.game()), made.law, settings, seed))
    return lambda_star(made), found


def w2gan_lambda(rng: Rng, seed: int) -> tuple[float, Any]:
    """The Gaussian W2GAN at its optimum: s / (4 eta (s - 1))."""
    s, eta, dim = rng.uniform(1.3, 4.0), rng.uniform(0.2, 2.0), int(rng.integers(1, 4))
    generator, critic = LinearGenerator(dim, dim, dtype=F64), QuadraticCritic(dim, dtype=F64)
    with torch.no_grad():
        generator.W.copy_(torch.eye(dim))
        critic.A.copy_(eta * (1 - 1 / s) * torch.eye(dim))
    game = GAN(
        generator,
        critic,
        W2GAN(eta),
        latent=dim,
        projections=(
            SpectralBall("generator", "W", 1.0),
            NormBall("generator", "u", 1.0),
            EigenvalueCap("critic", "A", GaussianW2GAN(s=s, dim=dim, eta=eta, t=1.0).ceiling),
        ),
    )
    settings = Settings(batch=int(rng.choice([64, 128, 256, 512])), absolute=1e-14)
    (found,) = certificates(
        "proximal", AuditContext(*begun(game), Law((0.0,) * dim, s), settings, seed)
    )
    return s / (4 * eta * (s - 1)), found


def covered(truth: float, found: Any) -> bool | None:
    """Whether lambda_star +- lambda_star_noise holds the truth; None where it gave no interval."""
    noise = found.evidence.get("lambda_star_noise")
    low, high = found.evidence.get("lambda_star", (math.nan, math.nan))
    if noise is None or not math.isfinite(high):
        return None
    return bool(low - noise <= truth <= high + noise)


# ---- exact games ---------------------------------------------------------------------------------


def exact_case(rng: Rng, seed: int) -> dict[str, tuple[str, str]]:
    """Claim: (verdict, what it must be) of a random quadratic game at its stationary point."""
    n, m = dims(rng)

    def matrix(d: int) -> np.ndarray:
        turn = ortho_group.rvs(d, random_state=rng) if d > 1 else np.ones((1, 1))
        least = rng.choice([0.05, 0.05, -0.3])
        return (turn * rng.uniform(least, 1.0, d)) @ turn.T

    A, C, B = matrix(n), matrix(m), rng.uniform(-1.5, 1.5, (n, m))
    a, c = rng.standard_normal(n), rng.standard_normal(m)
    game = Quadratic(*(torch.from_numpy(x) for x in (A, B, C, a, c)))
    settings = Settings(
        absolute=1e-12, groups=3, group_batches=1, linear_batches=1, move=rng.choice([0.01, 0.1])
    )
    bench = ExactContext(game, game.equilibrium(), settings, seed)
    lows = {"x": np.linalg.eigvalsh(A)[0], "y": np.linalg.eigvalsh(C)[0]}
    S = A + B @ np.linalg.solve(C, B.T)
    flow = np.linalg.eigvals(np.block([[A, B], [-B.T, C]])).real.min()
    holds = {
        "stationary": True,
        "stable": flow > 0,
        "local-nash": min(lows.values()) > 0,
        "local-minimax": lows["y"] > 0 and np.linalg.eigvalsh((S + S.T) / 2)[0] > 0,
        "nash": min(lows.values()) > 0,
    }
    found = {
        c.claim: c.verdict.value
        for check in ("stationary", "stable", "local", "nash")
        for c in certificates(check, bench)
    }
    return {k: (found[k], "VERIFIED" if yes else "REFUTED") for k, yes in holds.items()}


# ---- counting ------------------------------------------------------------------------------------


def begun(game: GAN) -> tuple[GAN, Any, Any]:
    start = game.init()
    return game, start.players, start.constants


def certificates(check: str, bench: AuditContext) -> list[Any]:
    """What this check says, as an audit runs it."""
    return REGISTRY[check].run(bench, lambda gradients=1.0: None, None).certificates


def verdict(check: str, game: GAN, data: Source, settings: Settings, seed: int, claim: str) -> str:
    bench = AuditContext(*begun(game), data, settings, seed)
    return next(c.verdict.value for c in certificates(check, bench) if c.claim == claim)


# Each takes random numbers, k, which game it is, and the audit's seed.
CASES: dict[str, Callable[[Rng, float, int, int], Rows]] = {
    "stationary": stationary_case,
    "stable": stable_case,
    "local-nash": local_nash_case,
    "local-minimax": local_minimax_case,
    "nash": nash_case,
}
HALVED = ("stationary", "local-nash", "nash")  # two rows each
LAMBDAS = {"noisy quadratic game": noisy_lambda, "Gaussian W2GAN": w2gan_lambda}


def address(seed: int, name: str, k: float, i: int) -> Rng:
    """Random numbers of one game, whatever else is run."""
    return np.random.default_rng([seed, *name.encode(), round(1000 * k), i])


def rate(hits: int, n: int) -> str:
    """Per cent with the Clopper-Pearson 95% interval."""
    if not n:
        return "-"
    span = binomtest(hits, n).proportion_ci(0.95, "exact")
    return f"{100 * hits / n:.1f}% ({100 * span.low:.1f} to {100 * span.high:.1f})"


Counts = dict[tuple[str, float], Counter[str]]


class Kept:
    """Verdicts of finished games, a line each in a file, so that a later call goes on after them."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.held = path, dict[str, Any]()
        for line in path.read_text().splitlines() if path and path.exists() else ():
            with contextlib.suppress(ValueError):  # the last line may be cut short
                key, value = json.loads(line)
                self.held[key] = value

    def get(self, make: Callable[[], Any], *address: Any) -> Any:
        """What `make` gives for this game, or gave before."""
        key = json.dumps(address)
        if key not in self.held:
            self.held[key] = make()
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, self.held[key]]) + "\n")
        return self.held[key]


def count(
    name: str, games: int, seed: int, sizes: Sequence[float], tell: Any, counts: Counts, kept: Kept
) -> None:
    """Verdicts of one check's games by (row, k); a check that raises has failed, and is counted as that."""

    def play(k: float, i: int) -> Rows:
        try:
            return CASES[name](address(seed, name, k, i), k, i, seed + i)
        except Exception as error:
            return [(name, f"raised {type(error).__name__}")]

    for k in sizes:
        for i in range(games):
            for row, verdict in kept.get(partial(play, k, i), name, k, i, seed):
                counts.setdefault((row, k), Counter())[verdict] += 1
            tell({"k": k})


def table(counts: Counts) -> str:
    """False alarms with their intervals, power with what was left unassessed, false VERIFIED, and every verdict."""
    rows = list(dict.fromkeys(row for row, _ in counts))
    sizes = sorted({k for _, k in counts})
    held, lost = [k for k in sizes if k <= 1], [k for k in sizes if k > 1]
    parts = []

    def part(
        title: str, ks: Sequence[float], cell: Callable[[Counter[str], int], str], *seen: str
    ) -> None:
        """One table: a column for each k; of the rows with any of the verdicts `seen`."""
        lines = []
        for row in rows:
            found = [counts.get((row, k), Counter()) for k in ks]
            if any(c[v] for c in found for v in seen) if seen else any(found):
                lines.append(" | ".join([row, *(cell(c, c.total()) if c else "" for c in found)]))
        if lines:
            head = " | ".join([title, *(f"k = {k:g}" for k in ks)])
            parts.append(
                "\n".join(f"| {x} |" for x in [head, " | ".join(["---"] * (len(ks) + 1)), *lines])
            )

    def of(one: str) -> Callable[[Counter[str], int], str]:
        return lambda c, n: f"{c[one]} of {n}, {rate(c[one], n)}"

    part("holds to k tolerances: REFUTED", held, of("REFUTED"))
    part(
        "fails by k tolerances: REFUTED (UNASSESSED)",
        lost,
        lambda c, n: f"{100 * c['REFUTED'] / n:.1f}% ({100 * c['UNASSESSED'] / n:.1f}%)",
    )
    part("fails by k tolerances: VERIFIED", lost, of("VERIFIED"), "VERIFIED")
    part(", ".join(VERDICTS), sizes, lambda c, n: ", ".join(str(c[v]) for v in VERDICTS))
    raised: Counter[str] = Counter()
    for c in counts.values():
        raised.update({x: n for x, n in c.items() if x not in VERDICTS})
    return "\n\n".join([*parts, f"raised: {dict(raised) or 'none'}"])


def lambdas(name: str, games: int, seed: int, bar: Any) -> str:
    """A row: how often the interval of lambda* holds the truth, and the quartiles of its relative error."""
    hits = 0
    errors = []
    for i in range(games):
        truth, found = LAMBDAS[name](address(seed, name, 0.0, i), seed + i)
        held = covered(truth, found)
        if held is not None:
            hits += held
            errors.append(found.evidence["lambda_star"][1] / truth - 1)
        bar({})
    n = len(errors)
    quartiles = np.percentile(errors, [25, 50, 75]) if n else np.full(3, np.nan)
    spread = " ".join(f"{100 * x:+.1f}%" for x in quartiles)
    return f"| {name} | {games} | {games - n} | {rate(hits, n)} | {spread} |"


def exact(games: int, seed: int, bar: Any) -> str:
    """Rows: verdicts on exact losses beside what they must be."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for i in range(games):
        for claim, (verdict, expected) in exact_case(
            address(seed, "exact", 0.0, i), seed + i
        ).items():
            counts[claim, expected, verdict] += 1
        bar({})
    return "\n".join(f"| {' | '.join(key)} | {n} |" for key, n in sorted(counts.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    names = [*CASES, "lambda", "exact"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--games", type=int, default=200, help="in each row at each k, about")
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES, metavar="K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--progress", default="auto", choices=("auto", "bar", "lines", "none"))
    parser.add_argument("--keep", type=Path, help="a file of finished games, after which to go on")
    options = parser.parse_args(arguments)
    kept = Kept(options.keep)
    torch.set_num_threads(1)
    games, seed, began = options.games, options.seed, time.process_time()
    number = {name: games * (1 + (name in HALVED)) for name in CASES}
    works = {name: n * len(options.sizes) for name, n in number.items()}
    works |= {"lambda": games * len(LAMBDAS), "exact": games}
    steps = sum(works[name] for name in options.only)
    done = itertools.count(1)
    with showing(options.progress, "calibration", steps) as shown:

        def bar(values: dict[str, float]) -> None:
            shown.update(next(done), values)

        counts: Counts = {}
        for name in (name for name in CASES if name in options.only):
            count(name, number[name], seed, options.sizes, bar, counts, kept)
        if counts:
            print(table(counts), flush=True)
        if "lambda" in options.only:
            print("\n| lambda* of | games | no interval | holds the truth | quartiles of error |")
            print("|---|---|---|---|---|")
            for name in LAMBDAS:
                print(lambdas(name, games, seed, bar), flush=True)
        if "exact" in options.only:
            print("\n| exact losses | must be | is | games |\n|---|---|---|---|")
            print(exact(games, seed, bar), flush=True)
    print(f"\n{steps} games, {time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    main()
