"""Hinge, least squares and relativistic pairing: losses by hand, known optima, bad arguments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.formulations import Hinge, LeastSquares, Relativistic

F64 = torch.float64
REAL = torch.tensor([1.5, -2.0, 0.5, 0.9], dtype=F64)
FAKE = torch.tensor([0.3, -1.1, 2.0, -0.4], dtype=F64)


class Plain:
    """Scores are the samples themselves; passes are counted."""

    def __init__(self, samplewise: bool = True) -> None:
        self.samplewise, self.passes = samplewise, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_hinge_by_hand() -> None:
    losses = Hinge().losses(Plain(), REAL, FAKE)
    critic = (0 + 3 + 0.5 + 0.1) / 4 + (1.3 + 0 + 3 + 0.6) / 4
    assert float(losses["critic"]) == pytest.approx(critic, rel=1e-14)
    assert float(losses["generator"]) == pytest.approx(-0.8 / 4, rel=1e-14)
    assert not Hinge().zero_sum


def test_least_squares_by_hand() -> None:
    for formulation, (b, a, c) in (
        (LeastSquares(), (1, -1, 0)),
        (LeastSquares(1, 0, 1), (1, 0, 1)),
        (LeastSquares(0.9, 0.2, -0.3), (0.9, 0.2, -0.3)),
    ):
        losses = formulation.losses(Plain(), REAL, FAKE)
        critic = sum((d - b) ** 2 for d in REAL.tolist()) / 8
        critic += sum((d - a) ** 2 for d in FAKE.tolist()) / 8
        own = sum((d - c) ** 2 for d in FAKE.tolist()) / 8
        assert float(losses["critic"]) == pytest.approx(critic, rel=1e-14)
        assert float(losses["generator"]) == pytest.approx(own, rel=1e-14)
        assert not formulation.zero_sum


@pytest.mark.parametrize("samplewise", [True, False])
def test_relativistic_by_hand(samplewise: bool) -> None:
    pairs = list(zip(REAL.tolist(), FAKE.tolist(), strict=True))
    critic = sum(softplus(f - r) for r, f in pairs) / 4
    own = {False: sum(softplus(r - f) for r, f in pairs) / 4, True: -critic}
    for saturating in (True, False):
        counted = Plain(samplewise)
        losses = Relativistic(saturating).losses(counted, REAL, FAKE)
        assert float(losses["critic"]) == pytest.approx(critic, rel=1e-14)
        assert float(losses["generator"]) == pytest.approx(own[saturating], rel=1e-14)
        assert counted.passes == (1 if samplewise else 2)
        assert Relativistic(saturating).zero_sum is saturating
    # The pairing matters: other pairs, another loss.
    other = Relativistic().losses(Plain(), REAL, FAKE.flip(0))
    assert abs(float(other["critic"]) - critic) > 1e-2


def test_relativistic_real_scores_need_no_graph_for_the_generator() -> None:
    """Its pass over the generated samples alone carries a graph; the critic's constant cancels."""
    seen: list[bool] = []

    class Watched:
        samplewise = True

        def __call__(self, x: Tensor) -> Tensor:
            scores = x * 2 + 7
            seen.append(scores.requires_grad)
            return scores

    fake = FAKE.clone().requires_grad_()
    loss = Relativistic().losses(Watched(), REAL, fake, "generator")["generator"]
    assert sorted(seen) == [False, True]
    (g,) = torch.autograd.grad(loss, fake)
    lead = 2 * (REAL - FAKE)
    torch.testing.assert_close(g, -2 * torch.sigmoid(lead) / 4, rtol=1e-12, atol=0)


def test_relativistic_refuses_unequal_batches() -> None:
    for only in (None, "critic", "generator"):
        with pytest.raises(GameError, match="4 and 3: draw as many") as caught:
            Relativistic().losses(Plain(), REAL, FAKE[:3], only)
        assert "\n" not in str(caught.value)


# -- optima, by quadrature for two Gaussians ------------------------------------------------------

X = torch.linspace(-9, 10, 4001, dtype=F64)


def density(mean: float, sd: float) -> Tensor:
    return torch.exp(-((X - mean) ** 2) / (2 * sd**2)) / (sd * math.sqrt(2 * math.pi))


P, Q = density(0, 1), density(0.8, 1.3)


class Weighted:
    """A formulation's critic loss at scores on the grid, the means taken under P and Q.

    `critic_loss` takes plain means, so each density is handed over as a tilted grid: the mean over
    the grid of weight * loss is had by one call for each grid point.
    """

    def __init__(self, formulation: Any) -> None:
        zero = torch.zeros(1, dtype=F64)
        at = torch.func.vmap(
            lambda d: (
                formulation.critic_loss(d[None], zero),
                formulation.critic_loss(zero, d[None]),
                formulation.critic_loss(zero, zero),
            )
        )
        self.at = at

    def __call__(self, scores: Tensor) -> float:
        real, fake, none = self.at(scores)
        # loss(r, f) = a(r) + b(f): a(r) - a(0) and b(f) - b(0), and the constant once.
        parts = P * (real - none) + Q * (fake - none)
        return float(torch.trapezoid(parts, X) + none[0])


