"""Iterates against public implementations, where they are installed: optax, cooper-optim, CGDs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from equilibrist import tree
from equilibrist.core.draws import Draws
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain
from equilibrist.games import three_nash
from equilibrist.optimizers import SGD, Adam
from equilibrist.solvers import Competitive, Extragradient, Optimistic, iterate

START, STEPS = (-1.1, -0.9), 20


def ours(solver: Any) -> list[np.ndarray]:
    """Iterates of the test pair: x maximises f, y minimises it."""
    players = {
        p: {"value": torch.tensor([v], dtype=torch.float64)}
        for p, v in zip("xy", START, strict=True)
    }
    found = iterate(three_nash(), solver, players, STEPS).players
    return [tree.flatten(tree.member(found, k)).numpy() for k in range(1, STEPS + 1)]


def v(z: np.ndarray) -> np.ndarray:
    x, y = z
    p, q = 0.3 * x**2 + y, 0.5 * y**2 + x
    size, bell = p**2 + q**2, np.exp(-(x**2 + y**2) / 100)
    fx = bell * (-x / 50 * size + 2 * p * 0.6 * x + 2 * q)
    fy = bell * (-y / 50 * size + 2 * p + 2 * q * y)
    return np.array([-fx, fy])


def close(mine: list[np.ndarray], theirs: list[np.ndarray], limit: float) -> None:
    error = max(float(np.abs(a - b).max()) for a, b in zip(mine, theirs, strict=True))
    assert error < limit, f"largest difference {error:.1e}"
    assert np.abs(mine[-1] - mine[0]).max() > 1e-2
    print(f"largest difference {error:.1e}")


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ["optimistic_gradient_descent", "optimistic_adam_v2"])
def test_optax(name: str) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install optax jax")
    optax = pytest.importorskip("optax", reason="optax is not installed: pip install optax")
    with jax.enable_x64(True):
        solver: Any
        if name == "optimistic_adam_v2":
            rule = optax.optimistic_adam_v2(0.03, b1=0.5, b2=0.9, eps=1e-8, nesterov=False)
            solver = Optimistic(Adam(0.03, 0.5, 0.9))
        else:
            rule, solver = optax.optimistic_gradient_descent(0.05), Optimistic(SGD(0.05))
        z = jax.numpy.array(START, dtype="float64")
        state, theirs = rule.init(z), []
        for _ in range(STEPS):
            change, state = rule.update(jax.numpy.array(v(np.asarray(z))), state, z)
            z = optax.apply_updates(z, change)
            theirs.append(np.asarray(z).copy())
    close(ours(solver), theirs, 1e-12)


def test_cooper_extragradient() -> None:
    optim = pytest.importorskip(
        "cooper.optim", reason="cooper is not installed: pip install cooper-optim"
    )
    z = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    rule, theirs = optim.ExtraSGD([z], lr=0.05), []
    for _ in range(STEPS):
        for move in (rule.extrapolation, rule.step):
            z.grad = torch.as_tensor(v(z.detach().numpy()))
            move()
        theirs.append(z.detach().numpy().copy())
    close(ours(Extragradient(SGD(0.05))), theirs, 1e-12)


def test_competitive_gradient_descent(float64: None) -> None:
    """On x^T B y + |x|^2/2 - |y|^4/4, x maximises. A new BCGD each step: it starts its conjugate gradients from the
    last step's solution with one iteration fewer, which leaves 4e-4 (and fails for players of one number). It
    solves in torch's default dtype."""
    cgds = pytest.importorskip("CGDs", reason="CGDs is not installed: pip install CGDs")
    B = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0]], dtype=torch.float64)

    def f(x: Any, y: Any) -> Any:
        return x @ B @ y - x.square().sum() / 2 + y.square().sum().square() / 4

    class Game(Plain):
        players = ("x", "y")
        zero_sum = True

        def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
            value = f(players["x"]["value"], players["y"]["value"])
            return {"x": -value, "y": value}

    start = {"x": [0.5, -0.7], "y": [0.4, 0.1, -0.9]}
    x, y = (torch.nn.Parameter(torch.tensor(s, dtype=torch.float64)) for s in start.values())
    players: Any = {p: {"value": torch.tensor(s, dtype=torch.float64)} for p, s in start.items()}
    solver = Competitive(SGD(0.2), iterations=4, tolerance=0.0)
    state, field, mine, theirs = solver.init(players), VectorField(Game()), [], []
    for k in range(STEPS):
        rule = cgds.BCGD([x], [y], lr_max=0.2, lr_min=0.2, tol=1e-30, atol=1e-40)
        rule.zero_grad()
        rule.step(f(x, y))
        theirs.append(torch.cat([x, y]).detach().numpy().copy())
        draws = Draws(lambda rng: {}, 0, k)
        players, _, state, _ = solver.step(field, players, {"x": {}, "y": {}}, state, draws)
        mine.append(tree.flatten(players).numpy().copy())
    close(mine, theirs, 1e-10)
