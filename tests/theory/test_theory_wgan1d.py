"""The one-dimensional Gaussian WGAN's closed forms against quadrature, linear programmes and searches."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from equilibrist.errors import GameError
from equilibrist.games.gaussian import GaussianWGAN
from equilibrist.theory import WGaussian1d, _raw
from equilibrist.theory.wgan1d import mean_modulus

PAIRS = [(0.7, 0.3, 0.8, -0.4), (1.0, -0.6, -1.0, 0.2), (1.3, 0.9, 1.0, 0.0)]


@pytest.mark.parametrize("s", [2.0, 0.6])
@pytest.mark.parametrize(("w", "u", "a", "c"), PAIRS)
def test_values_by_quadrature(s, w, u, a, c) -> None:
    game = WGaussian1d(s, 1.0)
    said = a * (_raw.modulus(s, -c) - _raw.modulus(w, u - c))
    assert game.value(w, u, a, c) == pytest.approx(said, abs=1e-11)
    assert game.max_value(w, u) == pytest.approx(_raw.transport(s, w, u), abs=1e-9)
    assert game.value(w, u, *game.best_critic(w, u)) == pytest.approx(
        game.max_value(w, u), abs=1e-12
    )
    assert game.optimal_value == GaussianWGAN(s).value
    assert mean_modulus(0.0, -0.4) == 0.4 == _raw.modulus(0.0, -0.4)
    with pytest.raises(GameError, match="best critic is affine"):
        game.best_critic(-s, u)


@pytest.mark.parametrize("s", [2.0, 0.6])
@pytest.mark.parametrize(("a", "c"), [(1.0, 0.3), (0.4, -2.0), (-0.7, 0.5), (-1.0, 3.0)])
def test_best_generators_on_a_grid(s, a, c) -> None:
    game = WGaussian1d(s, 1.0)
    w, u, value = game.best_generator(a, c)
    if s < 1 and a > 0:
        assert value == -math.inf
        assert game.duality_gap(1.0, 0.0, a, c) == math.inf
        return
    assert abs(u) <= 1
    assert (w >= 1) if s < 1 else (0 <= w <= 1)
    assert game.value(w, u, a, c) == value
    widths = np.linspace(1, 5, 9) if s < 1 else np.linspace(0, 1, 9)
    grid = [game.value(float(w), float(u), a, c) for w in widths for u in np.linspace(-1, 1, 41)]
    assert value <= min(grid) + 1e-12
    assert min(grid) - value < 2e-3
    assert game.duality_gap(1.0, 0.2, a, c) == pytest.approx(game.max_value(1.0, 0.2) - value)


def test_deviation_and_remark_1() -> None:
    game = WGaussian1d(2.0, 1.0)
    assert game.nash_gain == pytest.approx(
        _raw.modulus(1.0, 1.0) - math.sqrt(2 / math.pi), abs=1e-12
    )
    assert game.duality_gap(*game.optimum) == pytest.approx(game.nash_gain)
    assert game.lambda_star == 0
    low = WGaussian1d(0.5, 1.0)
    assert low.duality_gap(*low.optimum) == pytest.approx(0, abs=1e-15)
    assert low.shift_gain(0.5) == -game.shift_gain(0.5) < 0
    assert low.lambda_star == WGaussian1d(2.0, 0.0).lambda_star == math.inf
    assert low.nash_gain == low.profile(10.0) == low.small_lambda(1.0) == 0
    assert WGaussian1d(1.0).optimal_value == WGaussian1d(1.0).shift_gain(1.0) == 0


def by_slopes(
    s: float, w: float, u: float, a: float, c: float, lam: float, cells: int = 1200
) -> float:
    """V_prox over critics with one slope a cell, |slope| <= 1: a sum of parabolas, one in each slope."""
    edges = c + np.linspace(-9 * s - 5, 9 * s + 5, cells + 1)

    def upto(
        x: np.ndarray, r: float, k: float
    ) -> np.ndarray:  # the integral of the distribution function
        z = (x - k) / r
        return (x - k) * norm.cdf(z) + r * norm.pdf(z)

    drift = np.diff(upto(edges, w, u) - upto(edges, s, 0.0))
    mass = np.diff(norm.cdf(edges / s))
    held = a * np.sign((edges[1:] + edges[:-1]) / 2 - c)
    weights = np.maximum(mass, 1e-12)

    g = np.clip(held + drift / (2 * lam * weights), -1, 1)  # each cell's own parabola
    return float(g @ drift - lam * weights @ (g - held) ** 2)


@pytest.mark.parametrize("s", [2.0, 0.6])
@pytest.mark.parametrize(("w", "u", "a", "c"), PAIRS)
def test_v_prox_against_a_search_over_slopes(s, w, u, a, c) -> None:
    game = WGaussian1d(s, 1.0)
    for lam in (0.1, 1.0):
        found = game.v_prox(w, u, a, c, lam)
        assert found == pytest.approx(by_slopes(s, w, u, a, c, lam), abs=3e-4)
        assert game.value(w, u, a, c) - 1e-12 <= found <= game.max_value(w, u) + 1e-12
    assert game.v_prox(w, u, a, c, 0.0) == game.max_value(w, u)
    assert game.v_prox(w, u, a, c, math.inf) == game.value(w, u, a, c)
    assert game.v_prox(w, u, a, c, 1e-7) == pytest.approx(game.max_value(w, u), abs=1e-5)
    if s > w:  # elsewhere slopes stay free for long, where the data have almost no mass
        assert game.v_prox(w, u, a, c, 1e7) == pytest.approx(game.value(w, u, a, c), abs=1e-5)
    h = 1e-5
    by_w, by_u = game.v_prox_gradient(w, u, a, c, 0.4)
    ends = [game.v_prox(w + k * h, u, a, c, 0.4) for k in (1, -1)]
    assert by_w == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)
    ends = [game.v_prox(w, u + k * h, a, c, 0.4) for k in (1, -1)]
    assert by_u == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)


@pytest.mark.parametrize("s", [1.2, 2.0, 5.0])
def test_the_profile_is_positive_and_quadratic_for_small_lambda(s) -> None:
    game = WGaussian1d(s, 1.0)
    for lam in (1e-3, 1e-2):
        assert game.profile(lam) == pytest.approx(game.small_lambda(lam), rel=3 * lam + 2e-4)
    profile = [game.profile(lam) for lam in (0.0, 1e-3, 0.1, 1.0, 10.0, 1e4, math.inf)]
    assert (np.diff(profile) > 0).all()
    assert profile[0] == 0
    assert profile[-1] == game.nash_gain
    # on a grid of generators nothing is lower
    least = game.least_v_prox(0.3)
    for w in (1.0, 0.9, 0.5):
        for u in np.linspace(0, 1, 11):
            assert game.v_prox(w, float(u), 1.0, 0.0, 0.3) >= least.value - 1e-10


def test_max_min_against_a_linear_programme() -> None:
    game = WGaussian1d(2.0, 1.0)
    assert game.max_min_value == pytest.approx(_raw.max_min_wgan(2.0, 1.0), abs=1e-4)
    assert game.max_min_value < game.optimal_value
    assert WGaussian1d(2.0, 1.2).max_min_value is None  # 1.44 > 2 log 2
    assert WGaussian1d(0.5, 3.0).max_min_value == WGaussian1d(0.5).optimal_value


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match=r"WGaussian1d\.s must be positive"):
        WGaussian1d(0.0)
    with pytest.raises(ValueError, match=r"WGaussian1d\.t must not be negative"):
        WGaussian1d(2.0, -1.0)
    game = WGaussian1d()
    with pytest.raises(ValueError, match="a must lie between -1 and 1"):
        game.value(1.0, 0.0, 1.5, 0.0)
    with pytest.raises(ValueError, match="lam must not be negative"):
        game.v_prox(1.0, 0.0, 1.0, 0.0, -0.1)
    with pytest.raises(ValueError, match="lam must be positive and finite"):
        game.v_prox_gradient(1.0, 0.0, 1.0, 0.0, 0.0)
    with pytest.raises(GameError, match="w must not be 0"):
        game.v_prox_gradient(0.0, 0.0, 1.0, 0.0, 1.0)


# -- lambda at a point ---------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [1.5, 4.0])
def test_lambda_at_the_optimum_is_where_the_profile_reaches_the_tolerance(s) -> None:
    game = WGaussian1d(s, 1.0)
    for tolerance in (1e-8, 1e-5):
        found = game.lambda_at(*game.optimum, tolerance=tolerance)
        assert found == pytest.approx(math.sqrt(tolerance / game.small_lambda(1.0)), rel=5e-3)
        assert game.profile(found) == pytest.approx(tolerance, rel=1e-4)
    above = 1.01 * game.nash_gain
    assert game.lambda_at(*game.optimum, tolerance=above) == math.inf
    assert game.lambda_at(-1.0, 0.0, 1.0, 0.0, 1e-5) == game.lambda_at(1.0, 0.0, 1.0, 0.0, 1e-5)


def test_lambda_is_infinite_at_a_nash_equilibrium() -> None:
    assert WGaussian1d(0.5, 1.0).lambda_at(1.0, 0.0, -1.0, 0.0) == math.inf
    assert WGaussian1d(2.0, 0.0).lambda_at(1.0, 0.0, 1.0, 0.0) == math.inf


@pytest.mark.parametrize("a", [0.2, 0.5])
def test_lambda_where_the_laws_agree(a) -> None:
    """s = 1: every critic answers best. Against D = a |x| the shift u gains a u^2 / sqrt(2 pi) at second order, and
    the answer D~' = D' - u / (2 lam) takes u^2 / (4 lam) back: lambda = sqrt(pi / 2) / (2 a)."""
    found = [WGaussian1d(1.0, 1.0).lambda_at(1.0, 0.0, a, 0.0, tol) for tol in (1e-4, 1e-6)]
    limit = math.sqrt(math.pi / 2) / (2 * a)
    assert limit < found[1] < found[0]
    assert found[1] == pytest.approx(limit, rel=0.01)


def test_lambda_by_a_grid_of_generators_and_slopes() -> None:
    """At a point that is no optimum: just below lambda no generator of a grid gains more than the tolerance, just
    above one does, V_prox by a search of its own over slopes."""
    game, point, tolerance = WGaussian1d(1.0, 0.5), (0.98, 0.02, 0.6, 0.4), 0.05
    found = game.lambda_at(*point, tolerance=tolerance)
    assert found is not None

    def gain(w: float, u: float, lam: float) -> float:
        return game.value(*point) - by_slopes(1.0, w, u, *point[2:], lam, cells=200)

    shifts = (-0.5, -0.37, -0.2, 0.2, 0.5)
    assert max(gain(w, u, 0.8 * found) for w in (0.7, 1.0) for u in shifts) < tolerance
    assert gain(1.0, -0.37, 1.25 * found) > tolerance


def test_there_is_no_lambda_where_the_critic_gains() -> None:
    game = WGaussian1d(2.0, 1.0)
    assert game.lambda_at(1.0, 0.0, 0.5, 0.0) is None
    assert game.lambda_at(1.0, 0.2, *game.best_critic(1.0, 0.2)) is None  # the generator moves back
    slack = game.max_value(1.0, 0.0) - game.value(1.0, 0.0, 0.9, 0.0)
    assert game.lambda_at(1.0, 0.0, 0.9, 0.0, 0.99 * slack) is None
    assert game.lambda_at(1.0, 0.0, 0.9, 0.0, 1.01 * slack) is not None


def test_wrong_points_have_no_lambda() -> None:
    game = WGaussian1d(2.0, 1.0)
    with pytest.raises(ValueError, match=r"w=1\.5, u=0\.0 is not feasible: take \|w\| at most 1"):
        game.lambda_at(1.5, 0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"at least 1 and \|u\| at most 1"):
        WGaussian1d(0.5, 1.0).lambda_at(0.5, 0.0, -1.0, 0.0)
    with pytest.raises(ValueError, match="is not feasible"):
        game.lambda_at(1.0, math.nan, 1.0, 0.0)
    with pytest.raises(ValueError, match="a must lie between -1 and 1"):
        game.lambda_at(1.0, 0.0, 2.0, 0.0)
    with pytest.raises(ValueError, match=r"lambda_at\.tolerance must be positive"):
        game.lambda_at(1.0, 0.0, 1.0, 0.0, tolerance=0.0)
