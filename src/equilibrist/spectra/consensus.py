"""What consensus with a given gamma would do to a spectrum, and which gamma lets steps be largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equilibrist.certificates import Json
from equilibrist.spectra.arrays import Array, Complex, Product
from equilibrist.spectra.eigenvalues import largest_step

REFERENCE = "Mescheder, Nowozin and Geiger 2017, section 4 (consensus), inequality 5"


@dataclass(frozen=True)
class Forecast:
    """Gradient steps along v + gamma J^T v near a stationary pair, where they have J + gamma J^T J.

    Attributes:
        gamma: 0 for plain gradient steps.
        h_max: the largest stable step, min 2 Re l / |l|^2.
        q: max |Im l / Re l|.
        exact: from all eigenvalues of J + gamma J^T J; else as if J were normal, l + gamma |l|^2 of those
            found: an estimate.
    """

    gamma: float
    h_max: float
    q: float
    exact: bool

    def describe(self) -> Json:
        """Plain values."""
        how = "exact" if self.exact else "as if J were normal, from the extreme eigenvalues found"
        return {"gamma": self.gamma, "h_max": self.h_max, "q": self.q, "how": how}


def transposed(
    forward: Product, backward: Product, gamma: float, weights: Array | None = None
) -> Product:
    """u -> (D (J + gamma J^T J))^T u = J^T (u + gamma J u) after u <- D u, D = diag(weights) or 1."""

    def product(u: Array) -> Array:
        u = u if weights is None else weights * u
        return backward(u + gamma * forward(u))

    return product


def forecast(
    gamma: float, values: Complex, tolerance: float, matrix: Array | None = None
) -> Forecast:
    """The forecast for one gamma: exact with the matrix J [n, n], else from eigenvalues found.

    Values of modulus up to `tolerance` count as zero: nothing pulls there, with consensus or without.

    Args:
        gamma: consensus optimisation's.
        values: eigenvalues of J.
        tolerance: the modulus that counts as zero.
        matrix: J itself, for exact numbers.

    Returns:
        The largest stable step, and the rotation that is left.
    """
    if matrix is not None and gamma > 0:
        found = np.linalg.eigvals(matrix + gamma * matrix.T @ matrix)
    else:
        found = values + gamma * np.abs(values) ** 2
    found = found[np.abs(found) > tolerance].astype(np.complex128)
    with np.errstate(divide="ignore"):
        turns = np.abs(found.imag) / np.abs(found.real)
    q = float(turns.max()) if found.size else 0.0
    return Forecast(gamma, largest_step(found), q, matrix is not None)


def suggested(
    values: Complex, tolerance: float, matrix: Array | None = None
) -> tuple[Forecast | None, str]:
    """The gamma that consensus optimisation should try first at this spectrum.

    The grid is gamma |l|max = 0.01, 0.03, ..., 10. None where J has an eigenvalue with negative real part:
    consensus would hold the players at a pair that their own losses leave. None where no gamma of the grid lets
    steps grow by a tenth over plain gradient steps.

    Args:
        values: eigenvalues of J.
        tolerance: the modulus that counts as zero.
        matrix: J itself, for exact numbers.

    Returns:
        The forecast of the smallest gamma whose largest stable step is within 1% of the best on a grid, or
        None; and why there is none.
    """
    live = values[np.abs(values) > tolerance]
    if not live.size:
        return None, "no eigenvalue differs from zero"
    if live.real.min() < -tolerance:
        return None, (
            "an eigenvalue has a negative real part: consensus would hold the players at a pair that their own "
            "losses leave"
        )
    size = float(np.abs(live).max())
    plain = forecast(0.0, values, tolerance, matrix)
    tried = [
        forecast(float(g) / size, values, tolerance, matrix)
        for g in 10.0 ** np.arange(-2.0, 1.01, 0.5)
    ]
    best = max(tried, key=lambda f: f.h_max).h_max
    if not best > 1.1 * plain.h_max:
        return None, "no gamma lets gradient steps grow by a tenth"
    return next(f for f in tried if f.h_max >= 0.99 * best), ""
