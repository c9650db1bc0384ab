"""Averages beside a solver: exponential, uniform, tail."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.contract import check_solver, require
from equilibrist.core.draws import Batches, Draws
from equilibrist.core.field import VectorField
from equilibrist.data import eight_gaussians
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, bilinear
from equilibrist.optimizers import SGD, Adam
from equilibrist.run import Recipe, ensemble, train
from equilibrist.schedules import Clipped, Piecewise, Scheduled
from equilibrist.solvers import Alternating, Averaged, Extragradient, Simultaneous, Step

KINDS: dict[str, dict[str, Any]] = {
    "exponential": {"decay": 0.9},
    "uniform": {"kind": "uniform"},
    "tail": {"kind": "tail", "start": 3},
    "a tail that has not begun": {"kind": "tail", "start": 100},
}


def at(x: float, y: float) -> Any:
    return {p: {"value": torch.tensor([v], dtype=torch.float64)} for p, v in (("x", x), ("y", y))}


class Given:
    """A solver whose iterates are given, one row a step."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def init(self, players: Any) -> Any:
        return {"t": torch.zeros((), dtype=torch.int64)}

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        row = self.rows[int(state["t"])]
        players = {"x": {"a": row[:3].clone(), "b": row[3:].clone()}}
        return Step(players, constants, {"t": state["t"] + 1}, {})


def averages(rows: Tensor, **options: Any) -> Tensor:
    """a_0, a_1, ... where rows[0] is x_0."""
    players = {"x": {"a": rows[0, :3].clone(), "b": rows[0, 3:].clone()}}
    solver = Averaged(Given(rows[1:]), players=("x",), **options)
    state = solver.init(players)
    found = [tree.flatten(state["average"]).clone()]
    for _ in rows[1:]:
        players, _, state, _ = solver.step(None, players, {}, state, None)  # type: ignore[arg-type]
        found.append(tree.flatten(state["average"]).clone())
    return torch.stack(found)


@pytest.mark.parametrize("start", [0, 1, 4, 29, 30, 31])
def test_running_means_are_those_of_numpy(start: int) -> None:
    """Of all iterates, the initial weights among them, or of those from `start` on; x_k itself before."""
    rows = torch.randn(31, 5, generator=torch.Generator().manual_seed(start), dtype=torch.float64)
    options = {"kind": "tail", "start": start} if start else {"kind": "uniform"}
    found, x = averages(rows, **options).numpy(), rows.numpy()
    for k in range(31):
        truth = x[k] if k < start else x[start : k + 1].mean(0)
        np.testing.assert_allclose(found[k], truth, rtol=0, atol=1e-15)
    assert np.array_equal(found[: start + 1], x[: start + 1])  # not by rounding


def test_a_tail_forgets_what_was_before_it_exactly() -> None:
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    other = rows.clone()
    other[:5] *= 1e6
    a, b = (averages(r, kind="tail", start=5) for r in (rows, other))
    assert torch.equal(a[5:], b[5:])
    assert not torch.equal(a[4], b[4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_does_not_add_up(dtype: torch.dtype) -> None:
    """A gain of (x - a) / k is below the mean's last digit long before the end: it must not be lost."""
    noise = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    rows = (1 + 0.05 * noise).to(dtype).repeat_interleave(100, 0)
    truth = rows.double().mean(0)
    plain = rows[0].clone()
    for k, row in enumerate(rows[1:], 1):
        plain.lerp_(row, 1 / (k + 1))
    found, eps = averages(rows, kind="uniform")[-1], torch.finfo(dtype).eps
    assert float((found.double() - truth).abs().max()) <= eps
    assert float((plain.double() - truth).abs().max()) > 4 * eps  # which it would be by itself


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


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_equals_alone(kind: str) -> None:
    game = bilinear()
    solver = Averaged(Simultaneous(Clipped(SGD(0.1), 0.2)), players=("x", "y"), **KINDS[kind])
    starts = [at(1.0, 0.5), at(-3.0, 2.0)]
    players = tree.stack(starts)
    state = solver.init(players)
    field = VectorField(game, stacked=2)
    empty = Draws(lambda rng: {"none": torch.zeros(2)}, 0, 0)
    for _ in range(5):
        players, _, state, _ = solver.step(field, players, {}, state, empty)
    for i, alone in enumerate(starts):
        own, single = solver.init(alone), VectorField(game)
        for _ in range(5):
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


def orbit(solver: Any, start: Tensor, steps: int) -> tuple[Any, Any]:
    players = {"x": {"value": start[:1].clone()}, "y": {"value": start[1:].clone()}}
    state, field = solver.init(players), VectorField(bilinear())
    for k in range(steps):
        players, _, state, _ = solver.step(field, players, {}, state, Draws(lambda rng: {}, 0, k))
    return tree.flatten(players), state


@pytest.mark.parametrize(
    "inner",
    [Alternating(1, SGD(0.3), leader="x", follower="y"), Extragradient(SGD(0.3))],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("start", [0, 7])
def test_averages_of_linear_steps_are_geometric_sums(inner: Any, start: int) -> None:
    """x_k = M^k x_0: the mean of x_s to x_k is (I - M)^-1 (M^s - M^(k+1)) x_0 / (k - s + 1)."""
    x, unit = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    m = inner.linear_map(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(), {"x": 1, "y": 1})
    options: Any = {"kind": "tail", "start": start} if start else {"kind": "uniform"}
    _, state = orbit(Averaged(inner, players=("x", "y"), **options), x, 40)
    powers = torch.linalg.matrix_power(m, start) - torch.linalg.matrix_power(m, 41)
    truth = torch.linalg.solve(unit - m, powers) @ x / (41 - start)
    torch.testing.assert_close(tree.flatten(state["average"]), truth, rtol=1e-12, atol=1e-14)


def test_the_uniform_average_converges_where_the_last_iterate_circles() -> None:
    """Alternating steps on the bilinear game: |M^k x| is bounded above and below, its mean is O(1 / k)."""
    x = torch.tensor([1.0, 0.5], dtype=torch.float64)
    inner = Alternating(1, SGD(0.3), leader="x", follower="y")
    far = {}
    for kind in ("uniform", "exponential"):
        for steps in (50, 1000):
            last, state = orbit(Averaged(inner, players=("x", "y"), kind=kind), x, steps)  # type: ignore[arg-type]
            assert float(last.norm()) > 0.7
            far[kind, steps] = float(tree.flatten(state["average"]).norm())
    assert far["uniform", 50] * 50 < 10
    assert far["uniform", 1000] * 1000 < 10
    # Growing steps are beyond an average: those of simultaneous gradients.
    _, state = orbit(Averaged(Simultaneous(SGD(0.3)), players=("x", "y"), kind="uniform"), x, 200)
    assert float(tree.flatten(state["average"]).norm()) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: str) -> None:
    inner = Simultaneous(SGD(0.05))
    require(check_solver(Averaged(inner, players=("x", "y"), **KINDS[kind]), bilinear()))


def tiny(kind: str, steps: int = 9) -> Recipe:
    return Recipe(
        GAN(
            lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)),
            lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)),
            Vanilla(),
            latent=2,
        ),
        eight_gaussians(),
        Averaged(Alternating(1, Adam(1e-2)), players=("generator", "critic"), **KINDS[kind]),
        steps,
        batch=8,
    )


