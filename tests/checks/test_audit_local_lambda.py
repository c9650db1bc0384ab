"""The check "proximal": the local lambda* against closed forms, and against dense pencils taken another way."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from audit_games import F64, W2, Affine, Balanced, Gaussian, Parabola, Shift, Unit, context
from torch import nn

from equilibrist import GAN, Verdict, WeightClipping, tree
from equilibrist.checks import (
    CHECKS,
    Settings,
    _complement,
    _linear,
    audit_game,
    local_lambda,
)
from equilibrist.checks._schur import ReducedSchur
from equilibrist.checks._second_order import found_draws
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.formulations import W2GAN
from equilibrist.games.gaussian import GaussianW2GAN, GaussianWGAN
from equilibrist.games.quadratic import Quadratic, hidden_minimax
from equilibrist.penalties import R1

EXACT = Settings(tolerance=1e-6, groups=3, group_batches=1, linear_batches=1)
YES, OPEN, NO, UNKNOWN = (
    Verdict.VERIFIED,
    Verdict.NOT_REFUTED,
    Verdict.REFUTED,
    Verdict.UNASSESSED,
)


def exact(game: Any, players: Any = None) -> Any:
    players = game.points()[0].players if players is None else players
    (found,) = local_lambda.proximal(ExactContext(game, players, EXACT))
    return found


def of(b: AuditContext) -> Any:
    (found,) = local_lambda.proximal(b)
    return found


# -- closed forms ----------------------------------------------------------------------------------

GRID = list(itertools.product((0.3, 0.9, 1.01, 1.5, 2.0, 20.0), (1, 2, 4), (0.1, 0.5, 3.0)))


@pytest.mark.parametrize(("s", "dim", "eta"), GRID)
def test_lambda_star_of_the_gaussian_w2gan(s: float, dim: int, eta: float) -> None:
    """s / (4 eta (s - 1)), whatever d; infinite for s < 1. Rotations of W and the antisymmetric part of A are
    flat, and W is held by its wall."""
    found = exact(GaussianW2GAN(s, dim, eta))
    low, high = found.evidence["lambda_star"]
    assert low == high
    assert found.evidence["infinite"] == (s < 1)
    if s > 1:
        assert low == pytest.approx(s / (4 * eta * (s - 1)), rel=1e-9)
        assert found.evidence["nash_curvature"] == pytest.approx(2 * eta * (1 - s), rel=1e-9)
    else:
        assert low == math.inf
    assert found.evidence["stackelberg_curvature"] == pytest.approx(2 * eta, rel=1e-9)
    # In one dimension everything is strict; beyond, flat directions leave it open.
    assert found.verdict is (YES if dim == 1 else OPEN)


def test_lambda_star_is_that_of_the_global_profile() -> None:
    """The witness at lambda*: V_prox of the moved generator, solved to the end, equals V there to second order, and
    lies below it for a larger lambda."""
    s, eta, dim, size = 2.0, 0.5, 2, 1e-3
    game = GaussianW2GAN(s, dim, eta)
    found = exact(game)
    here = game.points()[0].players
    u = found.witness["generator"]["u"]
    answer = found.witness["critic"]
    assert float(u.norm()) == pytest.approx(1.0)

    def prox(lam: float, answered: bool = True) -> float:
        """max over b of V(u, D~) - lambda |b|^2, A answered not at all (it is of second order in u)."""
        moved = {"W": here["generator"]["W"], "u": size * u}
        b = torch.zeros(dim, dtype=F64, requires_grad=True)
        best = torch.optim.LBFGS(
            [b], max_iter=100, tolerance_grad=1e-14, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            best.zero_grad()
            v = game.losses({"generator": moved, "critic": {**here["critic"], "b": b}}, {}, {})
            value = (lam * b.square().sum() - v["generator"]) / size**2
            value.backward()
            return value

        best.step(loss)
        still = float(game.losses(here, {}, {})["generator"])
        value = -float(loss().detach()) - still / size**2
        # The answer of the certificate is the first-order answer to a unit move.
        if lam == 1.0:
            assert float((b.detach() / size - answer["b"]).norm()) < 1e-4
        return value

    assert abs(prox(1.0)) < 1e-4
    assert prox(1.5) < -0.05
    assert prox(0.7) > 0.05


def test_the_wgan_ends() -> None:
    """1-d WGAN: 0 for s > 1 (Theorem 3's hypothesis fails there), infinite for s < 1."""
    found = exact(GaussianWGAN(2.0))
    assert found.evidence["lambda_star"] == [0.0, 0.0]
    assert found.verdict is NO
    assert "Stackelberg at best" in found.summary
    assert found.evidence["stackelberg_curvature"] > 0 > found.evidence["vanishing_curvature"]
    assert found.evidence["answers_that_cost_without_bound"] == 1
    assert abs(float(found.witness["generator"]["u"])) == 1
    assert any("kink" in limit for limit in found.limits)
    found = exact(GaussianWGAN(0.5))
    assert found.evidence["lambda_star"] == [math.inf, math.inf]
    assert found.verdict is YES


@pytest.mark.parametrize("game", [GaussianW2GAN(2.0, 3, 0.7), GaussianWGAN(2.0)])
def test_the_games_norm_is_its_distance(game: Any) -> None:
    """`sobolev` is half the Hessian of `sobolev_distance`, where that is one."""
    players = game.points()[0].players
    part = players["critic"]
    M = game.sobolev(players)

    def distance(w: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = game.sobolev_distance(tree.unflatten(w, {"c": part})["c"], part)
        return moved

    flat = tree.flatten({"c": part})
    rng = torch.Generator().manual_seed(2)
    for i in range(len(flat)):
        if math.isinf(float(M[i, i])):
            step = torch.zeros_like(flat)
            step[i] = 1e-6
            assert float(distance(flat + step)) > 1e-7  # of first order: no Hessian
            continue
        step = torch.where(torch.isfinite(M.diagonal()), torch.randn(len(flat), generator=rng), 0.0)
        step = step.to(F64)
        known = torch.where(torch.isfinite(M), M, 0.0)
        assert float(distance(flat + step)) == pytest.approx(float(step @ known @ step), rel=1e-9)


# -- quadratic games with a norm -------------------------------------------------------------------


class Normed(Quadratic):
    """A quadratic game whose follower has a norm."""

    def __init__(self, A: Any, B: Any, C: Any, M: Any) -> None:
        super().__init__(*(torch.as_tensor(x, dtype=F64) for x in (A, B, C)))
        self.M = torch.as_tensor(M, dtype=F64)

    def sobolev(self, players: Any) -> torch.Tensor:
        return self.M


def one(a: float, b: float, c: float, m: float) -> Normed:
    return Normed([[a]], [[b]], [[c]], [[m]])


@pytest.mark.parametrize(
    ("game", "star", "verdict"),
    [
        (one(-1, 2, 1, 1), 1.5, YES),  # -1 + 4 / (1 + 2 lambda)
        (one(-1, 2, 1, 3), 0.5, YES),
        (one(1, 2, 1, 1), math.inf, YES),
        (one(-1, 2, 1, 0), math.inf, YES),  # a norm that sees nothing: every answer is free
        (one(-5, 2, 1, 1), 0.0, NO),  # not even Stackelberg
        (one(-1, 0, 1, 1), 0.0, NO),
        (one(-1, 2, 0, 1), 2.0, OPEN),  # -1 + 4 / (2 lambda): infinite answers at 0
        (one(1, 2, -1, 1), None, NO),  # the critic does not answer best
        (one(-1e-4, 0, 1, 1), 0.0, OPEN),  # gains less than the tolerance
    ],
)
def test_quadratic_games(game: Normed, star: float | None, verdict: Verdict) -> None:
    found = exact(game)
    assert found.verdict is verdict
    if star is not None:
        assert found.evidence["lambda_star"] == [pytest.approx(star, rel=1e-10)] * 2
    if verdict is NO:
        assert found.witness is not None
        assert found.witness_kind == "direction"
        assert set(found.witness) == ({"x", "y"} if star is not None else {"y"})


def smallest(game: Normed, lam: float) -> float:
    """Smallest eigenvalue of S(lambda), by numpy."""
    A, B, C, M = (x.numpy() for x in (game.A, game.B, game.C, game.M))
    S = A + B @ np.linalg.solve(C + 2 * lam * M, B.T)
    return float(np.linalg.eigvalsh((S + S.T) / 2)[0])


@pytest.mark.parametrize("seed", range(6))
def test_random_quadratic_games(seed: int) -> None:
    """Against bisection on the smallest eigenvalue, M singular."""
    rng = np.random.default_rng(seed)
    n, m = 4, 7
    C, M = (x @ x.T for x in (rng.standard_normal((m, k)) for k in (m, 2 + seed)))
    C, B = C + 0.1 * np.eye(m), rng.standard_normal((n, m))
    turn = rng.standard_normal((n, n))
    A = 0.01 * turn @ turn.T - 0.5 * B @ np.linalg.solve(C, B.T)  # S(0) is positive definite
    found = exact(game := Normed(A, B, C, M))
    low, high = 1e-9, 1e9
    assert smallest(game, low) > 0
    if smallest(game, high) > 0:  # M sees too little of the critic
        assert found.evidence["lambda_star"] == [math.inf, math.inf]
        return
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if smallest(game, middle) > 0 else (low, middle)
    assert found.evidence["lambda_star"][0] == pytest.approx(low, rel=1e-8)
    assert found.verdict is YES


def test_monotone_and_its_ends() -> None:
    rng = torch.Generator().manual_seed(0)
    a, g = torch.randn(3, 3, generator=rng, dtype=F64), torch.randn(5, 3, generator=rng, dtype=F64)
    c, M = (x @ x.mT for x in torch.randn(2, 5, 5, generator=rng, dtype=F64))
    small = ReducedSchur(a + a.mT, g, c, M)
    values = [small.at(lam).value for lam in (0.0, 1e-3, 0.1, 1.0, 30.0, math.inf)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    assert values[-1] == pytest.approx(float(torch.linalg.eigvalsh(a + a.mT)[0]))
    answered = a + a.mT + g.mT @ torch.linalg.solve(c, g)
    assert values[0] == pytest.approx(float(torch.linalg.eigvalsh(answered)[0]))
    shifted = ReducedSchur(
        a + a.mT, g, c - 0.5 * torch.eye(5, dtype=F64), M + torch.eye(5, dtype=F64)
    )
    edge = shifted.admissible
    K = lambda lam: c - 0.5 * torch.eye(5, dtype=F64) + 2 * lam * (M + torch.eye(5, dtype=F64))  # noqa: E731
    assert float(torch.linalg.eigvalsh(K(edge * (1 + 1e-9)))[0]) > -1e-9
    assert float(torch.linalg.eigvalsh(K(0.99 * edge))[0]) < 0 or edge == 0


def test_exact_losses_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with more parameters than are built densely: lambda* at the tolerance, 12 products for 48 parameters."""
    dense = exact(GaussianW2GAN(2.0, 6)).evidence["lambda_star_at_tolerance"]
    for module in (_linear, _complement):
        monkeypatch.setattr(module, "DENSE", 5)
    thrifty = Settings(
        tolerance=1e-6, groups=3, group_batches=1, linear_batches=1, local_products=80
    )
    game = GaussianW2GAN(2.0, 6)
    (found,) = local_lambda.proximal(ExactContext(game, game.points()[0].players, thrifty))
    assert not found.evidence["complete"]
    low, high = found.evidence["lambda_star"]
    assert low * (1 - 1e-6) <= dense <= high * (1 + 1e-6)
    assert high / low < 1.02
    low, high = found.evidence["lambda_star_strict"]
    assert low * (1 - 1e-2) <= 1.0 <= high * (1 + 1e-2)


def test_a_critic_that_moves_refutes_every_lambda_by_its_own_move() -> None:
    away = {"x": {"value": torch.ones(1, dtype=F64)}, "y": {"value": torch.zeros(1, dtype=F64)}}
    found = exact(one(-1, 2, 1, 1), away)
    assert found.verdict is NO
    assert found.witness_kind == "deviation"
    assert set(found.witness) == {"y"}
    assert found.evidence["critic_gain"] == pytest.approx(2 * 0.01 - 0.01**2 / 2)


def test_a_generator_that_moves_leaves_lambda_open() -> None:
    """V = 0.1 t + t w - w^2/2: the critic answers best, t does not rest; the frozen gain excludes every lambda."""
    game = one(0, 1, 1, 1)
    game.a = torch.tensor([0.1], dtype=F64)
    found = exact(game, game_at_zero())
    assert found.verdict is UNKNOWN
    assert found.evidence["generator_gain"] == pytest.approx(1e-3)
    assert "is not at rest" in found.summary


def game_at_zero() -> dict[str, dict[str, torch.Tensor]]:
    return {p: {"value": torch.zeros(1, dtype=F64)} for p in "xy"}


# -- sampled games ---------------------------------------------------------------------------------


class Parabolas(nn.Module):
    """D(x) = sum_i a_i x_i^2 + b_i x_i, and its transform, for the cost eta |x - x'|^2."""

    closed_transform = True

    def __init__(self, scales: list[float], eta: float) -> None:
        super().__init__()
        s = torch.tensor(scales, dtype=F64)
        self.a, self.b = nn.Parameter(eta * (1 - 1 / s)), nn.Parameter(torch.zeros_like(s))

    def forward(self, x: torch.Tensor, eta: float | None = None) -> torch.Tensor:
        if eta is None:
            return (self.a * x.square() + self.b * x).sum(1)
        best = (self.b + 2 * eta * x).square() / (4 * (eta - self.a)) - eta * x.square()
        return best.sum(1)


@dataclass(frozen=True)
class Transport(W2GAN):
    """W2GAN whose yardstick is 1."""

    def scale(self, critic: Any, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return torch.ones((), dtype=real.dtype)


class Stretched(Gaussian):
    """N(0, diag(scales^2))."""

    scales = (1.2, 1.5, 2.0, 3.0)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        spread = np.resize(self.scales, self.dim)
        return torch.from_numpy(spread * rng.standard_normal((n, self.dim))).to(self.dtype)

    def split(self, fractions: Any, rng: Any) -> Any:
        return (self,) * len(fractions)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        return self


def stretched(dim: int, **settings: Any) -> AuditContext:
    """Shifts against parabolas: V_uu, V_ub, V_bb are exact on samples; lambda* is that of the widest coordinate, near
    3 / (4 eta 2)."""
    scales = [float(s) for s in np.resize(Stretched.scales, dim)]
    game = GAN(Shift([0.0] * dim), Parabolas(scales, 0.5), Transport(0.5), latent=dim)
    # A large move, so that the gradients' noise is well below what curvature promises.
    defaults = {"batch": 64, "absolute": 0.05, "move": 0.3, "local_draws": 2}
    return context(game, Stretched(dim), **(defaults | settings))


def reference(b: AuditContext) -> float:
    """lambda* on the draws that directions are found on: V and the slopes written out, torch.func for the derivatives,
    and the smallest positive generalised eigenvalue of (J, -2 diag(0, M))."""
    draws, dim = found_draws(b), b.wide[0]["generator"]["u"].numel()
    eta = 0.5

    def value(x: torch.Tensor) -> torch.Tensor:
        u, a, c = x.split(dim)
        total = torch.zeros((), dtype=F64)
        for draw in draws:
            fake = draw["latent"] + u
            transform = (c + 2 * eta * fake).square() / (4 * (eta - a)) - eta * fake.square()
            real = a * draw["real"].square() + c * draw["real"]
            total = total + (real.sum(1).mean() - transform.sum(1).mean()) / len(draws)
        return total

    players, _ = b.wide
    H = torch.func.jacrev(torch.func.jacrev(value))(tree.flatten(players)).numpy()
    M = np.zeros((3 * dim, 3 * dim))
    for draw in draws:
        for x in draw["real"].numpy():
            J = np.hstack([np.zeros((dim, dim)), 2 * np.diag(x), np.eye(dim)])
            M += J.T @ J / len(draw["real"]) / len(draws)
    sign = np.r_[np.ones(dim), -np.ones(2 * dim)][:, None]
    found = scipy.linalg.eigvals(sign * H, -2 * M)
    real = found[np.isfinite(found)]
    real = real[np.abs(real.imag) < 1e-8 * np.abs(real)].real
    return float(real[(real > 1e-6) & (real < 1e6)].min())


def test_sampled_and_dense() -> None:
    b = stretched(4, local_products=1000)
    found = of(b)
    assert found.evidence["complete"]
    assert found.verdict is OPEN
    low, high = found.evidence["lambda_star_strict"]
    assert low == high == pytest.approx(reference(b), rel=1e-5)
    assert low == pytest.approx(0.75, rel=0.1)  # the formula, up to the samples' noise
    assert 0 < found.evidence["lambda_star_noise"] < 0.5
    assert found.evidence["lambda_star"][0] > low  # a tolerance allows for more


def test_sampled_and_by_products() -> None:
    """More parameters than the budget pays for densely: the interval holds the dense answer."""
    b = stretched(24, local_products=240, absolute=0.2)
    found = of(b)
    truth = reference(b)
    assert not found.evidence["complete"]
    assert found.verdict is OPEN, found.summary
    low, high = found.evidence["lambda_star_strict"]
    assert low <= truth * (1 + 1e-4)
    assert high >= truth * (1 - 1e-4)
    assert high <= 1.1 * truth
    assert low >= 0.7 * truth
    assert found.evidence["products"] <= 240
    # The witness: unit direction of the shift, along one of the widest coordinates.
    u = found.witness["generator"]["u"]
    assert float(u.norm()) == pytest.approx(1.0)
    assert float(u.reshape(-1, 4)[:, 3].square().sum()) > 0.95


def test_with_a_coarse_tolerance_the_strict_answer_is_there_too() -> None:
    """A move of 1% gains nothing that counts: lambda* is infinite at that tolerance, and is not without it."""
    for dim, products in ((4, 1000), (24, 280)):  # dense, by products
        b = stretched(dim, local_products=products, absolute=100.0)
        found = of(b)
        assert found.verdict is OPEN
        assert found.evidence["lambda_star"] == [math.inf, math.inf]
        low, high = found.evidence["lambda_star_strict"]
        assert low * (1 - 1e-3) <= reference(b) <= high * (1 + 1e-3)
        assert high - low < 0.3 * high
        assert "Without that tolerance" in found.summary


def test_too_few_products_say_so() -> None:
    b = stretched(24, local_products=24, absolute=0.2)
    found = of(b)
    assert found.verdict is UNKNOWN
    assert "raise local_products" in found.summary
    assert found.evidence["lambda_star"][0] <= reference(b) * (1 + 1e-6)


@pytest.mark.parametrize("s", [2.0, 0.5])
def test_theorem_one_on_samples(s: float) -> None:
    walls = (WeightClipping(1.0, "generator"),) if s > 1 else ()
    # Remark 1's generator may not shrink either: its scale is no parameter here.
    generator = Affine(1.0, [0.0]) if s > 1 else Shift([0.0])
    game = GAN(generator, Parabola(0.5 * (1 - 1 / s), 0.0), W2(0.5), latent=1, projections=walls)
    found = of(context(game, Gaussian(1, s), batch=512, absolute=0.05, move=1.0))
    low, high = found.evidence["lambda_star"]
    assert found.verdict is OPEN
    if s > 1:
        low, high = found.evidence["lambda_star_strict"]
        assert low == high == pytest.approx(1.0, rel=0.02)
        assert "lambda-proximal equilibrium of V up to lambda* = " in found.summary
    else:
        assert low == math.inf
        assert found.witness is None
        assert "every lambda" in found.summary


class Hill(nn.Module):
    """D(x) = a x^2."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(1, dtype=F64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.a * x.square()).flatten()


def test_no_lambda_on_samples() -> None:
    """V = a (s^2 - 1 - u^2) - 2 gamma s^2 a^2 rests at a = 1, u = 0 where s^2 = 2, gamma = 1/8; V_uu = -2, and
    the critic's one parameter is not coupled to the shift: no answer helps."""
    game = GAN(Shift([0.0]), Hill(), Unit(), latent=Balanced(), penalties=[R1(0.125)])
    found = of(context(game, Gaussian(1, 2**0.5), batch=64, absolute=0.3, move=1.0))
    assert found.verdict is NO
    assert found.evidence["lambda_star"] == [0.0, 0.0]
    assert set(found.witness) == {"generator", "critic"}
    assert found.evidence["curvature_on_score"] == pytest.approx([-2.0] * 3)
    # The same curvature, but nothing to speak of.
    game = GAN(Shift([0.0]), Hill(), Unit(), latent=Balanced(), penalties=[R1(0.125)])
    assert of(context(game, Gaussian(1, 2**0.5), batch=64, absolute=10.0, move=1.0)).verdict is OPEN


def test_a_critic_that_does_not_answer_best() -> None:
    """V_aa = +1 in one of the critic's directions: no lambda, and the critic's own direction is the witness."""

    class Bowl(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(1, dtype=F64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.a.square() * x.square()).flatten()

    game = GAN(Shift([0.0]), Bowl(), Unit(), latent=1)
    found = of(context(game, Gaussian(1, 3.0), batch=64, absolute=1e-6))
    assert found.verdict is NO
    assert set(found.witness) == {"critic"}
    assert "for any lambda" in found.summary


def test_non_finite_products_are_not_assessed() -> None:
    """The critic's own Hessian is finite; V_tt is not: sqrt|x| at 0 under `Balanced` latents and the shift 1."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(30, dtype=F64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.a * x.abs().sqrt()).sum(1) - self.a.square().sum() / 2 * x.square().sum(1)

    game = GAN(Shift([1.0] * 30), Root(), Unit(), latent=Wide())
    b = context(game, Gaussian(30), batch=16, absolute=1e-6, local_products=32)
    found = of(b)
    assert found.verdict is UNKNOWN
    assert "not finite" in found.summary


class Wide:
    """`Balanced` in thirty dimensions."""

    def sample(self, rng: Any, n: int, dtype: torch.dtype, device: Any) -> torch.Tensor:
        return Balanced().sample(rng, n, dtype, device).expand(n, 30).clone()


# -- what has no lambda* -----------------------------------------------------------------------------


def norms() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()


@pytest.mark.parametrize(
    ("critic", "formulation", "why"),
    [
        (norms(), Unit(), "whole batch"),
        ([plain(), plain()], Unit(), "one critic"),
        (plain(), W2GAN(steps=2), "motion"),
    ],
    ids=["batch norm", "two critics", "searched transport"],
)
def test_no_norm_no_answer(critic: Any, formulation: Any, why: str) -> None:
    generator = nn.Sequential(nn.Linear(2, 2)).double()
    found = of(context(GAN(generator, critic, formulation, latent=2), Gaussian(2), batch=16))
    assert found.verdict is UNKNOWN
    assert why in found.summary


def test_games_of_numbers_have_no_critic() -> None:
    found = exact(hidden_minimax())
    assert found.verdict is UNKNOWN
    assert "no critic of samples" in found.summary
    assert "\n" not in found.summary


def test_spectral_norm_determinism_and_nothing_left_behind() -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    game = GAN(generator, plain(), Unit(), latent=2, spectral_norm=True)
    start = game.init()
    before = tree.clone({**start.players, "c": start.constants["critic"]})
    state = torch.get_rng_state()

    def run() -> Any:
        settings = Settings(batch=16, local_products=60)
        found = of(AuditContext(game, start.players, start.constants, Gaussian(2), settings, 5))
        return found.verdict, found.summary, found.evidence

    assert run() == run()
    assert torch.equal(state, torch.get_rng_state())
    after = {**start.players, "c": start.constants["critic"]}
    assert all(
        torch.equal(x, y) for x, y in zip(tree.leaves(before), tree.leaves(after), strict=True)
    )


def test_a_default_check_of_the_audit() -> None:
    assert CHECKS.index("local") < CHECKS.index("proximal") < CHECKS.index("nash")
    game = GaussianW2GAN(3.0, 2, 0.5)
    found = audit_game(game, game.points()[0].players, checks=("proximal",), progress="none")
    assert found["proximal"].evidence["lambda_star"][0] == pytest.approx(0.75, rel=1e-9)
