"""Steps in one call, and steps on minibatches of one's own, against matrices and loops written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist import SGD, Adam, Given, tree
from equilibrist.core.draws import Draws
from equilibrist.core.field import VectorField
from equilibrist.errors import GameError
from equilibrist.games import bilinear
from equilibrist.solvers import Alternating, Consensus, Extragradient, Simultaneous, iterate

F64 = torch.float64


def start() -> dict[str, Any]:
    return {
        "x": {"value": torch.tensor([1.0], dtype=F64)},
        "y": {"value": torch.tensor([0.3], dtype=F64)},
    }


def gan() -> eq.GAN:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    return eq.GAN(nn.Linear(3, 2), critic, eq.Vanilla(), latent=3)


def draw(seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {"real": torch.randn(8, 2, generator=g), "latent": torch.randn(8, 3, generator=g)}


@pytest.mark.parametrize(
    ("solver", "matrix"),
    [
        (Simultaneous(SGD(0.3)), [[1, -0.3], [0.3, 1]]),
        (Extragradient(SGD(0.3)), [[1 - 0.09, -0.3], [0.3, 1 - 0.09]]),
        (Consensus(SGD(0.3), gamma=2.0), [[1 - 0.6, -0.3], [0.3, 1 - 0.6]]),
    ],
)
def test_powers_of_a_matrix(solver: Any, matrix: Any) -> None:
    """On f = x y every step is one matrix."""
    here, z = start(), np.array([1.0, 0.3])
    found = iterate(bilinear(), solver, here, 9, every=3)
    assert found.steps.tolist() == [0, 3, 6, 9]
    for index, step in enumerate(found.steps.tolist()):
        expected = np.linalg.matrix_power(np.array(matrix), step) @ z
        at = tree.flatten(tree.member(found.players, index)).numpy()
        np.testing.assert_allclose(at, expected, rtol=1e-12)
    np.testing.assert_array_equal(tree.flatten(found.last.players), at)
    assert tree.flatten(here).tolist() == z.tolist(), "the start is left alone"
    assert tree.leaves(iterate(bilinear(), solver, here, 0).players)[0].shape == (1, 1)


def test_the_last_step_may_lie_between() -> None:
    found = iterate(bilinear(), Simultaneous(SGD(0.3)), start(), 5, every=2)
    assert found.steps.tolist() == [0, 2, 4]
    one_more = iterate(bilinear(), Simultaneous(SGD(0.3)), tree.member(found.players, 2), 1)
    assert torch.equal(tree.flatten(one_more.last.players), tree.flatten(found.last.players))


def test_a_gan_with_moments_is_the_loop_written_out() -> None:
    game, solver, data = gan(), Alternating(2, Adam(0.01)), eq.eight_gaussians()

    def make(rng: np.random.Generator) -> Any:
        return game.draw(rng, data, 8)

    found = iterate(game, solver, game.init(), 4, seed=3, draw=make)
    players, constants = game.init()
    state, field = solver.init(players), VectorField(game)
    for step in range(4):
        players, constants, state, info = solver.step(
            field, players, constants, state, Draws(make, 3, step)
        )
        assert torch.equal(
            tree.flatten(tree.member(found.players, step + 1)), tree.flatten(players)
        )
    assert torch.equal(tree.flatten(found.last.state), tree.flatten(state))
    assert found.last.info["loss"].keys() == info["loss"].keys() == {"generator", "critic"}
    other = iterate(game, solver, game.init(), 4, seed=4, draw=make)
    assert not torch.equal(tree.flatten(other.last.players), tree.flatten(players))


def test_a_step_on_minibatches_of_ones_own() -> None:
    """Each critic step sees its own, the generator the last of them: by autograd alone."""
    game, h = gan(), 0.1
    solver, (players, constants) = Alternating(2, SGD(h)), game.init()
    taken = solver.step(
        VectorField(game),
        tree.clone(players),
        constants,
        solver.init(players),
        Given(draw(0), draw(1)),
    )
    at = tree.clone(players)
    for mover, rows in (("critic", draw(0)), ("critic", draw(1)), ("generator", draw(1))):
        leaves = {k: t.clone().requires_grad_() for k, t in at[mover].items()}
        loss = game.losses({**at, mover: leaves}, constants, rows)[mover]
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        at[mover] = {
            k: (t - h * g).detach() for (k, t), g in zip(leaves.items(), slopes, strict=True)
        }
    torch.testing.assert_close(taken.players, at, rtol=1e-5, atol=1e-7)


def test_independent_minibatches_are_not_repeated() -> None:
    game = gan()
    solver, (players, constants) = Consensus(SGD(0.1), gamma=1.0, batches=2), game.init()

    def step(*draws: Any) -> Any:
        return solver.step(
            VectorField(game), tree.clone(players), constants, solver.init(players), Given(*draws)
        ).players

    with pytest.raises(GameError, match=r"needs 2 independent minibatches, only 1 are given: give"):
        step(draw(0))
    assert not torch.equal(
        tree.flatten(step(draw(0), draw(1))), tree.flatten(step(draw(0), draw(2)))
    )


def test_what_a_solver_adds_reaches_nobody_else() -> None:
    rows = draw(0)
    given = Given(rows)
    given.batch()["fake"] = torch.zeros(1)
    assert given.batch(7).keys() == rows.keys() == {"real", "latent"}


def test_noise_is_addressed_by_seed_and_step() -> None:
    like = start()
    first, again, other = (Given(draw(0), seed=1, step=k).noise(like) for k in (0, 0, 1))
    assert torch.equal(tree.flatten(first), tree.flatten(again))
    assert not torch.equal(tree.flatten(first), tree.flatten(other))


def test_wrong_input() -> None:
    solver = Simultaneous(SGD(0.1))
    with pytest.raises(
        GameError, match=r"Given needs one draw or more.* equilibrist\.draw_of_rows\(game"
    ):
        Given()
    with pytest.raises(GameError, match="a dictionary of tensors"):
        Given(torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(GameError, match=r"give draw=lambda rng: game\.draw\(rng, data, 64\)"):
        iterate(gan(), solver, gan().init(), 1)
    with pytest.raises(GameError, match="must hold the parameters of x, y"):
        iterate(bilinear(), solver, {"x": start()["x"]}, 1)
    found = iterate(bilinear(), solver, start(), 1)
    with pytest.raises(GameError, match=r"or be \(players, constants\)"):
        iterate(bilinear(), solver, found.last, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"iterate\.steps must be a whole number of at least 0"):
        iterate(bilinear(), solver, start(), -1)
    with pytest.raises(ValueError, match=r"iterate\.every must be a whole number of at least 1"):
        iterate(bilinear(), solver, start(), 1, every=0)