def weights(run: Any) -> list[Tensor]:
    return [*tree.leaves(run.players), *tree.leaves(run.average)]


@pytest.mark.parametrize("at", [2, 5], ids=["before the tail", "after"])
@pytest.mark.parametrize("kind", ["uniform", "tail"])
def test_resumed_with_the_same_bits(
    kind: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(kind), tmp_path / "whole", device="cpu", progress="none")
    real, seen = Batches.at, []

    def asked(batches: Any, step: int) -> Any:
        seen.append(step)
        if step == at and seen.count(at) == 1:
            signal.raise_signal(signal.SIGINT)
        return real(batches, step)

    monkeypatch.setattr(Batches, "at", asked)
    stopped = train(tiny(kind), tmp_path / "two", device="cpu", progress="none")
    assert stopped.interrupted
    assert 0 < stopped.step < 9
    two = train(tiny(kind), tmp_path / "two", device="cpu", progress="none")
    assert two.step == 9
    assert two.sha256 == whole.sha256  # the averages' counters and rests among the rest
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(two), strict=True))
    same = [
        torch.equal(a, b)
        for a, b in zip(*map(tree.leaves, (two.players, two.average)), strict=True)
    ]
    assert not any(same)


@pytest.mark.parametrize("kind", ["uniform", "tail"])
def test_an_ensemble_keeps_the_averages_of_single_runs(kind: str, tmp_path: Path) -> None:
    made = dataclasses.replace(tiny(kind), dtype=torch.float64)
    found = ensemble(made, tmp_path / "all", (0, 5), device="cpu", progress="none")
    for run in found.runs:
        own = train(made, tmp_path / str(run.seed), seed=run.seed, device="cpu", progress="none")
        for a, b in zip(weights(own), weights(run), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_words() -> None:
    inner, both = Simultaneous(SGD(0.1)), ("x", "y")
    for solver, said in (
        (Averaged(inner, 0.9), "exponential average of the generator, decay 0.9"),
        (Averaged(inner, players=both, kind="uniform"), "uniform average of the x and y"),
        (
            Averaged(inner, kind="tail", start=1500),
            "tail average of the generator from step 1,500 on",
        ),
    ):
        assert str(solver) == f"{inner}; {said}"
        assert f"{inner}; {solver.describe_average()}" in str(solver)
        # What a run directory is recognised by: it makes the solver again.
        assert eval(repr(solver)) == solver
    # Records of before the other kinds go on.
    text = f"Averaged(solver={inner!r}, decay=0.9, players=('x', 'y'))"
    assert repr(Averaged(inner, 0.9, both)) == text
    tail = Averaged(inner, kind="tail", start=5)
    assert tail.describe_average(4) == tail.describe_average() + ", which it has not reached"
    assert tail.describe_average(5) == tail.describe_average()
    assert Averaged(inner, kind="uniform").describe_average(0) == "uniform average of the generator"


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Averaged(Simultaneous(), 1.0)
    with pytest.raises(ValueError, match="'generator', but the players are x, y"):
        Averaged(Simultaneous()).init(at(1.0, 1.0))
