"""The search for deviations: scales that follow the weights, steps that feel the walls, a reach that is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_audit_calibration import C
from torch import Tensor

import equilibrist as eq
from equilibrist import projections
from equilibrist.checks import Settings, Verdict, audit_game
from equilibrist.checks._objective import Objective
from equilibrist.checks._probes import SIZES, scan
from equilibrist.checks._search import Descent, Relative, _Engine
from equilibrist.checks.context_exact import ExactContext
from equilibrist.core.game import Plain

F64 = torch.float64


class SinglePlayerGame(Plain):
    """One player with a loss of its own, and one that has nothing to gain."""

    players = ("generator", "critic")

    def __init__(self, loss: Callable[[dict[str, Tensor]], Tensor], sets: Any = ()) -> None:
        self.loss, self.projections = loss, tuple(sets)

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        critic = players["critic"]["w"].square().sum()
        return {"generator": self.loss(players["generator"]), "critic": critic}

    def project(self, players: Any) -> Any:
        for one in self.projections:
            players = {**players, one.player: one(players[one.player])}
        return players


def pair(**generator: Tensor) -> Any:
    return {"generator": generator, "critic": {"w": torch.zeros(2, dtype=F64)}}


def audited(game: SinglePlayerGame, players: Any, absolute: float, **settings: Any) -> Any:
    chosen = Settings(
        absolute=absolute, groups=3, group_batches=1, linear_batches=1, **{"steps": 200} | settings
    )
    return audit_game(game, players, settings=chosen, checks=("nash",), progress="none")[
        "nash/generator"
    ]


@pytest.mark.parametrize("distance", [1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_gain_is_found_at_any_distance_and_for_weights_of_any_size(
    distance: float, scale: float
) -> None:
    """A stationary start whose loss curves down to a wall, `distance` times the weights' norm away: nothing that
    follows the gradient alone from the start could move."""
    anchor = scale * torch.ones(4, dtype=F64) / 2
    reach = distance * scale
    game = SinglePlayerGame(
        lambda p: -(p["u"] / reach).square().sum(), [projections.NormBall("generator", "u", reach)]
    )
    found = audited(game, pair(anchor=anchor, u=torch.zeros(3, dtype=F64)), absolute=0.1)
    assert found.verdict is Verdict.REFUTED
    assert found.evidence["gain"] == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("distance", [3e-3, 0.1, 3.0])
def test_a_deeper_minimum_behind_a_barrier_is_found(distance: float) -> None:
    centre = distance * torch.tensor([0.6, -0.8], dtype=F64)

    def loss(p: Any) -> Tensor:
        near = 1 - torch.exp(-18 * p["u"].square().sum() / distance**2)
        return near - 2 * torch.exp(-4 * (p["u"] - centre).square().sum() / distance**2)

    found = audited(
        SinglePlayerGame(loss),
        pair(anchor=torch.ones(1, dtype=F64), u=torch.zeros(2, dtype=F64)),
        absolute=0.3,
        steps=500,
    )
    assert found.verdict is Verdict.REFUTED
    assert found.evidence["gain"] > 0.9


def test_a_minimum_is_not_refuted_and_the_reach_is_stated() -> None:
    found = audited(
        SinglePlayerGame(lambda p: p["u"].square().sum()),
        pair(u=torch.zeros(3, dtype=F64)),
        absolute=1e-3,
    )
    assert found.verdict is Verdict.NOT_REFUTED
    assert found.evidence["radius"] == SIZES[-1] == 10.0
    assert set(found.evidence["searched"]) >= {"random", "descents"}
    assert "up to 10 times the norm" in found.summary
    assert found.evidence["finished"]


def test_the_stated_radius_ends_where_the_loss_is_no_longer_finite() -> None:
    def loss(p: Any) -> Tensor:
        inside = p["u"].square().sum()
        return torch.where(inside < 1.5, inside, torch.full_like(inside, math.nan))

    found = audited(
        SinglePlayerGame(loss),
        pair(u=torch.zeros(2, dtype=F64), anchor=torch.ones(1, dtype=F64)),
        absolute=1e-3,
    )
    assert found.evidence["radius"] < 3.2
    assert found.verdict is not Verdict.REFUTED


def test_every_line_search_spans_four_decades_and_stays_within_its_budget() -> None:
    game = SinglePlayerGame(lambda p: (p["a"] * p["b"].sum()).sum())
    players = pair(a=torch.ones(2, dtype=F64), b=torch.ones(3, dtype=F64))
    context = ExactContext(game, players, Settings(groups=3, group_batches=1, linear_batches=1))
    asked: list[float] = []
    objective = Objective(context, "generator", lambda gradients: asked.append(gradients))
    real = objective.probe
    seen: list[float] = []

    def probe(params: Any) -> float:
        seen.append(objective.distance(params))
        return real(params)

    objective.probe = probe  # type: ignore[method-assign]
    found = scan(objective, 120.0, np.random.default_rng(0))
    assert set(found.reach) == {"gradient", "curvature", "rescaling", "random"}
    assert objective.spent == pytest.approx(sum(asked))
    assert sum(asked) <= 120
    assert min(seen) == pytest.approx(SIZES[0], rel=0.7)
    assert max(seen) == pytest.approx(SIZES[-1], rel=1e-9)
    # Random directions come at random sizes: no two alike.
    assert len({round(x, 12) for x in seen}) > 3 * len(SIZES)


@pytest.mark.parametrize(
    ("gains", "tolerance", "finished"),
    [
        ([0.0, 0.2, 0.4, 0.6, 0.8], 1.0, False),  # as much again is past the tolerance
        ([0.0, 0.1, 0.2, 0.3, 0.4], 1.0, False),  # a good part of a gain that is not small
        ([0.0, 0.5, 0.52, 0.53, 0.53], 1.0, True),  # settled
        ([0.0, 0.001, 0.002, 0.003, 0.004], 1.0, True),  # far from the tolerance for as long again
        ([0.0, 0.5, 1.0, 1.5, 2.0], 1.0, True),  # refuted anyway
        ([-8.0, -4.0, -1.0, -0.1, 0.0], 1.0, True),  # comes home from far away
    ],
)
def test_a_search_that_still_gains_is_not_finished(
    gains: list[float], tolerance: float, finished: bool
) -> None:
    game = SinglePlayerGame(lambda p: p["u"].square().sum())
    context = ExactContext(
        game, pair(u=torch.ones(1, dtype=F64)), Settings(groups=3, group_batches=1)
    )
    engine = _Engine(Objective(context, "generator", lambda gradients: None), None)
    rule = Relative(0.1, {"u": torch.ones((), dtype=F64)}, ())
    descent = Descent("the pair", 0.0, rule, {}, step=100, steps=[0, 25, 50, 75, 100], gains=gains)
    descent.looks = [torch.tensor([g], dtype=F64) for g in gains]
    assert engine.rising(descent, tolerance)[0] is finished


SETS = (
    None,
    projections.NormBall("generator", "u", 1.5),
    projections.WeightClipping(0.8, "generator"),
)


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("lr", [0.01, 0.1])
def test_relative_steps_end_at_the_projected_optimum(sets: Any, lr: float) -> None:
    """min -w.u: 1.5 |w| in the ball, 0.8 |w|_1 in the box; without a set, a quadratic's own minimum."""
    w = torch.tensor([1.0, 0.2], dtype=F64)
    if sets is None:
        game, best = SinglePlayerGame(lambda p: (p["u"] - w).square().sum()), w
    else:
        game = SinglePlayerGame(lambda p: -(w @ p["u"]), [sets])
        ball = isinstance(sets, projections.NormBall)
        best = 1.5 * w / w.norm() if ball else torch.tensor([0.8, 0.8], dtype=F64)
    start = {"u": torch.full((2,), 0.1, dtype=F64)}
    from equilibrist.core.field import VectorField

    field = VectorField(game)
    scales = {"u": torch.tensor(1.0, dtype=F64)}
    rule = Relative(lr, scales, field.coupled["generator"])
    params, state = dict(start), None
    state = rule.init(params)
    for step in range(1200):
        players = {**pair(**params)}
        v = field(players, {"generator": {}, "critic": {}}, {}, only="generator").v["generator"]
        params = {"u": params["u"].clone()}
        rule.update(v, state, params, pace=min(1.0, (1200 - step) / 400))
        params = game.project(pair(**params))["generator"]
    assert torch.allclose(params["u"], best, atol=2e-3)


