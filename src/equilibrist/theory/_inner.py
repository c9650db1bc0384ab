"""The inner maximisation of V_prox in the Gaussian W2GAN, solved exactly.

With H = eta I - A, kappa = 1 / (4 lambda) and c = b + 2 eta u, b~ can be eliminated:
b~ = b - (I + 4 lambda H~)^{-1} c. What is left is a concave function of H~ > 0,

    F = -s^2 tr H~ - eta^2 tr(H~^{-1} M) - 1/4 c^T (H~ + kappa I)^{-1} c - 4 lambda s^2 |H~ - H|_F^2,  M = W W^T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import brentq

from equilibrist.errors import GameError
from equilibrist.theory._checks import Array

_ROUNDS = 300


@dataclass(frozen=True)
class InnerProblem:
    """max F over H~ >= 0, 0 < lam < inf, in the basis of W's left singular vectors: H [d, d] symmetric, m [d] the
    squared singular values, from the least on, c [d]."""

    s: float
    eta: float
    lam: float
    H: Array
    m: Array
    c: Array

    @property
    def kappa(self) -> float:
        return 1 / (4 * self.lam)


def solve(
    s: float, eta: float, lam: float, H: Array, W: Array, c: Array
) -> tuple[Array, float, bool]:
    """(H~, F, attained). False: the supremum is only approached, at a singular H~ (where W is singular)."""
    left, sigma, _ = np.linalg.svd(W)
    left, sigma = left[:, ::-1], sigma[::-1]
    sigma = np.where(sigma <= 1e-15 * sigma[-1], 0.0, sigma)
    turned = left.T @ H @ left
    problem = InnerProblem(s, eta, lam, (turned + turned.T) / 2, sigma**2, left.T @ c)
    basis = _common_basis(problem)
    found, value, reached = _by_newton(problem) if basis is None else _by_roots(problem, basis)
    return left @ found @ left.T, value, reached


def scalar(
    s: float, eta: float, lam: float, h: float, m: float, c2: float
) -> tuple[float, float, bool]:
    """(h~, F, attained) for d = 1, c2 = c^2: the root of a decreasing function."""
    kappa = 1 / (4 * lam)

    def slope(x: float) -> float:
        pull = eta**2 * m / x**2 if m > 0 else 0.0
        return -(s**2) + pull + c2 / (4 * (x + kappa) ** 2) - 8 * lam * s**2 * (x - h)

    def value(x: float) -> float:
        lost = eta**2 * m / x if m > 0 else 0.0
        return -(s**2) * x - lost - c2 / (4 * (x + kappa)) - 4 * lam * s**2 * (x - h) ** 2

    if m <= 0 and slope(0.0) <= 0:
        return 0.0, value(0.0), False
    low = min(h, eta * np.sqrt(m) / s) * (1 - 1e-12)
    high = max(h, float(np.sqrt(eta**2 * m + c2 / 4)) / s) * (1 + 1e-12)
    root = low if low == high else float(brentq(slope, low, high, xtol=1e-300, rtol=1e-15))
    return root, value(root), True


def _common_basis(problem: InnerProblem) -> Array | None:
    """Orthonormal vectors that diagonalise H, W W^T and c c^T at once, or None."""
    several = [problem.H, np.diag(problem.m), np.outer(problem.c, problem.c)]
    sizes = [max(float(np.abs(x).max()), 1e-300) for x in several]
    weights = (1.0, 0.6180339887, 0.3027756377)  # no three simple matrices have ties in this sum
    mixed = sum(w * x / size for w, x, size in zip(weights, several, sizes, strict=True))
    _, vectors = np.linalg.eigh(np.asarray(mixed))
    for x, size in zip(several, sizes, strict=True):
        turned = vectors.T @ x @ vectors
        if np.abs(turned - np.diag(turned.diagonal())).max() > 1e-14 * size:
            return None
    return np.asarray(vectors)


def _by_roots(problem: InnerProblem, basis: Array) -> tuple[Array, float, bool]:
    h = (basis.T @ problem.H @ basis).diagonal()
    m = problem.m @ basis**2
    c2 = (basis.T @ problem.c) ** 2
    tiny = 1e-28 * max(float(problem.m[-1]), 1e-300)
    parts = [
        scalar(
            problem.s, problem.eta, problem.lam, float(x), float(y) if y > tiny else 0.0, float(z)
        )
        for x, y, z in zip(h, m, c2, strict=True)
    ]
    found = (basis * np.array([root for root, _, _ in parts])) @ basis.T
    return found, sum(value for _, value, _ in parts), all(reached for _, _, reached in parts)


def _by_newton(problem: InnerProblem) -> tuple[Array, float, bool]:
    """Damped Newton steps; where W is (almost) singular, first along the central path of the barrier
    mu log det H~, whose value is within d mu of the supremum."""
    d = len(problem.c)
    L: Array = np.asarray(np.linalg.cholesky(problem.H), np.float64)
    scale = problem.s**2 * float(np.trace(problem.H)) / d
    if problem.m[0] <= 1e-6 * problem.m[-1]:
        for k in range(15):
            L = _climb(problem, L, scale * 10.0**-k)
    least = float(np.linalg.svd(L, compute_uv=False)[-1]) ** 2
    reached = bool(problem.m[0] > 0 or least > 1e-7 * scale / problem.s**2)
    if reached:
        L = _climb(problem, L, 0.0)
    return L @ L.T, _f(problem, L, 0.0), reached


def _f(problem: InnerProblem, L: Array, mu: float) -> float:
    """F + mu log det H~ at H~ = L L^T."""
    p, H = problem, L @ L.T
    lost = p.eta**2 * (solve_triangular(L, np.diag(np.sqrt(p.m)), lower=True) ** 2).sum()
    shifted = p.c @ np.linalg.solve(H + p.kappa * np.eye(len(p.c)), p.c) / 4
    moved = 4 * p.lam * p.s**2 * ((H - p.H) ** 2).sum()
    return float(
        -(p.s**2) * np.trace(H) - lost - shifted - moved + 2 * mu * np.log(L.diagonal()).sum()
    )


def _climb(problem: InnerProblem, L: Array, mu: float) -> Array:
    """Newton's method in X, H~ <- L (I + X) L^T: well scaled however small H~ gets in part, for the singular
    directions of W come first in L."""
    p, d = problem, len(problem.c)
    unit = np.eye(d)
    frame = _frame(d)
    here = _f(p, L, mu)
    for _ in range(_ROUNDS):
        H, G = L @ L.T, L.T @ L
        root = solve_triangular(L, np.diag(p.eta * np.sqrt(p.m)), lower=True)
        Q = root @ root.T
        K = np.linalg.inv(H + p.kappa * unit)
        k = L.T @ (K @ p.c) / 2
        R, K = np.outer(k, k), L.T @ K @ L
        stiff = 8 * p.lam * p.s**2
        grad = -(p.s**2) * G + Q + R - stiff * L.T @ (H - p.H) @ L + mu * unit
        bent = frame @ Q + Q @ frame + K @ frame @ R + R @ frame @ K
        bent = bent + stiff * (G @ frame @ G) + mu * frame
        hessian = np.einsum("aij,bij->ab", frame, bent)
        slope = np.einsum("aij,ij->a", frame, grad)
        move = np.linalg.solve(hessian, slope)
        X = np.einsum("a,aij->ij", move, frame)
        promise = float(slope @ move)
        # Inside I + X > 0; below, rounding hides what is left to gain, and full steps still halve the error.
        size = min(1.0, 0.95 / max(-float(np.linalg.eigvalsh(X)[0]), 1e-300))
        blind = promise <= 1e-13 * (1 + abs(here))
        while True:
            candidate = L @ np.linalg.cholesky(unit + size * X)
            there = _f(p, candidate, mu)
            if blind or there >= here + 0.1 * size * promise or size < 1e-12:
                break
            size /= 2
        L, here = candidate, there
        if promise <= max(1e-3 * mu, 1e-29 * (1 + abs(here))) or size < 1e-12:
            return L
        if np.abs(X).max() <= 4e-15:
            return L
    raise GameError(
        "the inner maximisation of V_prox did not converge: scale the problem so that s and eta are near 1"
    )


def _frame(d: int) -> Array:
    """An orthonormal basis of the symmetric matrices [d (d + 1) / 2, d, d]."""
    rows, columns = np.triu_indices(d)
    frame = np.zeros((len(rows), d, d))
    index = np.arange(len(rows))
    height = np.where(rows == columns, 1.0, np.sqrt(0.5))
    frame[index, rows, columns] = height
    frame[index, columns, rows] = height
    return frame
