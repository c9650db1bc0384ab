"""f-divergences against SciPy's maximisation, Lambert's function, quadrature and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import optimize, special
from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.formulations import FGAN, Vanilla
from equilibrist.formulations.divergences import (
    DIVERGENCES,
    KL,
    Divergence,
    Jeffreys,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    VanillaDivergence,
    divergence,
    log_lambert_w_exp,
)

F64 = torch.float64
ALL = [kind() for kind in DIVERGENCES.values()]
each = pytest.mark.parametrize("div", ALL, ids=lambda d: type(d).__name__)
T = torch.logspace(-4, 4, 161, dtype=F64)
SCORES = torch.linspace(-12, 12, 97, dtype=F64)


@each
def test_fenchel_and_young(div: Divergence) -> None:
    """f(t) + f*(u) >= t u, with equality where u = f'(t) and, on this grid, nowhere far from it."""
    u = div.derivative(T)
    tight = div.f(T) + div.conjugate(u) - T * u
    size = 1 + T * u.abs() + div.f(T).abs()
    assert float((tight / size).abs().max()) < 1e-10
    gap = div.f(T)[:, None] + div.conjugate(u)[None, :] - T[:, None] * u[None, :]
    size = size[:, None] + T[:, None] * u.abs()[None, :] + div.conjugate(u).abs()[None, :]
    assert float((gap / size).min()) > -1e-12
    assert float(gap[0, -1]) > 1e-3
    assert float(gap[-1, 0]) > 1e-3


@each
def test_conjugate_is_the_supremum(div: Divergence) -> None:
    for u in div.derivative(torch.logspace(-2, 2, 13, dtype=F64)).tolist():

        def below(log_t: float, u: float = u) -> float:
            t = math.exp(log_t)
            return float(div.f(torch.tensor(t, dtype=F64))) - t * u

        found = optimize.minimize_scalar(below, bounds=(-9, 9), options={"xatol": 1e-10})
        conjugate = float(div.conjugate(torch.tensor(u, dtype=F64)))
        assert conjugate == pytest.approx(-found.fun, rel=1e-9, abs=1e-9)


@each
def test_derivatives_by_autograd(div: Divergence) -> None:
    """f' is the derivative of f, and (f*)' its inverse; f''(1) is the curvature; f(1) = 0."""
    t = torch.logspace(-2, 2, 41, dtype=F64).requires_grad_()
    (slope,) = torch.autograd.grad(div.f(t).sum(), t)
    torch.testing.assert_close(slope, div.derivative(t.detach()), rtol=1e-9, atol=1e-9)
    u = div.derivative(t.detach()).requires_grad_()
    (ratio,) = torch.autograd.grad(div.conjugate(u).sum(), u)
    torch.testing.assert_close(ratio, t.detach(), rtol=1e-8, atol=1e-10)
    one = torch.ones((), dtype=F64, requires_grad=True)
    (curvature,) = torch.autograd.grad(div.derivative(one), one)
    assert float(curvature) == pytest.approx(div.curvature, rel=1e-14)
    at_equality = -math.log(4) if isinstance(div, VanillaDivergence) else 0.0
    assert float(div.f(one.detach())) == pytest.approx(at_equality, abs=1e-15)


def test_pearson_is_flat_below_minus_two() -> None:
    """The supremum over t > 0 stays at f(0) = 1 there; the parabola would rise to 8 at u = -8."""
    u = torch.tensor([-2.0, -3.0, -8.0], dtype=F64)
    torch.testing.assert_close(Pearson().conjugate(u), -torch.ones(3, dtype=F64))
    assert float(Pearson().conjugate(torch.tensor(-1.9, dtype=F64))) > -1


# -- Lambert's function ---------------------------------------------------------------------------


def test_lambert_w_against_scipy() -> None:
    z = torch.linspace(-600, 600, 4001, dtype=F64)
    expected = np.log(special.lambertw(np.exp(z.numpy())).real)
    torch.testing.assert_close(log_lambert_w_exp(z), torch.from_numpy(expected), rtol=1e-14, atol=0)
    extreme = torch.tensor([-1e8, -1e3, 1e3, 1e8, 1e300], dtype=F64)
    found = log_lambert_w_exp(extreme)
    torch.testing.assert_close(found + found.exp(), extreme, rtol=1e-13, atol=0)
    single = log_lambert_w_exp(z.float())
    torch.testing.assert_close(single.double(), torch.from_numpy(expected), rtol=2e-6, atol=2e-6)


