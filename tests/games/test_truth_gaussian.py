"""Gaussian GANs: closed forms against sampling-free quadrature, best critics, shifts, lambda*."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm, wasserstein_distance
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.formulations import W2GAN
from equilibrist.games import GAN, GaussianW2GAN, GaussianWGAN
from equilibrist.networks import LinearGenerator, QuadraticCritic

F64 = torch.float64


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def feasible(game: Any, seed: int) -> Any:
    """A feasible pair away from the optimum, critic well inside."""
    d = game.dim
    players = {
        "generator": {"W": 0.4 * rand(d, d, seed=seed), "u": 0.3 * rand(d, seed=seed + 1)},
        "critic": {"A": 0.2 * rand(d, d, seed=seed + 2), "b": rand(d, seed=seed + 3)},
    }
    return game.project(players)


def moments(d: int, scale: float) -> Tensor:
    """2 d points with the mean and covariance of N(0, scale^2 I): exact for quadratic integrands."""
    eye = scale * d**0.5 * torch.eye(d, dtype=F64)
    return torch.cat([eye, -eye])


@pytest.mark.parametrize(("s", "d", "eta"), [(2.0, 1, 0.5), (2.0, 3, 0.7), (0.5, 2, 0.5)])
def test_w2gan_equals_the_general_gan_on_matched_moments(s: float, d: int, eta: float) -> None:
    """The library's GAN with its closed transform, on points whose first two moments are exact."""
    game = GaussianW2GAN(s, d, eta)
    general = GAN(
        LinearGenerator(d, d, dtype=F64), QuadraticCritic(d, dtype=F64), W2GAN(eta), latent=d
    )
    draw = {"real": moments(d, s), "latent": moments(d, 1.0)}
    for seed in range(3):
        players = feasible(game, 10 * seed)
        fixed = general.init().constants
        torch.testing.assert_close(
            game.losses(players, {}, {}),
            general.losses(players, fixed, draw),
            rtol=1e-12,
            atol=1e-12,
        )
        torch.testing.assert_close(
            VectorField(game)(players, {}, {}).v,
            VectorField(general)(players, fixed, draw).v,
            rtol=1e-11,
            atol=1e-11,
        )


@pytest.mark.parametrize(("s", "d"), [(2.0, 1), (3.0, 2), (0.5, 2)])
def test_w2gan_best_critic(s: float, d: int) -> None:
    game = GaussianW2GAN(s, d, 0.8, ceiling=0.8 * (1 - 1e-3))
    for seed in range(4):
        players = feasible(game, seed)
        W, u = players["generator"]["W"], players["generator"]["u"]
        best = {**players, "critic": game.best_critic(W, u)}
        value = game.losses(best, {}, {})["generator"]
        assert float(value) == pytest.approx(float(game.best_value(W, u)), rel=1e-11)
        assert float(tree.norm(VectorField(game)(best, {}, {}).v["critic"])) < 1e-11
        for k in range(20):
            step = {"A": 0.05 * rand(d, d, seed=k), "b": 0.2 * rand(d, seed=k + 50)}
            other = game.project({**best, "critic": tree.axpy(1.0, step, best["critic"])})
            assert float(game.losses(other, {}, {})["generator"]) <= float(value) + 1e-12


def test_w2gan_best_value_is_the_transport_cost() -> None:
    """eta W_2^2 in one dimension, by quantiles."""
    game = GaussianW2GAN(2.0, 1, 0.7)
    w, u = 0.6, 0.4
    q = (np.arange(200_000) + 0.5) / 200_000
    z = norm.ppf(q)
    transported = 0.7 * np.mean((2.0 * z - (w * z + u)) ** 2)
    value = game.best_value(torch.tensor([[w]], dtype=F64), torch.tensor([u], dtype=F64))
    assert float(value) == pytest.approx(transported, rel=1e-4)


