"""The least value of a quadratic on a ball (the trust-region problem), exactly."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from equilibrist.theory._checks import Array


def least_on_ball(Q: Array, g: Array, radius: float) -> tuple[Array, float]:
    """(u, value): a minimiser of u^T Q u + g^T u over |u| <= radius, Q [d, d] symmetric, definite or not.

    u solves 2 (Q + mu I) u = -g with mu >= 0, Q + mu I positive semi-definite and mu (|u| - radius) = 0
    (More and Sorensen 1983). mu is the root of |u(mu)| = radius, bracketed by the part of g along the
    lowest eigenvectors and by all of g; where that part vanishes (the hard case) a lowest eigenvector fills
    u up to the radius.
    """
    values, vectors = np.linalg.eigh(Q)
    slope = vectors.T @ g
    scale = max(float(np.abs(values).max()), 1e-300)

    def found(u: Array) -> tuple[Array, float]:
        return vectors @ u, float(values @ u**2 + slope @ u)

    if radius == 0:
        return found(np.zeros_like(slope))
    if values[0] > 0 and np.linalg.norm(inside := -slope / (2 * values)) <= radius:
        return found(inside)
    low = max(0.0, -float(values[0]))
    above = values + low
    lowest = above <= 1e-14 * scale
    tail = np.where(lowest, 0.0, -slope / (2 * np.where(lowest, 1.0, above)))
    rest, pull = float(np.linalg.norm(tail)), float(np.linalg.norm(slope[lowest]))
    if rest <= radius and pull <= 1e-15 * max(float(np.linalg.norm(slope)), scale * radius):
        tail[0] = np.sqrt(max(radius**2 - rest**2, 0.0)) if low > 0 else 0.0
        return found(tail)

    def excess(more: float) -> float:
        return float(np.linalg.norm(slope / (2 * (above + more)))) / radius - 1

    # |u| is at least pull / (2 more) and at most |g| / (2 more).
    least, most = (x / (2 * radius) for x in (pull, float(np.linalg.norm(slope))))
    least, most = max(least * (1 - 1e-12), 1e-300), most * (1 + 1e-12)
    more = brentq(excess, least, most, xtol=1e-300, rtol=1e-14) if excess(least) > 0 else least
    u = -slope / (2 * (above + more))
    return found(u * min(1.0, radius / float(np.linalg.norm(u))))