def test_lambert_w_has_three_exact_derivatives_also_under_vmap() -> None:
    """l' = 1/(1+w), l'' = -w/(1+w)^3, l''' = w (2w - 1)/(1+w)^5 with w = e^l."""
    z = torch.linspace(-5, 9, 57, dtype=F64)
    w = torch.from_numpy(special.lambertw(np.exp(z.numpy())).real)
    known = [1 / (1 + w), -w / (1 + w) ** 3, w * (2 * w - 1) / (1 + w) ** 5]
    point, value = z.clone().requires_grad_(), None
    value = log_lambert_w_exp(point)
    derivative: Callable[[Tensor], Tensor] = log_lambert_w_exp
    for expected in known:
        (value,) = torch.autograd.grad(value.sum(), point, create_graph=True)
        torch.testing.assert_close(value.detach(), expected, rtol=1e-10, atol=1e-13)
        derivative = torch.func.grad(derivative)
        torch.testing.assert_close(torch.func.vmap(derivative)(z), expected, rtol=1e-10, atol=1e-13)


# -- activations ----------------------------------------------------------------------------------


@each
def test_activation_stays_in_the_domain_and_rises(div: Divergence) -> None:
    u = div.activation(SCORES)
    div.check(u)
    assert bool((u.diff() > 0).all())
    score = SCORES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(div.activation(score).sum(), score)
    assert bool((slope > 0).all())


@each
def test_composed_forms_equal_the_plain_composition(div: Divergence) -> None:
    torch.testing.assert_close(div.real_score(SCORES), div.activation(SCORES), rtol=0, atol=0)
    plain = div.conjugate(div.activation(SCORES))
    torch.testing.assert_close(div.fake_score(SCORES), plain, rtol=1e-9, atol=1e-9)


@each
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_extreme_scores_stay_finite(div: Divergence, dtype: torch.dtype) -> None:
    score = torch.tensor([-80.0, -40.0, 40.0, 80.0], dtype=dtype, requires_grad=True)
    for value in (div.real_score(score), div.fake_score(score)):
        (slope,) = torch.autograd.grad(value.sum(), score, create_graph=True)
        found = [value, slope]
        if slope.requires_grad:
            found += torch.autograd.grad(slope.sum(), score)
        assert all(bool(torch.isfinite(part).all()) for part in found)


def test_the_plain_composition_would_not_stay_finite() -> None:
    """What the composed forms are for."""
    score = torch.tensor(80.0, dtype=F64)
    for div in (JensenShannon(), SquaredHellinger()):
        assert not torch.isfinite(div.conjugate(div.activation(score)))


@pytest.mark.parametrize(
    ("div", "bad", "words"),
    [
        (ReverseKL(), 0.0, "u < 0"),
        (JensenShannon(), 0.7, "u < log 2"),
        (VanillaDivergence(), 0.1, "u < 0"),
        (SquaredHellinger(), 1.0, "u < 1"),
        (Neyman(), 1.5, "u < 1"),
    ],
    ids=lambda v: str(v),
)
def test_check_refuses_what_is_outside(div: Divergence, bad: float, words: str) -> None:
    div.check(torch.tensor([-3.0, div.domain.upper - 1e-6], dtype=F64))
    with pytest.raises(GameError) as caught:
        div.check(torch.tensor([-1.0, bad, -2.0], dtype=F64))
    message = str(caught.value)
    assert div.name in message
    assert f"u = {bad:g}" in message
    assert words in message
    assert "\n" not in message
    with pytest.raises(GameError, match="nan"):
        div.check(torch.tensor([math.nan]))


@pytest.mark.parametrize("div", [KL(), Pearson(), Jeffreys()], ids=repr)
def test_check_takes_everything_where_the_domain_is_everything(div: Divergence) -> None:
    div.check(torch.tensor([-1e30, 0.0, 1e30], dtype=F64))
    assert div.domain.upper == math.inf


