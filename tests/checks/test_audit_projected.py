"""The projected gradient that solves the inner problem and searches for deviations."""

from __future__ import annotations

import math

import pytest
import torch
from audit_games import F64
from torch import Tensor

from equilibrist.checks.proximal._projected import minimise, scales
from equilibrist.projections import NormBall, SpectralBall

Part = dict[str, Tensor]


def part(**entries: object) -> Part:
    return {k: torch.as_tensor(x, dtype=F64) for k, x in entries.items()}


def free(at: Part) -> Part:
    return at


@pytest.mark.parametrize("length", [1.0, 1e-4, 1e4])
def test_a_linear_function_over_a_ball_ends_at_the_optimum(length: float) -> None:
    """-w . u over |u| <= 1.5, w = (1, 0.2): 1.5 |w| = 1.5297 in u = 1.5 w / |w|; whatever the loss's unit."""
    w, ball = torch.tensor([1.0, 0.2], dtype=F64), NormBall("x", "u", 1.5)

    def objective(at: Part) -> tuple[float, Part]:
        return -length * float(w @ at["u"]), {"u": -length * w}

    found = minimise(objective, ball, part(u=[0.1, 0.1]), 60, 1e-9 * length)
    assert found.settled
    assert found.value == pytest.approx(-length * 1.5 * math.sqrt(1.04), rel=1e-6)
    assert found.point["u"].tolist() == pytest.approx((1.5 * w / w.norm()).tolist(), rel=1e-3)


def test_a_linear_function_over_a_spectral_ball_ends_at_the_polar_factor() -> None:
    """-<C, W> over sigma_max(W) <= 1 is least at U V^T of C's singular vectors: minus the sum of singular values."""
    C = torch.tensor([[3.0, 1.0], [-0.5, 0.2]], dtype=F64)

    def objective(at: Part) -> tuple[float, Part]:
        return -float((C * at["W"]).sum()), {"W": -C}

    found = minimise(objective, SpectralBall("x", "W"), part(W=0.1 * torch.eye(2)), 200, 1e-9)
    assert found.value == pytest.approx(-float(torch.linalg.svdvals(C).sum()), rel=1e-5)


def test_what_is_left_says_how_far_a_quadratic_was_from_its_minimum() -> None:
    curvature = torch.logspace(0, 2, 6, dtype=F64)

    def objective(at: Part) -> tuple[float, Part]:
        x = at["x"] - 1
        return float((curvature * x * x).sum() / 2), {"x": curvature * x}

    done = minimise(objective, free, part(x=torch.zeros(6)), 200, 1e-10)
    assert done.settled
    assert done.value <= 1e-9
    short = minimise(objective, free, part(x=torch.zeros(6)), 8, 1e-10)
    assert not short.settled
    assert short.value > 1e-6
    assert short.left > 0.1 * short.value


def test_negative_curvature_is_followed_to_the_wall() -> None:
    """Beside a maximum the slope is as small as the distance: the first step promises nothing, longer ones do."""

    def objective(at: Part) -> tuple[float, Part]:
        u = at["u"]
        return -0.3 * float(u @ u), {"u": -0.6 * u}

    start = part(W=torch.eye(2), u=[1e-6, 0.0])

    def both(at: Part) -> tuple[float, Part]:
        value, slope = objective(at)
        return value, {"W": torch.zeros(2, 2, dtype=F64), **slope}

    found = minimise(both, NormBall("x", "u", 2.0), start, 60, 1e-8)
    assert found.value == pytest.approx(-1.2, rel=1e-6)
    assert found.settled


def test_values_that_are_not_finite_are_stepped_back_from() -> None:
    def objective(at: Part) -> tuple[float, Part]:
        x = float(at["x"])
        if x >= 1:
            return math.inf, part(x=0.0)
        return -x - math.log(1 - x), part(x=-1 + 1 / (1 - x)) if x > -50 else part(x=-1.0)

    found = minimise(objective, free, part(x=-3.0), 100, 1e-10)
    assert math.isfinite(found.value)
    assert float(found.point["x"]) == pytest.approx(0.0, abs=1e-3)
    stuck = minimise(lambda at: (math.nan, part(x=1.0)), free, part(x=0.0), 10, 1e-9)
    assert not stuck.settled
    assert stuck.left == math.inf


def test_a_tensor_at_zero_has_the_size_of_the_others() -> None:
    found = scales(part(W=[[2.0, 0.0], [0.0, 2.0]], b=[1e-9, 0.0]))
    assert found["W"] == pytest.approx(math.sqrt(2.0))
    assert found["b"] == pytest.approx(math.sqrt(8 / 6))
    assert scales(part(b=[0.0]))["b"] == 1.0


@pytest.mark.parametrize(("slope", "settled"), [(1e-3, True), (1.0, False)])
def test_a_promise_below_the_values_rounding_ends_the_descent(slope: float, settled: bool) -> None:
    """A value of 1000 that nothing lowers: what a gradient promises counts relative to it."""

    def objective(at: Part) -> tuple[float, Part]:
        moved = bool((at["x"] != 1).any())
        return 1000.0 + moved, {"x": torch.full((1,), slope, dtype=F64)}

    found = minimise(objective, free, part(x=[1.0]), 60, 0.0, length=0.1)
    assert found.value == 1000.0
    assert found.settled is settled