@pytest.mark.parametrize(("s", "d"), [(2.0, 1), (1.5, 3), (0.5, 2)])
def test_w2gan_optimum(s: float, d: int) -> None:
    game = GaussianW2GAN(s, d, 0.6)
    (point,) = game.points()
    at = point.players
    assert float(game.losses(at, {}, {})["generator"]) == pytest.approx(game.value, rel=1e-13)
    assert game.value == pytest.approx(0.6 * d * (s - 1) ** 2)
    best = game.best_critic(**at["generator"])
    torch.testing.assert_close(best, at["critic"], rtol=1e-13, atol=1e-13)
    # No feasible generator has a smaller best value: minimax.
    for seed in range(30):
        other = feasible(game, seed)["generator"]
        assert float(game.best_value(**other)) >= game.value - 1e-12
    # The shift, against the critic of the optimum.
    for seed in range(5):
        u = 0.5 * rand(d, seed=seed)
        moved = {**at, "generator": {**at["generator"], "u": u}}
        gain = game.value - float(game.losses(moved, {}, {})["generator"])
        assert gain == pytest.approx(float(game.shift_gain(u)), abs=1e-13)
        assert (gain > 0) == (s > 1)
    slope = VectorField(game)(at, {}, {}).v["generator"]["W"]
    torch.testing.assert_close(slope, -2 * 0.6 * (s - 1) * torch.eye(d, dtype=F64))


@pytest.mark.parametrize(("s", "eta"), [(2.0, 0.5), (1.2, 0.5), (5.0, 2.0)])
def test_lambda_star_is_where_the_proximal_curvature_changes_sign(s: float, eta: float) -> None:
    """u -> max over D~ of V(I, u; D~) - lambda E |grad D~ - grad D*|^2, maximised by scipy."""
    game = GaussianW2GAN(s, 1, eta)
    (point,) = game.points()
    A0 = float(point.players["critic"]["A"])
    assert game.lambda_star == pytest.approx(s / (4 * eta * (s - 1)))

    def proximal(u: float, lam: float) -> float:
        def minus(critic: np.ndarray) -> float:
            A, b = critic
            if eta <= A:
                return 1e9
            y = b + 2 * eta * u
            value = s**2 * A - (4 * eta**2 + y**2) / (4 * (eta - A)) + eta * (1 + u**2)
            # grad D = 2 A x + b, E x^2 = s^2
            return float(lam * (4 * (A - A0) ** 2 * s**2 + b**2) - value)

        done = minimize(
            minus,
            [A0, 0.0],
            method="Nelder-Mead",
            options={"xatol": 1e-12, "fatol": 1e-16, "maxiter": 4000},
        )
        return -float(done.fun)

    for factor, sign in ((0.8, 1), (1.25, -1)):
        lam = factor * game.lambda_star
        change = proximal(0.1, lam) - proximal(0.0, lam)
        assert math.copysign(1, change) == sign, (factor, change)
    assert GaussianW2GAN(0.5).lambda_star == math.inf


def test_w2gan_projection() -> None:
    wide = {
        "generator": {"W": 3 * rand(3, 3, seed=0), "u": 5 * rand(3, seed=1)},
        "critic": {"A": 4 * rand(3, 3, seed=2), "b": rand(3, seed=3)},
    }
    for s in (2.0, 0.5):
        game = GaussianW2GAN(s, 3, t=0.7)
        there = game.project(wide)
        sigma = torch.linalg.svdvals(there["generator"]["W"])
        limit = sigma.max() if s > 1 else -sigma.min()
        assert float(limit) <= (1 if s > 1 else -1) + 1e-12
        assert float(there["generator"]["u"].norm()) == pytest.approx(0.7)
        A = there["critic"]["A"]
        assert float(torch.linalg.eigvalsh((A + A.mT) / 2).max()) <= game.ceiling + 1e-12
        again = game.project(there)
        torch.testing.assert_close(again, there, rtol=1e-12, atol=1e-12)


