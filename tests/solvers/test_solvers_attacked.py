"""Attacks on the competitive solver's zero-sum path: unused parameters, parts, float32, diverged members."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import VectorField
from equilibrist.data import eight_gaussians
from equilibrist.formulations import WGAN
from equilibrist.games import GAN
from equilibrist.optimizers import SGD
from equilibrist.solvers import Competitive

ETA = 0.5


class Idle(nn.Module):
    """A network with parameters that it does not use."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        first, *rest = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.net = nn.Sequential(first, *(m for layer in rest for m in (nn.Tanh(), layer)))
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Given:
    """One draw, again and again."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def batch(self, index: int = 0) -> Draw:
        return dict(self.draw)

    def noise(self, like: Any, index: int = 0) -> Any:
        raise AssertionError("the solver draws no noise")


def game() -> GAN:
    return GAN(lambda: Idle(2, 2), lambda: Idle(2, 4, 1), WGAN(), latent=2)


def start(dtype: torch.dtype) -> tuple[Any, Any, Draw]:
    played = game()
    players, constants = played.init(0, dtype=dtype)
    draw = played.draw(np.random.default_rng(0), eight_gaussians(), 8, torch.float64)
    return players, constants, {k: t.to(dtype) for k, t in draw.items()}


def moved(
    field: VectorField,
    players: Any,
    constants: Any,
    draw: Draw,
    iterations: int = 60,
    tolerance: float = 0.0,
) -> Any:
    solver = Competitive(SGD(1.0), eta=ETA, iterations=iterations, tolerance=tolerance)
    held = tree.clone(players)
    return solver.step(field, held, constants, solver.init(held), Given(draw)).players


def direction(*args: Any, **options: Any) -> Tensor:
    players = args[1]
    return tree.flatten(players) - tree.flatten(moved(*args, **options))


def solved() -> Tensor:
    """(I + eta O)^{-1} v by a dense solve; J row by row from pullbacks."""
    players, constants, draw = start(torch.float64)
    linear = VectorField(game()).linearize(players, constants, draw)
    size, split = tree.count(players), tree.count(players["generator"])
    off = torch.zeros(size, size, dtype=torch.float64)
    leaves = tree.leaves(players)
    for row, unit in enumerate(torch.eye(size, dtype=torch.float64)):
        cut = torch.split(unit, [leaf.numel() for leaf in leaves])
        parts = [c.reshape(leaf.shape) for c, leaf in zip(cut, leaves, strict=True)]
        off[row] = tree.flatten(linear.pullback(tree.fill(players, parts)))
    off[:split, :split] = 0
    off[split:, split:] = 0
    found: Tensor = torch.linalg.solve(
        torch.eye(size, dtype=torch.float64) + ETA * off, tree.flatten(linear.v)
    )
    return found


@pytest.mark.parametrize("parts", [1, 2])
def test_unused_parameters_and_parts_against_a_dense_solve(parts: int) -> None:
    found = direction(VectorField(game(), parts=parts), *start(torch.float64))
    torch.testing.assert_close(found, solved(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("iterations", [5, 50, 300])
def test_float32_stays_where_it_converged(iterations: int) -> None:
    """Tolerance 0 goes on after the residual has vanished: 0 / 0 must not come of it."""
    found = direction(VectorField(game()), *start(torch.float32), iterations=iterations)
    torch.testing.assert_close(found.double(), solved(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_a_critic_of_zeros_moves_by_finite_numbers(tolerance: float) -> None:
    players, constants, draw = start(torch.float32)
    players = {**players, "critic": tree.zeros_like(players["critic"])}
    found = direction(VectorField(game()), players, constants, draw, tolerance=tolerance)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
def test_a_diverged_member_neither_stops_nor_spoils_the_others(
    bad: float, tolerance: float
) -> None:
    players, constants, draw = start(torch.float32)
    stack = tree.map(lambda t: torch.stack([t, bad * t, 1.5 * t]), players)
    drawn = {k: torch.stack([t] * 3) for k, t in draw.items()}
    field = VectorField(game(), stacked=3)
    together = moved(field, stack, constants, drawn, tolerance=tolerance)
    for member in (0, 2):
        alone = moved(
            VectorField(game()), tree.member(stack, member), constants, draw, tolerance=tolerance
        )
        torch.testing.assert_close(
            tree.flatten(tree.member(together, member)), tree.flatten(alone), rtol=1e-5, atol=1e-6
        )


def test_one_players_part_of_a_pullback_is_that_of_the_whole() -> None:
    players, constants, draw = start(torch.float64)
    linear = VectorField(game()).linearize(players, constants, draw)
    u = tree.map(torch.sin, players)
    whole = linear.pullback({"generator": u["generator"]})
    for player in players:
        part = linear.pullback({"generator": u["generator"]}, only=player)
        assert list(part) == [player]
        for name, value in part[player].items():
            torch.testing.assert_close(value, whole[player][name])
