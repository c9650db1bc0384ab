"""The Gaussian W2GAN's closed forms against sampling points, searches and other formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import minimize

from equilibrist.errors import GameError
from equilibrist.games.gaussian import GaussianW2GAN
from equilibrist.theory import W2Gaussian, _raw
from equilibrist.theory.ball import least_on_ball

SETTINGS = [(1, 2.0, 0.5, 1.0), (2, 1.3, 0.8, 0.7), (3, 3.0, 2.0, 1.5), (2, 0.4, 0.5, 1.0)]


def pair(d: int, eta: float, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    S = rng.standard_normal((d, d))
    A = 0.6 * eta * np.eye(d) - eta * S @ S.T / d
    return rng.standard_normal((d, d)), rng.standard_normal(d), A, eta * rng.standard_normal(d)


@pytest.mark.parametrize(("d", "s", "eta", "t"), SETTINGS)
def test_value_and_semi_norm_against_the_definitions_and_the_game(d, s, eta, t) -> None:
    game = W2Gaussian(d, s, eta, t)
    W, u, A, b = pair(d, eta, 0)
    direct = float(_raw.gan_value(s, eta, *_raw.tensors(W, u, A, b)))
    assert game.value(W, u, A, b) == pytest.approx(direct, rel=1e-12)
    assert game.value(*_raw.tensors(W, u, A, b)) == game.value(W, u, A, b)
    there = {"generator": {"W": W, "u": u}, "critic": {"A": A, "b": b}}
    tensors = {p: {k: torch.tensor(v) for k, v in part.items()} for p, part in there.items()}
    theirs = GaussianW2GAN(s, d, eta, t).losses(tensors, {}, {})["generator"]
    assert game.value(W, u, A, b) == pytest.approx(float(theirs), rel=1e-12)
    # E |grad D|^2 and the c-transform by Monte Carlo, within five standard errors
    rng = np.random.default_rng(1)
    x = s * rng.standard_normal((200_000, d))
    squares = ((2 * x @ A + b) ** 2).sum(1)
    assert abs(game.sobolev(A, b) - squares.mean()) < 5 * squares.std() / math.sqrt(len(x))
    z = rng.standard_normal((200_000, d)) @ W.T + u
    best = np.linalg.solve(2 * (eta * np.eye(d) - A), (2 * eta * z + b).T).T
    real = np.einsum("ni,ij,nj->n", x, A, x) + x @ b
    fake = np.einsum("ni,ij,nj->n", best, A, best) + best @ b - eta * ((z - best) ** 2).sum(1)
    error = math.sqrt((real.var() + fake.var()) / len(x))
    assert abs(game.value(W, u, A, b) - (real.mean() - fake.mean())) < 5 * error
    skew = np.triu(np.ones((d, d)), 1)
    assert game.value(W, u, A + skew - skew.T, b) == pytest.approx(direct, rel=1e-12)


@pytest.mark.parametrize(("d", "s", "eta", "t"), SETTINGS)
def test_best_critic_and_the_transport_cost(d, s, eta, t) -> None:
    game = W2Gaussian(d, s, eta, t)
    W, u, A, b = pair(d, eta, 2)
    best = game.max_value(W, u)
    root = sqrtm(W @ W.T)
    # W_2^2 of two Gaussians (Bures): |mean|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)
    bures = u @ u + s**2 * d + np.trace(W @ W.T) - 2 * s * np.trace(root).real
    assert best == pytest.approx(eta * bures, rel=1e-9)
    assert game.value(W, u, *game.best_critic(W, u)) == pytest.approx(best, rel=1e-11)
    assert _raw.v_prox(s, eta, W, u, A, b, 0.0)[0] == pytest.approx(best, abs=1e-9)
    assert game.v_prox(W, u, A, b, 0.0) == best
    with pytest.raises(GameError, match="W is singular"):
        game.best_critic(0 * W, u)


@pytest.mark.parametrize(("d", "s", "eta", "t"), SETTINGS)
def test_best_generator_against_search_and_samples(d, s, eta, t) -> None:
    game = W2Gaussian(d, s, eta, t)
    for seed in (3, 4):
        W, u, A, b = pair(d, eta, seed)
        if s < 1:
            A = A - (float(np.linalg.eigvalsh(A)[-1]) + 0.1) * np.eye(d)
        found = game.best_generator(A, b)
        assert found.value == pytest.approx(game.value(found.W, found.u, A, b), rel=1e-12)
        assert _raw.least_value(s, eta, t, A, b, 4) == pytest.approx(found.value, abs=1e-7)
        rng = np.random.default_rng(seed)
        for _ in range(200):
            other = _raw.feasible_draw(
                rng.standard_normal((d, d)) * 2, rng.standard_normal(d), s, t
            )
            assert game.value(*other, A, b) >= found.value - 1e-12
        gap = game.duality_gap(W, u, A, b)
        assert gap == pytest.approx(game.max_value(W, u) - found.value)
        assert gap > 0


def test_the_trust_region_problem() -> None:
    rng = np.random.default_rng(0)
    for k in range(60):
        d = 1 + k % 4
        S = rng.standard_normal((d, d))
        Q, g, radius = (S + S.T) / 2, rng.standard_normal(d), float(rng.uniform(0.1, 3))
        if k % 3 == 0:  # the hard case: no slope along the lowest eigenvector
            low = np.linalg.eigh(Q)[1][:, 0]
            g = g - (g @ low) * low
        u, value = least_on_ball(Q, g, radius)
        assert np.linalg.norm(u) <= radius * (1 + 1e-12)
        assert value == pytest.approx(u @ Q @ u + g @ u, abs=1e-12)
        tried = rng.standard_normal((4000, d))
        tried *= (radius * rng.uniform(0, 1, 4000) ** (1 / d) / np.linalg.norm(tried, axis=1))[
            :, None
        ]
        assert value <= (np.einsum("ni,ij,nj->n", tried, Q, tried) + tried @ g).min() + 1e-12
        # necessary and sufficient: 2 (Q + mu I) u = -g with Q + mu I >= 0, mu >= 0
        mu = max(0.0, -float(u @ (2 * Q @ u + g)) / (2 * float(u @ u))) if u.any() else 0.0
        np.testing.assert_allclose(2 * (Q @ u + mu * u), -g, atol=1e-7)
        assert np.linalg.eigvalsh(Q)[0] + mu > -1e-7
    assert least_on_ball(np.eye(2), np.ones(2), 0.0)[1] == 0


@pytest.mark.parametrize(("d", "s", "eta", "t"), SETTINGS)
def test_v_prox_against_a_search_over_critics(d, s, eta, t) -> None:
    game = W2Gaussian(d, s, eta, t)
    for seed, lam in ((5, 0.03), (6, 0.4), (7, 20.0)):
        W, u, A, b = pair(d, eta, seed)
        found = game.v_prox(W, u, A, b, lam)
        assert _raw.v_prox(s, eta, W, u, A, b, lam)[0] == pytest.approx(found, abs=1e-9)
        A_, b_ = game.prox_critic(W, u, A, b, lam)
        own = game.value(W, u, A_, b_) - lam * game.sobolev(A_ - A, b_ - b)
        assert own == pytest.approx(found, rel=1e-12, abs=1e-12)
        assert game.value(W, u, A, b) <= found <= game.max_value(W, u)
    assert game.v_prox(W, u, A, b, math.inf) == game.value(W, u, A, b)
    assert game.v_prox(W, u, A, b, 1e9) == pytest.approx(game.value(W, u, A, b), rel=1e-7)
    assert game.v_prox(W, u, A, b, 1e-11) == pytest.approx(game.max_value(W, u), rel=1e-7)


def test_matrices_that_commute_are_solved_alike_by_roots_and_by_newton(monkeypatch) -> None:
    game = W2Gaussian(3, 1.7, 0.8, 1.0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    W = turn @ np.diag([1.2, 0.3, 0.05]) @ turn.T
    A = turn @ np.diag([0.5, -0.2, 0.1]) @ turn.T
    b, u = 0.7 * turn[:, 0], -0.2 * turn[:, 0]
    by_roots = game.v_prox(W, u, A, b, 0.3), *game.prox_critic(W, u, A, b, 0.3)
    monkeypatch.setattr("equilibrist.theory._inner._common_basis", lambda problem: None)
    by_newton = game.v_prox(W, u, A, b, 0.3), *game.prox_critic(W, u, A, b, 0.3)
    for one, other in zip(by_roots, by_newton, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_v_prox_at_a_singular_generator() -> None:
    game = W2Gaussian(3, 1.5, 0.7, 1.0)
    W, u, A, b = pair(3, 0.7, 9)
    W[:, 0] = 0
    value = game.v_prox(W, u, A, b, 0.02)
    with pytest.raises(GameError, match="not attained"):
        game.prox_critic(W, u, A, b, 0.02)
    near = [game.v_prox(W + h * np.eye(3), u, A, b, 0.02) for h in (1e-5, 1e-7, 1e-9)]
    assert abs(near[2] - value) < 1e-7
    assert abs(near[2] - value) < abs(near[1] - value) < abs(near[0] - value)
    # Where the anchor holds the critic away from eta I, the supremum is attained all the same.
    assert game.prox_critic(W, u, A, b, 50.0)[0].shape == (3, 3)
    assert game.v_prox(0 * W, 0 * u, 0 * A, 0 * b, 1e-9) == pytest.approx(
        0.7 * 3 * 1.5**2, rel=1e-6
    )


@pytest.mark.parametrize(("d", "s", "eta", "t"), SETTINGS)
def test_envelope_formula_by_differences(d, s, eta, t) -> None:
    game = W2Gaussian(d, s, eta, t)
    W, u, A, b = pair(d, eta, 11)
    by_w, by_u = game.v_prox_gradient(W, u, A, b, 0.3)
    h = 1e-6
    for i in range(d):
        e = h * np.eye(d)[i]
        slope = (game.v_prox(W, u + e, A, b, 0.3) - game.v_prox(W, u - e, A, b, 0.3)) / (2 * h)
        assert by_u[i] == pytest.approx(slope, rel=1e-6, abs=1e-7)
        for j in range(d):
            E = np.zeros((d, d))
            E[i, j] = h
            slope = (game.v_prox(W + E, u, A, b, 0.3) - game.v_prox(W - E, u, A, b, 0.3)) / (2 * h)
            assert by_w[i, j] == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("d", "s", "eta", "t"), SETTINGS[:3])
def test_lambda_star_is_the_local_criterion_of_second_derivatives(d, s, eta, t) -> None:
    game = W2Gaussian(d, s, eta, t)
    _, _, A, b = game.optimum()
    assert game.lambda_star == pytest.approx(_raw.lambda_star(s, eta, d, A, b), rel=1e-9)
    assert game.lambda_star > game.theorem_2
    assert game.curvature(game.lambda_star) == pytest.approx(0, abs=1e-12)
    assert game.curvature(math.inf) == pytest.approx(-2 * eta * (s - 1))
    assert game.lambda_star == GaussianW2GAN(s, d, eta, t).lambda_star


@pytest.mark.parametrize("factor", [0.3, 1.1, 1.4, 400.0])
def test_profile_inside_and_beyond_lambda_star(factor) -> None:
    """Against descent on V_prox over (W, u), its inner maximum found by BFGS, from a start that is not the optimum."""
    for d, s, eta, t in ((1, 1.4, 0.7, 0.9), (2, 3.0, 0.5, 0.4)):
        game = W2Gaussian(d, s, eta, t)
        _, _, A, b = game.optimum()
        lam = factor * game.lambda_star
        found = game.optimal_value - _raw.least_v_prox(s, eta, t, A, b, lam, 1)
        assert game.profile(lam) == pytest.approx(found, abs=2e-7)
        u = game.worst_shift(lam) * np.eye(d)[0]
        there = game.v_prox(np.eye(d), u, A, b, lam)
        assert game.optimal_value - there == pytest.approx(game.profile(lam), abs=1e-12)
        assert (game.profile(lam) > 0) == (factor > 1)


def test_profile_where_the_ball_does_not_bind_has_its_formula() -> None:
    game = W2Gaussian(2, 2.0, 0.5, 50.0)
    for lam in (1.01, 1.2, 2.0):
        h = 0.5 - 1 / (4 * lam)
        said = 4 * h + 0.25 / h - 2 + 16 * lam * (h - 0.25) ** 2
        assert game.profile(lam) == pytest.approx(said, rel=1e-10)
        shift = 4 - 0.25 / h**2 + 32 * lam * (h - 0.25)
        assert game.worst_shift(lam) ** 2 == pytest.approx(shift, rel=1e-10)
        assert shift < 2500
    profile = [game.profile(float(lam)) for lam in np.geomspace(0.1, 1e6, 60)]
    assert (np.diff(profile) >= 0).all()
    assert game.profile(math.inf) == game.nash_gain == 0.5 * 2500


@pytest.mark.parametrize("s", [0.6, 2.0])
@pytest.mark.parametrize("a", [-1.0, -0.3, 0.1, 0.4])
def test_least_v_prox_of_isotropic_critics(s, a) -> None:
    game = W2Gaussian(2, s, 0.5, 1.0)
    A, b = a * np.eye(2), np.zeros(2)
    for lam in (0.3, 3.0):
        exact = game.least_v_prox(A, b, lam)
        assert exact.exact
        bent = A + 1e-10 * np.diag([1.0, 0.0])  # not isotropic: bracketed by a search
        low, high = game.least_v_prox(bent, b, lam, starts=2)
        assert high == pytest.approx(exact.lower, abs=1e-7)
        assert low <= exact.lower + 1e-7


def test_proximal_gap() -> None:
    game = W2Gaussian(2, 2.0, 0.5, 1.0)
    W, u, A, b = game.optimum()
    for lam in (0.1, 0.5, 1.0):
        assert game.proximal_gap(W, u, A, b, lam) == pytest.approx((0.0, 0.0), abs=1e-12)
    for lam in (1.5, 10.0):
        assert game.proximal_gap(W, u, A, b, lam) == pytest.approx((game.profile(lam),) * 2)
    assert game.proximal_gap(W, u, A, b, math.inf).lower == pytest.approx(
        game.duality_gap(W, u, A, b)
    )
    assert game.proximal_gap(0.5 * W, u, A, b, 0.5).lower == pytest.approx(0.5 * 2 * (1.5**2 - 1))
    W, u, A, b = pair(2, 0.5, 20)
    low, high = game.proximal_gap(W, u, A, b, 5.0)
    assert 0 < low <= high <= game.duality_gap(W, u, A, b) + 1e-12
    at_0 = game.proximal_gap(W, u, A, b, 0.0)
    assert at_0 == pytest.approx((game.max_value(W, u) - game.optimal_value,) * 2)


@pytest.mark.parametrize(("d", "s", "eta", "t"), [*SETTINGS, (2, 1.2, 0.5, 2.0)])
def test_max_min_value(d, s, eta, t) -> None:
    """Between the generator's least value against one critic, and the critic's largest value against a mixture of
    shifts (2 d of them, with the second moments of the sphere)."""
    game = W2Gaussian(d, s, eta, t)
    A, b = game.max_min_critic()
    assert game.best_generator(A, b).value == pytest.approx(game.max_min_value, abs=1e-12)
    rho = min(t, math.sqrt(d * (s**2 - 1))) if s > 1 else 0.0
    shifts = rho * np.concatenate([np.eye(d), -np.eye(d)])
    rows, columns = np.tril_indices(d)

    def lost(w: np.ndarray) -> float:
        L = np.zeros((d, d))
        L[rows, columns] = w[: len(rows)]
        if abs(np.diag(L)).min() < 1e-3:
            return 1e3
        critic = eta * np.eye(d) - L @ L.T
        return -float(np.mean([game.value(np.eye(d), u, critic, w[len(rows) :]) for u in shifts]))

    begun = np.concatenate([np.sqrt(eta) * np.eye(d)[rows, columns], np.full(d, 0.1)])
    done = minimize(lost, begun, method="BFGS")
    assert -done.fun == pytest.approx(game.max_min_value, abs=1e-7)
    rng = np.random.default_rng(0)
    for seed in range(20):
        _, _, A, b = pair(d, eta, seed)
        if s > 1:
            assert game.best_generator(A, b * rng.uniform()).value <= game.max_min_value + 1e-12
    assert game.max_min_value <= game.optimal_value
    assert (game.max_min_value < game.optimal_value) == (s > 1)


def test_remark_1_and_what_t_0_and_s_1_do() -> None:
    game = W2Gaussian(2, 0.5, 0.5, 1.0)
    assert game.duality_gap(*game.optimum()) == pytest.approx(0, abs=1e-12)
    assert game.lambda_star == math.inf
    assert game.profile(1e6) == game.profile(math.inf) == game.nash_gain == 0
    unit, zero = np.eye(2), np.zeros(2)
    assert game.duality_gap(unit, zero, 0.1 * unit, zero) == math.inf
    assert (
        W2Gaussian(2, 2.0, 0.5, 0.0).lambda_star == math.inf
    )  # no shift is allowed: the pair is Nash
    still = W2Gaussian(2, 2.0, 0.5, 0.0)
    assert still.duality_gap(*still.optimum()) == pytest.approx(0, abs=1e-12)
    same = W2Gaussian(2, 1.0)
    assert same.optimal_value == same.duality_gap(*same.optimum()) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ({"d": 0}, "W2Gaussian.d must be a whole number"),
        ({"d": 1.5}, "W2Gaussian.d must be a whole number"),
        ({"s": 0.0}, "W2Gaussian.s must be positive"),
        ({"s": math.nan}, "W2Gaussian.s must be positive"),
        ({"eta": -1.0}, "W2Gaussian.eta must be positive"),
        ({"eta": math.inf}, "W2Gaussian.eta must be positive"),
        ({"t": -0.1}, "W2Gaussian.t must not be negative"),
    ],
)
def test_bad_numbers(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        W2Gaussian(**make)


def test_bad_arrays() -> None:
    game = W2Gaussian(2)
    W, u, A, b = game.optimum()
    with pytest.raises(ValueError, match="A must lie below eta I"):
        game.value(W, u, 0.5 * np.eye(2), b)
    with pytest.raises(ValueError, match=r"largest eigenvalue is 0\.7"):
        game.best_generator(np.diag([0.7, 0.0]), b)
    for lam in (-1.0, math.nan):
        with pytest.raises(ValueError, match="lam must not be negative"):
            game.v_prox(W, u, A, b, lam)
        with pytest.raises(ValueError, match="lam must not be negative"):
            game.profile(lam)
    with pytest.raises(GameError, match=r"W must have shape \[2, 2\], not \[3, 3\]"):
        game.max_value(np.eye(3), u)
    with pytest.raises(GameError, match="u must be finite"):
        game.max_value(W, [math.nan, 0])