@pytest.mark.parametrize(
    ("s", "dim", "eta", "t"), [(3.0, 2, 0.25, 2.0), (1.5, 5, 1.0, 3.0), (4.0, 1, 0.5, 1.0)]
)
def test_theorem_1_is_found_by_the_search_on_samples(
    s: float, dim: int, eta: float, t: float
) -> None:
    """The Gaussian W2GAN's optimum as plain modules is not Nash: a shift gains eta (s - 1) t^2."""
    generator = eq.networks.LinearGenerator(dim, dim, dtype=F64)
    critic = eq.networks.QuadraticCritic(dim, dtype=F64)
    optimum = eq.games.GaussianW2GAN(s=s, dim=dim, eta=eta, t=t).points()[0].players
    generator.load_state_dict(optimum["generator"])
    critic.load_state_dict(optimum["critic"])
    data = eq.data.Gaussian(np.zeros(dim), s * s * np.eye(dim), dtype=F64)
    sets = [
        projections.SpectralBall("generator", "W", 1.0),
        projections.NormBall("generator", "u", t),
        projections.EigenvalueCap("critic", "A", 0.95 * eta),
    ]
    audit = eq.audit_pair(
        generator,
        critic,
        data,
        eq.formulations.W2GAN(eta),
        latent=dim,
        projections=sets,
        progress="none",
        checks=("nash",),
        settings=Settings(steps=60, looks=6),
    )
    found = audit["nash/generator"]
    true = eta * (s - 1) * t**2
    assert found.verdict is Verdict.REFUTED
    assert 0.5 * true < found.evidence["gain"] < 1.2 * true
    assert audit["nash/critic"].verdict is not Verdict.REFUTED


