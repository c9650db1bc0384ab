"""Gauss-Legendre quadrature on panels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np

from equilibrist.theory._checks import Array


@cache
def _rule(order: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return np.asarray(nodes), np.asarray(weights)


def panels(edges: Iterable[float], order: int = 12) -> tuple[Array, Array]:
    """(nodes, weights) of the rule of that order on each interval between neighbouring edges."""
    nodes, weights = _rule(order)
    edge = np.unique(np.fromiter(edges, float))
    middle, half = (edge[1:] + edge[:-1]) / 2, (edge[1:] - edge[:-1]) / 2
    x = middle[:, None] + half[:, None] * nodes
    return x.ravel(), (half[:, None] * weights).ravel()