# -- the variational value, for Gaussians ---------------------------------------------------------

X = torch.linspace(-16, 17, 60_001, dtype=F64)
PAIRS = [((0.0, 1.0), (0.5, 1.2)), ((0.4, 0.9), (0.0, 1.0)), ((0.0, 1.1), (0.2, 1.0))]


def log_density(x: Tensor, law: tuple[float, float]) -> Tensor:
    mean, sd = law
    return -((x - mean) ** 2) / (2 * sd**2) - math.log(sd * math.sqrt(2 * math.pi))


def integral(values: Tensor) -> float:
    return float(torch.trapezoid(values, X))


def best_value(div: Divergence, p: tuple[float, float], q: tuple[float, float]) -> float:
    """E_P u - E_Q f*(u) at u = f'(p/q)."""
    log_p, log_q = log_density(X, p), log_density(X, q)
    u = div.derivative((log_p - log_q).exp())
    return integral(log_p.exp() * u - log_q.exp() * div.conjugate(u))


def kl(p: tuple[float, float], q: tuple[float, float]) -> float:
    (a, s), (b, r) = p, q
    return math.log(r / s) + (s**2 + (a - b) ** 2) / (2 * r**2) - 0.5


def chi_square(p: tuple[float, float], q: tuple[float, float]) -> float:
    """The integral of p^2 / q, less one; finite where 2 r^2 > s^2."""
    (a, s), (b, r) = p, q
    rest = 2 * r**2 - s**2
    return r**2 / (s * math.sqrt(rest)) * math.exp((a - b) ** 2 / rest) - 1


def hellinger(p: tuple[float, float], q: tuple[float, float]) -> float:
    (a, s), (b, r) = p, q
    total = s**2 + r**2
    return 2 - 2 * math.sqrt(2 * s * r / total) * math.exp(-((a - b) ** 2) / (4 * total))


def two_js(p: tuple[float, float], q: tuple[float, float]) -> float:
    log_p, log_q = log_density(X, p), log_density(X, q)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    return integral(log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle))


CLOSED: dict[type[Divergence], Callable[[tuple[float, float], tuple[float, float]], float]] = {
    KL: kl,
    ReverseKL: lambda p, q: kl(q, p),
    JensenShannon: two_js,
    VanillaDivergence: lambda p, q: two_js(p, q) - math.log(4),
    Pearson: chi_square,
    Neyman: lambda p, q: chi_square(q, p),
    SquaredHellinger: hellinger,
    Jeffreys: lambda p, q: kl(p, q) + kl(q, p),
}


@each
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_best_value_is_the_divergence_in_the_stated_direction(
    div: Divergence, p: tuple[float, float], q: tuple[float, float]
) -> None:
    assert best_value(div, p, q) == pytest.approx(CLOSED[type(div)](p, q), abs=1e-9)


@pytest.mark.parametrize("div", [KL(), ReverseKL(), Pearson(), Neyman()], ids=repr)
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_the_other_direction_is_told_apart(
    div: Divergence, p: tuple[float, float], q: tuple[float, float]
) -> None:
    assert abs(best_value(div, p, q) - CLOSED[type(div)](q, p)) > 3e-3


@each
def test_no_other_critic_is_better(div: Divergence) -> None:
    p, q = PAIRS[0]
    log_p, log_q = log_density(X, p), log_density(X, q)
    best = best_value(div, p, q)

    def value(score: Tensor) -> float:
        return integral(log_p.exp() * div.real_score(score) - log_q.exp() * div.fake_score(score))

    for slope in (0.0, 0.3, 1.0):
        for shift in (-0.5, 0.0, 0.7):
            assert value(slope * (log_p - log_q) + shift) <= best + 1e-10
    # The class of scores reaches it: invert the activation by bisection.
    u = div.derivative((log_p - log_q).exp())
    low, high = torch.full_like(X, -1e18), torch.full_like(X, 1e18)
    for _ in range(140):
        middle = (low + high) / 2
        under = div.activation(middle) < u
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    inner = X.abs() < 14  # further out both densities vanish and the scores do not matter
    assert value(torch.where(inner, low, 0 * low)) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("s", [1.3, 0.8])
