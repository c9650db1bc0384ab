"""What every check is planned to cost, in minibatch gradients: budgets divide by these numbers, so that a change of
one of them changes every audit with a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist.checks import REGISTRY, Settings, selftests
from equilibrist.checks._budget import planner
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext

ODD = {
    "batch": 24,
    "starts": 3,
    "steps": 70,
    "looks": 7,
    "groups": 7,
    "group_batches": 5,
    "batches": 11,
    "look_batches": 6,
    "linear_batches": 3,
    "spectrum_dense": 50,
    "spectrum_products": 37,
    "spectrum_batches": 3,
    "local_products": 45,
    "local_draws": 2,
    "local_batches": 5,
    "prox_starts": 2,
    "prox_steps": 13,
    "prox_track": 3,
    "inner_steps": 17,
    "prox_trials": 5,
    "experiment_steps": 19,
}


def sampled(objective: Any, dense: bool, gradients: int = 0, **options: Any) -> AuditContext:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
    critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))
    game = eq.GAN(generator, critic, objective, latent=2, **options)
    start = game.init(0)
    settings = Settings(**ODD | ({"spectrum_dense": 1200} if dense else {"steps": 701}))  # type: ignore[arg-type]
    settings = replace(settings, gradients=gradients)
    return AuditContext(
        game,
        start.players,
        start.constants,
        eq.ArraySource(torch.randn(900, 2), kind="points"),
        settings,
        0,
    )


def exact() -> AuditContext:
    game = eq.Quadratic(torch.eye(2), torch.eye(2), torch.eye(2))
    return ExactContext(game, game.points()[0].players, Settings(**ODD))  # type: ignore[arg-type]


BENCHES: dict[str, Callable[[], AuditContext]] = {
    "zero-sum": lambda: sampled(eq.Vanilla(saturating=True), dense=True),
    "own losses": lambda: sampled(eq.Vanilla(), dense=False, penalties=[eq.GradientPenalty()]),
    # A budget plans walks against answers by what they may take, not by what they take mostly.
    "budget": lambda: sampled(eq.Vanilla(saturating=True), dense=True, gradients=5000),
    "exact": exact,
}

COSTS: dict[str, dict[str, float]] = {
    "zero-sum": {
        "self-tests": 22.67,
        "stationary": 76.5,
        "stable": 333.9,
        "local": 263.75,
        "proximal": 150.0,
        "nash": 431.67,
        "lambda-search": 14312.4,
        "profile": 25731.6,
        "generator-vs-prox": 1369.4,
        "path-angle": 0.0,
        "gaps": 4503.8,
        "facts": 9.75,
    },
    "own losses": {
        "self-tests": 22.67,
        "stationary": 76.5,
        "stable": 746.6,
        "local": 288.5,
        "proximal": 150.0,
        "nash": 4217.67,
        "lambda-search": 14312.4,
        "profile": 25731.6,
        "generator-vs-prox": 1369.4,
        "path-angle": 0.0,
        "gaps": 4503.8,
        "facts": 70.75,
    },
    "budget": {
        "self-tests": 22.67,
        "stationary": 76.5,
        "stable": 333.9,
        "local": 573.75,
        "proximal": 150.0,
        "nash": 431.67,
        "lambda-search": 15347.15,
        "profile": 17979.9,
        "generator-vs-prox": 1702.0,
        "path-angle": 0.0,
        "gaps": 3634.9,
        "facts": 9.75,
    },
    "exact": {
        "self-tests": 34.0,
        "stationary": 36.0,
        "stable": 8.4,
        "local": 20.0,
        "proximal": 30.0,
        "nash": 421.33,
        "lambda-search": 1.0,
        "profile": 1.0,
        "generator-vs-prox": 1.0,
        "path-angle": 0.0,
        "gaps": 1.0,
        "facts": 0.0,
    },
}


@pytest.mark.parametrize("kind", BENCHES)
def test_what_every_check_is_planned_to_cost(kind: str) -> None:
    context = BENCHES[kind]()
    costs = planner(tuple(REGISTRY))(context)
    assert costs == pytest.approx(COSTS[kind], abs=0.01)


@pytest.mark.parametrize(
    ("batch", "spent"), [(16, 34.0), (24, 34 * 2 / 3), (64, 34 / 4), (8, 34.0)]
)
def test_self_tests_spend_what_they_are_planned_to_where_all_pass(batch: int, spent: float) -> None:
    """On at most 16 samples: 16 gradients' worth of evaluations, and nine for each player."""
    context = sampled(eq.Vanilla(), dense=True)
    context = context.with_settings(replace(context.settings, batch=batch))
    ticks: list[float] = []
    assert selftests.self_tests(context, ticks.append).verdict is eq.Verdict.VERIFIED
    assert sum(ticks) == pytest.approx(spent)
    assert selftests.planned_gradients(context) == pytest.approx(spent)


def test_an_exact_game_of_single_precision_is_audited_in_double() -> None:
    context = exact()
    assert context.dtype is torch.float32
    ticks: list[float] = []
    assert selftests.self_tests(context, ticks.append).verdict is eq.Verdict.VERIFIED
    assert sum(ticks) == 34.0