def perturbed(scores: Tensor) -> list[Tensor]:
    return [scores + 0.1, 0.9 * scores, scores + 0.2 * torch.sin(X), 0 * scores]


def test_hinge_optimum_is_total_variation() -> None:
    loss, best = Weighted(Hinge()), torch.sign(P - Q)
    variation = float(torch.trapezoid((P - Q).abs(), X)) / 2
    assert loss(best) == pytest.approx(2 * (1 - variation), abs=1e-6)
    assert variation > 0.2
    assert all(loss(other) >= loss(best) - 1e-12 for other in perturbed(best))


def test_least_squares_optimum_is_pearsons_chi_square() -> None:
    """Mao et al. 2017: at the best critic, twice the generators's full loss is chi^2(p + q || 2 q)."""
    formulation = LeastSquares()
    best = (formulation.real * P + formulation.fake * Q) / (P + Q)
    loss = Weighted(formulation)
    assert all(loss(other) > loss(best) + 1e-4 for other in perturbed(best))
    full = torch.trapezoid((P + Q) * (best - formulation.generator) ** 2, X)
    chi = torch.trapezoid((2 * Q - (P + Q)) ** 2 / (P + Q), X)
    assert float(full) == pytest.approx(float(chi), rel=1e-12)
    # Other targets do not give it: the condition b - c = 1, b - a = 2 is needed.
    other = LeastSquares(1, 0, 1)
    best = (other.real * P + other.fake * Q) / (P + Q)
    assert abs(float(torch.trapezoid((P + Q) * (best - other.generator) ** 2, X) - chi)) > 0.1


def test_relativistic_optimum_is_js_of_the_pairs() -> None:
    """max V = JS(PxQ, QxP) - log 2 at D = log p/q + const, by Gauss-Hermite on all pairs."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(90)
    weights = weights / weights.sum()
    real, fake = torch.from_numpy(nodes), torch.from_numpy(0.8 + 1.3 * nodes)

    def log_ratio(x: Tensor) -> Tensor:
        return -(x**2) / 2 + (x - 0.8) ** 2 / (2 * 1.3**2)

    weight = torch.from_numpy(np.outer(weights, weights))

    def value(D: Any) -> float:
        lead = D(real)[:, None] - D(fake)[None, :]
        losses = torch.func.vmap(
            lambda d: Relativistic(True).losses(Plain(), d[None], 0 * d[None])["generator"]
        )(lead.flatten())
        return float((losses * weight.flatten()).sum())

    best = value(log_ratio)
    # JS by adaptive means: the two laws' log ratio at a pair (x, y) is r(x) - r(y).
    grid = torch.linspace(-8, 9, 1201, dtype=F64)
    p = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    q = torch.exp(-((grid - 0.8) ** 2) / (2 * 1.3**2)) / (1.3 * math.sqrt(2 * math.pi))
    a, b = torch.outer(p, q), torch.outer(q, p)
    middle = (a + b) / 2
    js = torch.xlogy(a, a / middle) + torch.xlogy(b, b / middle)
    js = torch.trapezoid(torch.trapezoid(js, grid), grid) / 2
    assert best == pytest.approx(float(js) - math.log(2), abs=1e-6)
    assert best > -math.log(2) + 0.05
    assert value(lambda x: log_ratio(x) + 5) == pytest.approx(best, abs=1e-12)
    for other in (lambda x: 0 * x, lambda x: 1.2 * log_ratio(x), lambda x: log_ratio(x) - x / 5):
        assert value(other) < best - 1e-4
    assert value(lambda x: 0 * x) == pytest.approx(-math.log(2), rel=1e-12)


# -- yardsticks and words -------------------------------------------------------------------------


def test_scales() -> None:
    """Each is the loss's own size at a critic that tells nothing apart, or its unit."""
    zero = torch.zeros(3, dtype=F64)
    assert float(Hinge().scale(Plain(), REAL, FAKE)) == 1
    assert float(Relativistic().scale(Plain(), REAL, FAKE)) == 1
    for formulation in (LeastSquares(), LeastSquares(1, 0, 1), LeastSquares(2, -4, 0)):
        middle = zero + (formulation.real + formulation.fake) / 2
        best = formulation.losses(Plain(), middle, middle)["critic"]
        found = formulation.scale(Plain(), REAL, FAKE)
        assert float(found) == pytest.approx(float(best), rel=1e-14)
        assert found.shape == ()


@pytest.mark.parametrize(
    "formulation", [Hinge(), LeastSquares(), Relativistic(), Relativistic(True)], ids=repr
)
def test_words(formulation: Any) -> None:
    assert "critic" in formulation.formula
    assert "generator minimises" in formulation.formula
    assert "\n" not in formulation.formula + str(formulation)
    assert formulation.unit
    assert ("the generator minimises V" in formulation.formula) is formulation.zero_sum


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ((1, 1, 0), "both 1"),
        ((math.nan, 0, 1), "LeastSquares.real"),
        ((1, 0, math.inf), "generator"),
    ],
)
def test_bad_targets(targets: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        LeastSquares(*targets)
    assert "\n" not in str(caught.value)