@pytest.mark.parametrize("t", [0.5, 1.0])
def test_theorem_1s_values_for_kl_and_reverse_kl(s: float, t: float) -> None:
    """SCIENCE of the analytic game, d = 1: V* at G = N(0, 1), and what the shift t gains against D*."""
    p, q = (0.0, s), (0.0, 1.0)
    log_ratio = log_density(X, p) - log_density(X, q)
    known = {
        KL(): ((s**2 - 1 - math.log(s**2)) / 2, math.expm1((s**2 - 1) * t**2 / 2)),
        ReverseKL(): ((1 / s**2 - 1 + math.log(s**2)) / 2, (1 - 1 / s**2) * t**2 / 2),
    }
    for div, (value, gain) in known.items():
        assert best_value(div, p, q) == pytest.approx(value, abs=1e-10)
        paid = div.conjugate(div.derivative(log_ratio.exp()))
        shifted, at_rest = (log_density(X, law).exp() for law in ((t, 1.0), q))
        assert integral((shifted - at_rest) * paid) == pytest.approx(gain, abs=1e-9)


# -- FGAN -----------------------------------------------------------------------------------------


class Plain:
    samplewise = True

    def __call__(self, x: Tensor) -> Tensor:
        return x


REAL, FAKE = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.tensor([0.3, -1.1], dtype=F64)


@each
def test_losses_by_definition(div: Divergence) -> None:
    u, w = div.activation(REAL), div.activation(FAKE)
    value = float(u.mean() - div.conjugate(w).mean())
    for saturating, own in ((True, value), (False, -float(w.mean()))):
        losses = FGAN(div, saturating).losses(Plain(), REAL, FAKE)
        assert float(losses["critic"]) == pytest.approx(-value, rel=1e-12)
        assert float(losses["generator"]) == pytest.approx(own, rel=1e-12)


@pytest.mark.parametrize("saturating", [True, False])
def test_vanilla_divergence_is_the_vanilla_gan(saturating: bool) -> None:
    ours = FGAN("vanilla", saturating).losses(Plain(), REAL, FAKE)
    theirs = Vanilla(saturating).losses(Plain(), REAL, FAKE)
    for player in theirs:
        assert float(ours[player]) == pytest.approx(float(theirs[player]), rel=1e-14)


def test_names() -> None:
    for name, kind in DIVERGENCES.items():
        assert FGAN(name) == FGAN(kind())
        assert isinstance(FGAN(name).divergence, kind)
        assert FGAN(name) != FGAN(name, saturating=False)
    assert isinstance(divergence("Reverse-KL"), ReverseKL)
    assert repr(FGAN("kl")) == "FGAN(divergence=KL(), saturating=True)"
    assert hash(FGAN("kl")) == hash(FGAN(KL()))


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("person", "did you mean pearson"),
        ("xyzzy", "choose from kl, "),
        (KL, "FGAN(KL())"),
        (3, "int"),
    ],
)
def test_unknown_divergences(given: object, hint: str) -> None:
    with pytest.raises(GameError) as caught:
        FGAN(given)  # type: ignore[arg-type]
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@each
def test_words_units_and_scales(div: Divergence) -> None:
    formulation = FGAN(div)
    assert div.direction in formulation.formula
    assert div.name in str(formulation)
    logarithmic = isinstance(div, KL | ReverseKL | JensenShannon | VanillaDivergence | Jeffreys)
    assert formulation.unit == ("nats" if logarithmic else "divergence units")
    scale = formulation.scale(Plain(), REAL, FAKE)
    assert scale.shape == ()
    assert float(scale) == (1.0 if logarithmic else div.curvature)
    # For a small shift of Q a divergence is curvature times KL: the unit's meaning.
    p, q = (0.0, 1.0), (0.01, 1.0)
    small = best_value(div, p, q) - float(div.f(torch.ones((), dtype=F64)))
    assert small == pytest.approx(div.curvature * kl(p, q), rel=1e-3)
