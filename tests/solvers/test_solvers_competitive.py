"""Competitive gradient descent on small GANs, against a dense Jacobian."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import SGD
from equilibrist.solvers import Competitive
from equilibrist.solvers._linear_solve import conjugate_gradients

F64 = torch.float64
BATCH, ETA = 6, 0.7
GAMES = {
    "zero-sum, generator smaller": (2, 5, Vanilla(saturating=True)),
    "zero-sum, critic smaller": (5, 2, Vanilla(saturating=True)),
    "WGAN": (3, 4, WGAN()),
    "non-saturating": (3, 4, Vanilla()),
}


class Given:
    """One minibatch, whatever is asked for."""

    def __init__(self, draw: dict[str, Tensor]) -> None:
        self.draw = draw

    def batch(self, index: int = 0) -> dict[str, Tensor]:
        return self.draw


def minibatch(seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: spread * torch.randn(BATCH, 2, generator=rng, dtype=F64)
        for name in ("real", "latent")
    }


def game(name: str) -> GAN:
    wide, deep, formulation = GAMES[name]
    torch.manual_seed(1)
    generator = nn.Sequential(
        nn.Linear(2, wide, dtype=F64), nn.Tanh(), nn.Linear(wide, 2, dtype=F64)
    )
    critic = nn.Sequential(nn.Linear(2, deep, dtype=F64), nn.Tanh(), nn.Linear(deep, 1, dtype=F64))
    return GAN(generator, critic, formulation, latent=2)


def dense(field: VectorField, players: Any, constants: Any, draw: Any) -> tuple[Tensor, Tensor]:
    """v and J, a column at a time by central differences of v."""
    x, step = tree.flatten(players), 1e-5

    def v(at: Tensor) -> Tensor:
        found = field(tree.unflatten(at, players), constants, draw).v
        return tree.flatten({player: found[player] for player in players})

    columns = [(v(x + step * e) - v(x - step * e)) / (2 * step) for e in torch.eye(len(x)).to(x)]
    return v(x), torch.stack(columns, 1)


def expected(name: str, players: Any, constants: Any, draw: Any) -> Tensor:
    """x - eta (I + eta O)^{-1} v."""
    v, J = dense(VectorField(game(name)), players, constants, draw)
    first = tree.count(next(iter(players.values())))
    J[:first, :first] = 0
    J[first:, first:] = 0
    return tree.flatten(players) - ETA * torch.linalg.solve(torch.eye(len(J)).to(J) + ETA * J, v)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", GAMES)
def test_step_is_the_dense_one(name: str, parts: int) -> None:
    made, draw = game(name), minibatch(3)
    players, constants = made.init()
    truth = expected(name, players, constants, draw)
    solver = Competitive(SGD(ETA), iterations=60, tolerance=1e-13)
    field = VectorField(made, parts=parts)
    moved = solver.step(field, players, constants, solver.init(players), Given(draw)).players
    torch.testing.assert_close(tree.flatten(moved), truth, rtol=0, atol=1e-8)


def test_anticipation_matters_here() -> None:
    """The rejecting half: without O the step is another one, by far more than 1e-8."""
    made, draw = game("WGAN"), minibatch(3)
    players, constants = made.init()
    v, _ = dense(VectorField(made), players, constants, draw)
    plain = tree.flatten(players) - ETA * v
    assert (plain - expected("WGAN", players, constants, draw)).norm() > 1e-2


@pytest.mark.parametrize("name", GAMES)
def test_members_of_a_stack_stop_by_themselves(name: str) -> None:
    """A member with small samples converges at once, and is left alone while the other goes on."""
    made, draws = game(name), [minibatch(3, 1e-3), minibatch(4, 3.0)]
    solver = Competitive(SGD(ETA), iterations=40, tolerance=1e-6)
    starts = [made.init(seed) for seed in (0, 1)]
    alone = [
        solver.step(
            VectorField(made),
            tree.clone(start.players),
            start.constants,
            solver.init(start.players),
            Given(draw),
        )
        for start, draw in zip(starts, draws, strict=True)
    ]
    stacked = tree.stack([start.players for start in starts])
    together = solver.step(
        VectorField(made, stacked=2),
        stacked,
        tree.stack([start.constants for start in starts]),
        solver.init(stacked),
        Given(tree.stack(draws)),
    )
    for i, one in enumerate(alone):
        torch.testing.assert_close(
            tree.flatten(tree.member(together.players, i)),
            tree.flatten(one.players),
            rtol=1e-10,
            atol=1e-12,
        )


def test_tolerance_saves_products_and_keeps_its_word() -> None:
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(30, 30, generator=rng, dtype=F64)
    A, b = torch.eye(30, dtype=F64) + root @ root.T / 30, torch.ones(30, dtype=F64)
    for tolerance, most in ((1e-2, 12), (1e-6, 24), (0.0, 30)):
        calls = 0

        def apply(u: Any) -> Any:
            nonlocal calls
            calls += 1
            return {"x": A @ u["x"]}

        x = conjugate_gradients(apply, {"x": b}, 30, tolerance=tolerance)["x"]
        residual = (b - A @ x).norm() / b.norm()
        assert residual <= max(tolerance, 1e-8) * (1 + 1e-6)
        assert calls <= most
        assert (calls == 30) == (tolerance == 0)
