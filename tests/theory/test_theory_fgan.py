"""Closed forms of the Gaussian f-GANs against quadrature, samples and the library's divergences."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from equilibrist.errors import GameError
from equilibrist.formulations.divergences import divergence
from equilibrist.theory import FGaussian
from equilibrist.theory._raw_f import f_values
from equilibrist.theory.fgan import NAMES, condition


def of(name: str, what: str, t: np.ndarray) -> np.ndarray:
    return getattr(divergence(name), what)(torch.tensor(np.asarray(t))).numpy()


def grid(name: str, n: int) -> np.ndarray:
    """Wide enough for the integrands; where p/q rounds D* to the edge of dom f*, no wider."""
    reach = 18 if name in ("pearson", "neyman") else 8.5
    return np.linspace(-reach, reach, n)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("d", "s"), [(1, 1.3), (1, 3.0), (3, 2.0), (2, 0.8)])
def test_values_and_gains_by_quadrature_of_the_definition(name, d, s) -> None:
    game = FGaussian(name, d, s, 0.7)
    if not game.finite:
        assert (name, s) in {("pearson", 3.0), ("pearson", 2.0)}
        assert game.optimal_value == math.inf
        with pytest.raises(GameError, match="infinite for every feasible generator"):
            game.shift_gain(0.5)
        return
    earned, paid, moved = f_values(name, d, s, 0.7)
    assert game.optimal_value == pytest.approx(earned - paid, rel=1e-8, abs=1e-10)
    assert game.shift_gain(0.7) == pytest.approx(moved - paid, rel=1e-7, abs=1e-9)
    assert game.nash_gain == (game.shift_gain(0.7) if s > 1 else 0)
    assert (game.shift_gain(0.7) > 0) == (s > 1)
    assert game.shift_gain(0.0) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_value_by_the_librarys_own_divergence_and_the_gain_by_samples(name) -> None:
    s = 1.25
    game = FGaussian(name, 1, s, 0.5)

    def integrand(x: float) -> float:
        p, q = norm.pdf(x, scale=s), norm.pdf(x)
        return float(q * of(name, "f", np.array(p / q)))

    found, _ = quad(integrand, -12, 12, epsabs=1e-12, limit=300)
    assert game.optimal_value == pytest.approx(found, abs=1e-9)
    rng = np.random.default_rng(0)
    z = rng.standard_normal(400_000)
    paid = [
        of(name, "conjugate", of(name, "derivative", np.exp(game.log_ratio(x))))
        for x in (z, z + 0.5)
    ]
    change = paid[1] - paid[0]
    error = change.std() / math.sqrt(len(z))
    assert abs(change.mean() - game.shift_gain(0.5)) < 5 * error
    assert change.mean() > 5 * error


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", [1.25, 0.8])
def test_the_optimum_is_least_over_feasible_generators_and_no_generator_beats_the_gain(
    name, s
) -> None:
    game = FGaussian(name, 1, s, 0.6)
    x = grid(name, 20001)
    p = norm.pdf(x, scale=s)
    r = np.exp(game.log_ratio(x))
    paid = of(name, "conjugate", of(name, "derivative", r))
    base = np.trapezoid(paid * norm.pdf(x), x)
    for w in (1.0, 0.95, 0.8) if s > 1 else (1.0, 1.03, 1.1):
        for u in (0.0, 0.2, -0.6):
            q = norm.pdf(x, loc=u, scale=w)
            value = np.trapezoid(
                q * of(name, "f", np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), x
            )
            assert value >= game.optimal_value - 1e-8
            assert np.trapezoid(paid * q, x) - base <= game.nash_gain + 1e-8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("d", "s", "t"), [(1, 1.3, 0.5), (3, 1.3, 1.0)])
def test_max_min_value_is_a_saddle_with_the_mixture_of_shifts(name, d, s, t) -> None:
    game = FGaussian(name, d, s, t)
    below = game.max_min_value
    assert below is not None
    assert below < game.optimal_value
    assert FGaussian(name, d, s, 0.0).max_min_value == pytest.approx(game.optimal_value, abs=1e-9)
    if d > 1:
        return
    x = grid(name, 28001)
    p = norm.pdf(x, scale=s)
    mixture = (norm.pdf(x, loc=t) + norm.pdf(x, loc=-t)) / 2
    D = of(name, "derivative", p / mixture)
    paid = of(name, "conjugate", D)
    assert np.trapezoid(D * p - paid * mixture, x) == pytest.approx(below, abs=1e-8)
    for w in (1.0, 0.7, 0.3):
        for u in (0.0, t / 2, t, -t):
            value = np.trapezoid(D * p - paid * norm.pdf(x, loc=u, scale=w), x)
            assert value >= below - 1e-8


def test_the_mixture_of_shifts_in_three_dimensions_by_samples() -> None:
    game = FGaussian("kl", 3, 1.3, 1.0)
    rng = np.random.default_rng(0)
    x = 1.3 * rng.standard_normal((8_000, 3))
    u = rng.standard_normal((500, 3))
    u /= np.linalg.norm(u, axis=1)[:, None]
    u = np.concatenate([u, -u])
    log_q = -(x**2).sum(1) / 2 - 0.5 + np.log(np.exp(x @ u.T).mean(1))
    log_p = -(x**2).sum(1) / (2 * 1.69) - 3 * math.log(1.3)
    terms = log_p - log_q
    assert abs(terms.mean() - game.max_min_value) < 5 * terms.std() / math.sqrt(len(x)) + 5e-3


def test_no_closed_form_where_the_ratio_does_not_rise() -> None:
    assert FGaussian("kl", 1, 1.3, 1.0).max_min_value is None
    assert FGaussian("kl", 1, 0.8, 1.0).max_min_value == FGaussian("kl", 1, 0.8).optimal_value
    assert FGaussian("pearson", 1, 2.0, 0.5).max_min_value == math.inf
    assert FGaussian("neyman", 1, 0.5, 0.5).max_min_value == math.inf
    assert not FGaussian("neyman", 1, 0.5).finite


def test_theorem_1s_condition() -> None:
    falls = {name for name in NAMES if not condition(name)[0]}
    reverse = {name for name in NAMES if not condition(name, reverse=True)[0]}
    assert (falls, reverse) == ({"neyman"}, {"pearson"})
    said = {
        "kl": lambda t: t,
        "reverse_kl": np.ones_like,
        "jensen_shannon": lambda t: t / (1 + t),
        "vanilla": lambda t: t / (1 + t),
        "pearson": lambda t: 2 * t**2,
        "neyman": lambda t: 2 / t,
        "squared_hellinger": lambda t: np.sqrt(t) / 2,
        "jeffreys": lambda t: 1 + t,
    }
    for name in NAMES:
        _, t, values = condition(name)
        np.testing.assert_allclose(values, said[name](t), rtol=1e-9)


# f*' and f*'' of three conjugates, and f*
CONJUGATES = {
    "kl": (lambda u: np.exp(u - 1), lambda u: np.exp(u - 1), lambda u: np.exp(u - 1)),
    "reverse_kl": (lambda u: -1 / u, lambda u: u**-2, lambda u: -1 - np.log(-u)),
    "jensen_shannon": (
        lambda u: np.exp(u) / (2 - np.exp(u)),
        lambda u: 2 * np.exp(u) / (2 - np.exp(u)) ** 2,
        lambda u: -np.log(2 - np.exp(u)),
    ),
}


def v_prox_on_a_grid(name: str, s: float, u: float, lam: float) -> float:
    """max over D~ at 1201 points of E_P D~ - E_Q f*(D~) - lam E_P (D~' - D*')^2, by Newton's method."""
    first, second, conjugate = CONJUGATES[name]
    x, h = np.linspace(-7, 7, 1201, retstep=True)
    p, q = h * norm.pdf(x, scale=s), h * norm.pdf(x, loc=u)
    anchor = of(name, "derivative", np.exp(FGaussian(name, 1, s).log_ratio(x)))
    between = 2 * lam * norm.pdf((x[1:] + x[:-1]) / 2, scale=s) / h
    pull = (
        np.diag(np.append(between, 0) + np.append(0, between))
        - np.diag(between, 1)
        - np.diag(between, -1)
    )

    def value(D: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):
            found = p @ D - q @ conjugate(D) - (D - anchor) @ pull @ (D - anchor) / 2
        return found if np.isfinite(found) else -math.inf

    D = anchor.copy()
    for _ in range(60):
        slope = p - q * first(D) - pull @ (D - anchor)
        move = np.linalg.solve(np.diag(q * second(D)) + pull, slope)
        size = 1.0
        while value(D + size * move) < value(D) and size > 1e-8:
            size /= 2
        D = D + size * move
        if slope @ move < 1e-18:
            break
    return value(D)


