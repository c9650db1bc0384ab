"""f-GANs a second time: their own f' and f*, means by quadrature in extended precision; no closed form of `fgan`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from equilibrist.theory._quadrature import panels

Long = NDArray[np.longdouble]
Rule = Callable[[Long], NDArray[Any]]
_LOG2 = np.log(np.longdouble(2))
# D* = f'(t) and f*(f'(t)) by the formula of f*; where dom f* ends at an edge, from w = edge - f'(t), which keeps its
# digits: squared Hellinger w = t^-1/2, Neyman w = t^-2, Jensen-Shannon w = log(1 + 1/t).
_RULES: dict[str, tuple[Rule, Rule]] = {
    "kl": (lambda t: np.log(t) + 1, lambda t: np.exp(np.log(t) + 1 - 1)),
    "reverse_kl": (lambda t: -1 / t, lambda t: -1 - np.log(1 / t)),
    "jensen_shannon": (
        lambda t: _LOG2 - np.log1p(1 / t),
        lambda t: -_LOG2 - np.log(-np.expm1(-np.log1p(1 / t))),
    ),
    "vanilla": (lambda t: -np.log1p(1 / t), lambda t: -np.log(-np.expm1(-np.log1p(1 / t)))),
    "pearson": (lambda t: 2 * (t - 1), lambda t: (2 * (t - 1)) ** 2 / 4 + 2 * (t - 1)),
    "neyman": (lambda t: 1 - t**-2, lambda t: 2 - 2 * np.sqrt(t**-2)),
    "squared_hellinger": (lambda t: 1 - 1 / np.sqrt(t), lambda t: (1 - t**-0.5) / t**-0.5),
    "jeffreys": (lambda t: np.log(t) + 1 - 1 / t, lambda t: _jeffreys(np.log(t) + 1 - 1 / t)),
}


def _jeffreys(u: Long) -> Long:
    """sup over t of t u - (t - 1) log t: Newton's method for v = -log t in v + e^v = 1 - u, from the right."""
    z = 1 - u
    v = np.where(z > 1, np.log(np.maximum(z, 1)), z)
    for _ in range(9):
        v = v - (v + np.exp(v) - z) / (1 + np.exp(v))
    t = np.exp(-v)
    return np.asarray(t * u + (t - 1) * v)


def _nodes(reach: float, core: float) -> tuple[Long, Long]:
    """Nodes and weights on [-reach, reach], closer together on [-core, core]."""
    grids = [np.linspace(-x, x, n) for x, n in ((min(core, reach), 41), (reach, 81))]
    x, w = panels(np.concatenate(grids), 8)
    return x.astype(np.longdouble), w.astype(np.longdouble)


def _radii(d: int, reach: float, core: float = 13.0) -> tuple[Long, Long]:
    """|z| and weights for means over z ~ N(0, I_d); d = 0: the point 0."""
    if d == 0:
        return np.zeros(1, np.longdouble), np.ones(1, np.longdouble)
    rho, weights = _nodes(reach, core)
    rho, weights = rho[rho > 0], weights[rho > 0]
    log = (
        (d - 1) * np.log(rho)
        - rho**2 / 2
        - np.longdouble((d / 2 - 1) * math.log(2) + gammaln(d / 2))
    )
    return rho, np.exp(log) * weights


def f_values(name: str, d: int, s: float, rho: float) -> tuple[float, float, float]:
    """(E_P D*, E_Q f*(D*), E f*(D*(z + u))) with |u| = rho, D* = f'(p/q), Q = N(0, I_d), by quadrature.

    nan where the mass that counts lies where a power of p/q overflows.
    """
    first, paid_at = _RULES[name]
    # The mean of r under a shift sits at s^2 u and is s wide; Pearson squares r (and Neyman 1 / r).
    wide, centre = max(s, 1.0), rho * max(s * s, 1.0)
    if name == "pearson" and s > 1:
        wide, centre = s / math.sqrt(2 - s * s), rho * s * s / (2 - s * s)
    if name == "neyman" and s < 1:
        wide = s / math.sqrt(2 * s * s - 1)
    reach = (11 + math.sqrt(d)) * wide + centre + rho
    # Beyond this log ratio a power of r overflows (extended precision: 10,900; squares: half of it).
    most = np.longdouble(0.96 * math.log(2) * int(np.finfo(np.longdouble).maxexp))
    most = most / 2 if name in ("pearson", "neyman") else most

    def beyond(centre: float) -> bool:
        return bool(abs(1 - s**-2) * (centre + (9 + math.sqrt(d)) * wide) ** 2 / 2 > most)

    def ratio(squares: Long) -> Long:
        s_ = np.longdouble(s)
        log = (1 - 1 / s_**2) * squares / 2 - d * np.log(s_)
        return np.asarray(np.exp(np.clip(log, -most, most)))

    # One coordinate along the shift, the distance in the others.
    along, weights = _nodes(reach, 13.0)
    rest, rest_weights = _radii(d - 1, reach)
    paid = paid_at(ratio(along[:, None] ** 2 + rest**2))
    root = np.sqrt(2 * np.longdouble(math.pi))

    def mean(shift: float) -> float:
        density = np.exp(-((along - np.longdouble(shift)) ** 2) / 2) / root
        return float(((weights * density)[:, None] * rest_weights * paid).sum())

    far, far_weights = _radii(d, max(reach, 12 + math.sqrt(d)) / min(s, 1.0), 13 / max(s, 1.0))
    earned = first(ratio((np.longdouble(s) * far) ** 2))
    if beyond(0.0):
        return math.nan, math.nan, math.nan
    moved = math.nan if beyond(centre) else mean(rho)
    return float((far_weights * earned).sum()), mean(0.0), moved
