"""Linear systems in the players' parameters, by products only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.tree import Tree


def stacked_dot(a: Tree, b: Tree, stacked: int | None) -> Tensor:
    """<a, b>: 0-d, or [stacked]."""
    if not stacked:
        return tree.dot(a, b)
    products = [
        (x * y).reshape(stacked, -1).sum(1)
        for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True)
    ]
    return torch.stack(products).sum(0)


def broadcast_weight(weight: Tensor | float, leaf: Tensor) -> Tensor | float:
    """A weight, or weights [stacked], shaped to multiply a leaf [stacked, ...]."""
    if isinstance(weight, float) or weight.ndim == 0:
        return weight
    return weight.reshape(-1, *[1] * (leaf.ndim - 1))


def conjugate_gradients(
    apply: Callable[[Tree], Tree],
    b: Tree,
    iterations: int,
    stacked: int | None = None,
    tolerance: float = 0.0,
) -> Tree:
    """x with `apply`(x) = b for a symmetric positive definite `apply`, from x = 0 (Hestenes and Stiefel
    1952). At most `iterations` products; with a `tolerance`, none once |b - apply(x)| <= tolerance |b|, which
    is checked after each (which synchronises a GPU). Members that have converged stay where they are."""
    x, r = tree.zeros_like(b), b
    p, square = b, stacked_dot(b, b, stacked)
    enough = tolerance**2 * square
    for k in range(iterations):
        if tolerance and k:
            square = torch.where(square > enough, square, 0.0)
            if not square.any():
                break
        q = apply(p)
        curvature = stacked_dot(p, q, stacked)
        step = _ratio(square, curvature)
        x = tree.map(lambda u, d, s=step: u + broadcast_weight(s, u) * d, x, p)
        if k == iterations - 1:
            break
        r = tree.map(lambda u, d, s=step: u - broadcast_weight(s, u) * d, r, q)
        after = stacked_dot(r, r, stacked)
        turn = _ratio(after, square)
        p = tree.map(lambda u, d, s=turn: u + broadcast_weight(s, u) * d, r, p)
        square = after
    return x


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, zero where b is: there the residual has vanished."""
    sound = b != 0
    return torch.where(sound, a / torch.where(sound, b, 1.0), 0.0)