def integral(s: float, w: float, u: float, a: float, c: float) -> float:
    def mean(r: float, k: float) -> float:
        return sum(
            quad(lambda z: abs(r * z + k) * norm.pdf(z), low, high, epsabs=1e-13)[0]
            for low, high in ((-12.0, -k / r), (-k / r, 12.0))
        )

    return a * (mean(s, -c) - mean(w, u - c))


def test_wgan_losses_by_quadrature() -> None:
    for s, w, u, a, c in [(2.0, 0.8, 0.3, 0.9, -0.4), (0.5, 1.3, -0.7, -1.0, 0.2)]:
        values = {
            "generator": {"w": torch.tensor(w, dtype=F64), "u": torch.tensor(u, dtype=F64)},
            "critic": {"a": torch.tensor(a, dtype=F64), "c": torch.tensor(c, dtype=F64)},
        }
        losses = GaussianWGAN(s).losses(values, {}, {})
        assert float(losses["generator"]) == pytest.approx(integral(s, w, u, a, c), abs=1e-10)
        assert float(losses["critic"]) == -float(losses["generator"])


@pytest.mark.parametrize("s", [2.0, 0.4])
def test_wgan_best_value_is_the_transport_distance(s: float) -> None:
    game = GaussianWGAN(s)
    q = (np.arange(100_000) + 0.5) / 100_000
    z = norm.ppf(q)
    for w, u in ((1.0, 0.0), (1.0, 0.5)) if s < 1 else ((1.0, 0.0), (0.5, -0.8)):
        wide, shift = torch.tensor(w, dtype=F64), torch.tensor(u, dtype=F64)
        best = float(game.best_value(wide, shift))
        assert best == pytest.approx(wasserstein_distance(s * z, w * z + u), rel=1e-4)
        critic = game.best_critic(wide, shift)
        at = {"generator": {"w": wide, "u": shift}, "critic": critic}
        assert float(game.losses(at, {}, {})["generator"]) == pytest.approx(best, rel=1e-12)


def test_wgan_optimum_and_its_shift() -> None:
    game = GaussianWGAN(2.0)
    (point,) = game.points()
    at = point.players
    assert game.value == pytest.approx(math.sqrt(2 / math.pi))
    assert float(game.losses(at, {}, {})["generator"]) == pytest.approx(game.value, rel=1e-13)
    for u in (0.1, 0.5, 1.0):
        shift = torch.tensor(u, dtype=F64)
        moved = {**at, "generator": {**at["generator"], "u": shift}}
        gain = game.value - float(game.losses(moved, {}, {})["generator"])
        said = math.sqrt(2 / math.pi) * (math.exp(-u * u / 2) - 1) + u * math.erf(u / math.sqrt(2))
        assert gain == pytest.approx(said, abs=1e-13)
        assert float(game.shift_gain(shift)) == pytest.approx(said, abs=1e-13)
        assert gain > 0
        assert float(game.best_value(at["generator"]["w"], shift)) > game.value
    assert game.lambda_star == 0
    assert GaussianWGAN(0.5).lambda_star == math.inf
    assert float(GaussianWGAN(0.5).shift_gain(torch.tensor(0.5, dtype=F64))) < 0


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"GaussianW2GAN\.s must not be 1"):
        GaussianW2GAN(1.0)
    with pytest.raises(ValueError, match=r"GaussianW2GAN\.eta must be positive"):
        GaussianW2GAN(eta=0.0)
    with pytest.raises(ValueError, match=r"GaussianW2GAN\.dim"):
        GaussianW2GAN(dim=0)
    for ceiling in (0.5, 0.1):
        with pytest.raises(ValueError, match=r"GaussianW2GAN\.ceiling must lie in"):
            GaussianW2GAN(2.0, eta=0.5, ceiling=ceiling)
    with pytest.raises(ValueError, match=r"GaussianWGAN\.s must not be 1"):
        GaussianWGAN(1.0)
    with pytest.raises(ValueError, match=r"GaussianWGAN\.t must be positive"):
        GaussianWGAN(t=-1.0)