@pytest.mark.parametrize("name", list(CONJUGATES))
def test_curvature_of_v_prox_against_its_maximum_over_critics_on_a_grid(name) -> None:
    game = FGaussian(name, 1, 1.4, 1.0)
    star = game.local_lambda_star
    for lam in (0.4 * star, 1.8 * star):
        gained = v_prox_on_a_grid(name, 1.4, 0.04, lam) - v_prox_on_a_grid(name, 1.4, 0.0, lam)
        assert game.curvature(lam) == pytest.approx(2 * gained / 0.04**2, rel=0.02, abs=2e-3)
        assert (gained > 0) == (lam < star)
    assert game.curvature(star) == pytest.approx(0, abs=1e-8)
    h = 1e-3
    assert game.curvature(math.inf) == pytest.approx(-2 * game.shift_gain(h) / h**2, rel=1e-4)


@pytest.mark.parametrize(("d", "s"), [(1, 1.3), (2, 2.0), (4, 3.0)])
def test_lambda_star_of_kl(d, s) -> None:
    game = FGaussian("kl", d, s, 1.0)
    assert game.lambda_star == pytest.approx(s**2 / (2 * (s**2 - 1)))
    assert game.local_lambda_star == pytest.approx(game.lambda_star, rel=1e-4)
    if d == 1 and s < 1.5:  # globally: no shift and no narrower generator below, a shift beyond
        best = v_prox_on_a_grid("kl", s, 0.0, game.lambda_star)
        for u in (0.1, 0.4, 0.8):
            assert v_prox_on_a_grid("kl", s, u, 0.99 * game.lambda_star) > best
        assert v_prox_on_a_grid("kl", s, 0.05, 1.1 * game.lambda_star) < best
    assert (
        FGaussian("kl", d, 0.7).lambda_star == FGaussian("kl", d, 0.7).local_lambda_star == math.inf
    )
    assert FGaussian("kl", d, s, 0.0).lambda_star == math.inf
    assert FGaussian("jeffreys", d, s).lambda_star is None
    with pytest.raises(ValueError, match="lam must not be negative"):
        game.curvature(-1.0)
    with pytest.raises(GameError, match="too near to where it becomes infinite"):
        _ = FGaussian("pearson", 3, 1.41).local_lambda_star
    with pytest.raises(GameError, match="Pearson is infinite"):
        FGaussian("pearson", d, 3.0).curvature(1.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ({"d": 0}, "FGaussian.d must be a whole number"),
        ({"s": -1.0}, "FGaussian.s must be positive"),
        ({"s": 1.0}, "FGaussian.s must not be 1"),
        ({"t": -1.0}, "FGaussian.t must not be negative"),
    ],
)
def test_bad_numbers(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        FGaussian(**make)
    with pytest.raises(ValueError, match="rho must not be negative"):
        FGaussian("kl").shift_gain(-1.0)
    with pytest.raises(GameError, match="did you mean kl"):
        FGaussian("kll")
    assert FGaussian("Reverse KL").name == "reverse_kl"