@pytest.mark.parametrize(
    ("steps", "given", "descents", "own"),
    [(40, True, 1, 0), (150, True, 2, 1), (150, False, 2, 0), (400, True, 2, 1)],
)
def test_a_small_budget_begins_two_descents_and_one_by_trainings_rule(
    steps: int, given: bool, descents: int, own: int
) -> None:
    game = SinglePlayerGame(lambda x: (x["a"] - 1).square().sum())
    rules = {"generator": eq.Adam(0.125)} if given else {}
    players = pair(a=torch.full((3,), 0.5, dtype=F64))
    found = audited(game, players, 0.1, steps=steps, starts=1, optimizers=rules)
    curves = found.evidence["curves"]
    assert len(curves) == descents
    ours = [c for c in curves if c["optimizer"].startswith("Adam(lr=0.125")]
    assert len(ours) == own
    assert all((c["from"], c["perturbation"]) == ("the pair", 0.0) for c in ours)
    assert found.evidence["budget"]["gradients"] <= 1.1 * steps


@pytest.mark.parametrize("i", [31, 53, 105, 117, 181])
def test_150_gradients_find_three_tolerances_in_a_box(i: int) -> None:
    """Line searches on one minibatch lead these astray; training's own rule takes twenty steps."""
    ((row, verdict),) = C.nash_case(C.address(0, "nash", 3.0, i), 3.0, i, i)
    assert (row, verdict) == ("nash/critic", "REFUTED")


@pytest.mark.parametrize(("cool", "last"), [(True, [1.0, 2 / 3, 1 / 3]), (False, [1.0] * 3)])
def test_step_sizes_fall_to_zero_over_the_last_three_tenths(cool: bool, last: list[float]) -> None:
    paces: list[float] = []

    class Watched(Relative):
        def update(self, v: Any, state: Any, params: Any, pace: float = 1.0) -> None:
            paces.append(pace)
            super().update(v, state, params, pace)

    game = SinglePlayerGame(lambda p: (p["u"] - 3).square().sum())
    players = pair(u=torch.ones(1, dtype=F64))
    context = ExactContext(game, players, Settings(groups=3, group_batches=1))
    engine = _Engine(Objective(context, "generator", lambda gradients: None), None)
    rule = Watched(0.1, {"u": torch.ones((), dtype=F64)}, ())
    descent = Descent("the pair", 0.0, rule, players["generator"])
    engine.run(descent, 10, 2, cool=cool)
    assert paces == pytest.approx([1.0] * 7 + last)
    assert descent.steps == [0, 5, 10]  # where it was looked at
