"""The generator's least V_prox by projected gradient descent, between two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from equilibrist.errors import GameError
from equilibrist.theory._checks import Array

if TYPE_CHECKING:
    from equilibrist.theory.w2gan import W2Gaussian

_STEPS = 2000


def bounds_by_descent(
    game: W2Gaussian, A: Array, b: Array, lam: float, starts: int, seed: int
) -> tuple[float, float]:
    """(lower, upper) bounds of min over feasible G of V_prox(G, D)."""
    rng = np.random.default_rng(seed)
    first = game.best_generator(A, b)
    initial = [(first.W, first.u), (np.eye(game.d), np.zeros(game.d))]
    while len(initial) < max(starts, 2):
        W = rng.standard_normal((game.d, game.d))
        initial.append((W, game.t * rng.standard_normal(game.d)))
    upper, lower = np.inf, -np.inf
    for W, u in initial:
        W, u = project(game, W, u)
        W, u, value = _descend(game, W, u, A, b, lam)
        upper = min(upper, value)
        try:
            A_, b_ = game.prox_critic(W, u, A, b, lam)
        except GameError:
            continue
        bound = game.best_generator(A_, b_).value - lam * game.sobolev(A_ - A, b_ - b)
        lower = max(lower, bound)
    lower = max(lower, first.value)  # V_prox is at least V
    return min(lower, upper), upper


def project(game: W2Gaussian, W: Array, u: Array) -> tuple[Array, Array]:
    """The nearest feasible generator."""
    left, sigma, right = np.linalg.svd(W)
    sigma = np.maximum(sigma, 1.0) if game.s < 1 else np.minimum(sigma, 1.0)
    length = float(np.linalg.norm(u))
    return (left * sigma) @ right, u if length <= game.t else u * (game.t / length)


def _descend(
    game: W2Gaussian, W: Array, u: Array, A: Array, b: Array, lam: float
) -> tuple[Array, Array, float]:
    value = game.v_prox(W, u, A, b, lam)
    size = 0.25 / game.eta
    for _ in range(_STEPS):
        try:
            by_w, by_u = game.v_prox_gradient(W, u, A, b, lam)
        except GameError:  # a singular W: leave it
            W, u = project(game, W + 1e-6 * np.eye(game.d), u)
            value = game.v_prox(W, u, A, b, lam)
            continue
        size *= 2
        while True:
            W_, u_ = project(game, W - size * by_w, u - size * by_u)
            moved = float(((W_ - W) ** 2).sum() + ((u_ - u) ** 2).sum())
            there = game.v_prox(W_, u_, A, b, lam)
            if there <= value - moved / (4 * size) or size < 1e-12:
                break
            size /= 2
        if there > value:
            break
        done = moved <= 1e-24 or value - there <= 1e-15 * (1 + abs(value))
        W, u, value = W_, u_, there
        if done:
            break
    return W, u, value
