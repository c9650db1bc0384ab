"""Spectral densities of symmetric operators: stochastic Lanczos quadrature, and the same from a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equilibrist.spectra.arrays import Array, Product, columns

REFERENCE = "Golub and Welsch 1969; Ghorbani, Krishnan and Xiao 2019, section 2 (Lanczos densities)"


@dataclass(frozen=True)
class End:
    """An extreme eigenvalue: one lies within `residual` of `value`, and `value` is never beyond the
    outermost one."""

    value: float
    residual: float


@dataclass(frozen=True)
class SpectralDensity:
    """The share of eigenvalues near each number: point masses that integrate to 1.

    Attributes:
        nodes, weights: [k], the masses, by node.
        lowest, highest: the ends of the spectrum.
        probes, steps: random vectors, and Lanczos steps from each; 0 where the density is exact.
    """

    nodes: Array
    weights: Array
    lowest: End
    highest: End
    probes: int
    steps: int

    def below(self, x: float) -> float:
        """The share of eigenvalues below x (with few probes, about)."""
        return float(self.weights[self.nodes < x].sum())

    def curve(self, points: int = 96, width: float = 0.015) -> dict[str, list[float]]:
        """{"at": [points], "density": [points]}: the masses as Gaussians whose standard deviation is
        `width` of the spectrum's extent."""
        low, high = float(self.nodes.min()), float(self.nodes.max())
        sigma = width * ((high - low) or abs(high) or 1.0)
        at = np.linspace(low - 3 * sigma, high + 3 * sigma, points)
        bumps = np.exp(-(((at[:, None] - self.nodes) / sigma) ** 2) / 2)
        density = bumps @ self.weights / (sigma * (2 * np.pi) ** 0.5)
        return {"at": [float(x) for x in at], "density": [float(y) for y in density]}


def density(
    product: Product, n: int, steps: int, probes: int, rng: np.random.Generator
) -> SpectralDensity:
    """The density of a symmetric operator on R^n by stochastic Lanczos quadrature.

    From each unit Gaussian probe v, `steps` Lanczos steps give a tridiagonal T with eigenpairs (t_j, s_j); the
    masses s_j[0]^2 at t_j integrate polynomials of degree 2 steps - 1 exactly against the measure of v, whose
    mean over v is the density. The error of the mean falls as 1 / sqrt(n probes). Every basis is held, and
    orthogonalised twice against all of itself.
    """
    nodes, weights, lows, highs = [], [], [], []
    for _ in range(probes):
        _, T, beta = lanczos(product, rng.standard_normal(n), steps)
        values, vectors = np.linalg.eigh(T)
        nodes.append(values)
        weights.append(vectors[0] ** 2 / probes)
        lows.append(End(float(values[0]), float(beta * abs(vectors[-1, 0]))))
        highs.append(End(float(values[-1]), float(beta * abs(vectors[-1, -1]))))
    return _of_masses(nodes, weights, lows, highs, (probes, min(steps, n)))


def block_diagonal(parts: Sequence[tuple[int, SpectralDensity]]) -> SpectralDensity:
    """The density of a block diagonal operator from (dimension, density) of its blocks."""
    n = sum(size for size, _ in parts)
    blocks = [found for _, found in parts]
    return _of_masses(
        [block.nodes for block in blocks],
        [block.weights * size / n for size, block in parts],
        [block.lowest for block in blocks],
        [block.highest for block in blocks],
        (max(block.probes for block in blocks), max(block.steps for block in blocks)),
    )


def _of_masses(
    nodes: Sequence[Array],
    weights: Sequence[Array],
    lows: Sequence[End],
    highs: Sequence[End],
    spent: tuple[int, int],
) -> SpectralDensity:
    """One density of several lists of masses and of their ends; `spent`: probes, steps."""
    at, mass = np.concatenate(nodes), np.concatenate(weights)
    order = np.argsort(at, kind="stable")
    return SpectralDensity(
        at[order],
        mass[order],
        min(lows, key=lambda end: end.value),
        max(highs, key=lambda end: end.value),
        *spent,
    )


def exact_density(matrix: Array) -> SpectralDensity:
    """The density of a symmetric matrix [n, n] from all its eigenvalues.

    Args:
        matrix: symmetric, [n, n].

    Returns:
        The density.
    """
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    rounding = float(np.finfo(np.float64).eps * len(values) * np.abs(values).max())
    return SpectralDensity(
        values.astype(np.float64),
        np.full(len(values), 1 / len(values)),
        End(float(values[0]), rounding),
        End(float(values[-1]), rounding),
        0,
        0,
    )


def lanczos(product: Product, start: Array, steps: int) -> tuple[Array, Array, float]:
    """(orthonormal basis [m, n], tridiagonal matrix [m, m], its next off-diagonal entry) of Lanczos' method with full
    reorthogonalisation (Golub and Van Loan 2013, section 10.3.1). Of large vectors as many steps as memory holds."""
    n = len(start)
    steps = min(steps, n, max(4, columns(n)))
    basis = np.empty((steps, n))
    basis[0] = start / np.linalg.norm(start)
    alpha, beta = np.zeros(steps), np.zeros(steps)
    size = 0.0
    for j in range(steps):
        w = np.array(product(basis[j]))
        alpha[j] = basis[j] @ w
        for _ in range(2):
            w -= (basis[: j + 1] @ w) @ basis[: j + 1]
        beta[j] = np.linalg.norm(w)
        size = max(size, abs(alpha[j]), beta[j])
        # Not a number where a product was not finite.
        if not beta[j] > 1e-14 * n**0.5 * size or j == steps - 1:
            break
        basis[j + 1] = w / beta[j]
    m = j + 1
    T = np.diag(alpha[:m]) + np.diag(beta[: m - 1], 1) + np.diag(beta[: m - 1], -1)
    return basis[:m], T, float(beta[m - 1])
