"""Exponential averages beside a solver."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equilibrist import tree
from equilibrist._draws import Draws
from equilibrist._field import VectorField
from equilibrist.games import bilinear
from equilibrist.optimizers import SGD
from equilibrist.schedules import Clipped, Piecewise, Scheduled
from equilibrist.solvers import Alternating, Averaged, Simultaneous


def at(x: float, y: float) -> Any:
    return {p: {"value": torch.tensor([v], dtype=torch.float64)} for p, v in (("x", x), ("y", y))}


def test_the_average_is_the_recursion_and_training_is_untouched() -> None:
    game, inner = bilinear(), Simultaneous(SGD(0.1))
    solver, field = Averaged(inner, 0.9, ("x",)), VectorField(bilinear())
    mine, plain = at(1.0, 0.5), at(1.0, 0.5)
    state, bare = solver.init(mine), inner.init(plain)
    expected = 1.0
    for k in range(7):
        draws = Draws(lambda rng: game.draw(rng, 1), 0, k)
        mine, _, state, info = solver.step(field, mine, {}, state, draws)
        plain, _, bare, other = inner.step(field, plain, {}, bare, draws)
        expected = 0.9 * expected + 0.1 * float(plain["x"]["value"])
        assert torch.equal(mine["x"]["value"], plain["x"]["value"])
        assert info["loss"].keys() == other["loss"].keys()
        assert float(state["average"]["x"]["value"]) == pytest.approx(expected, rel=1e-14)
    assert set(state["average"]) == {"x"}


def test_stacked_equals_alone() -> None:
    game, solver = bilinear(), Averaged(Simultaneous(Clipped(SGD(0.1), 0.2)), 0.5, ("x", "y"))
    starts = [at(1.0, 0.5), at(-3.0, 2.0)]
    players = tree.stack(starts)
    state = solver.init(players)
    field = VectorField(game, stacked=2)
    empty = Draws(lambda rng: {"none": torch.zeros(2)}, 0, 0)
    for _ in range(3):
        players, _, state, _ = solver.step(field, players, {}, state, empty)
    for i, alone in enumerate(starts):
        own, single = solver.init(alone), VectorField(game)
        for _ in range(3):
            alone, _, own, _ = solver.step(single, alone, {}, own, Draws(lambda rng: {}, 0, 0))
        for p in ("x", "y"):
            torch.testing.assert_close(
                state["average"][p]["value"][i], own["average"][p]["value"], rtol=1e-14, atol=0
            )


def test_solvers_take_scheduled_rules() -> None:
    """Step size zero from the second update on: the players stop."""
    rule = Scheduled(SGD(0.1), Piecewise(((0, 1.0), (1, 0.0))))
    game = bilinear()
    solver = Alternating(1, rule, leader="x", follower="y")
    players = at(1.0, 0.5)
    state, field, seen = solver.init(players), VectorField(game), []
    for k in range(3):
        players, _, state, _ = solver.step(field, players, {}, state, Draws(lambda rng: {}, 0, k))
        seen.append((float(players["x"]["value"]), float(players["y"]["value"])))
    assert seen[0] != (1.0, 0.5)
    assert seen[0] == seen[1] == seen[2]


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Averaged(Simultaneous(), 1.0)
    with pytest.raises(ValueError, match="'generator', but the players are x, y"):
        Averaged(Simultaneous()).init(at(1.0, 1.0))
