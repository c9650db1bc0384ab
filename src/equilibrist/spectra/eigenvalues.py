"""Eigenvalues of one matrix: what they say of gradient steps, and all of them of a dense one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from equilibrist.errors import GameError
from equilibrist.spectra.arrays import Array, Complex
from equilibrist.spectra.normality import HenriciBounds, henrici


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of one matrix.

    Attributes:
        values: [k], by real part and then imaginary part.
        residuals: [k], |M u - l u| for the unit vector u found with l: l is an exact eigenvalue of a
            matrix that differs from M by no more (in the 2-norm).
        complete: all of them (dense), not only extremes.
        size: the norm against which a value counts as zero: |M|_F (dense) or the largest |l| found.
        departure: sqrt(|M|_F^2 - sum |l|^2) / |M|_F, 0 for a normal matrix (Henrici 1962); dense only.
        missing: searches in which not all converged, with the count.
        conditions: [k], 1 / |y^H u| for the unit left and right eigenvectors y, u: a change of M by e
            moves l by up to e times this, to first order; 1 for a normal matrix. Dense only.
        reached: ends ("smallest real part", ...) whose outermost eigenvalue converged; all where complete.
        products: matrix-vector products that were spent.
        departure_bounds: where the departure lies, estimated; where the matrix was only multiplied with.
    """

    values: Complex
    residuals: Array
    complete: bool
    size: float
    departure: float | None = None
    missing: dict[str, str] = field(default_factory=dict)
    conditions: Array | None = None
    reached: tuple[str, ...] = ()
    products: int = 0
    departure_bounds: HenriciBounds | None = None

    @property
    def nonzero(self) -> Complex:
        """Without what is zero to rounding: |l| <= 1e-8 size. (A defective zero of multiplicity two is
        found to the square root of float64's precision.) Zeros neither limit the step nor attract."""
        return self.values[np.abs(self.values) > 1e-8 * self.size]

    @property
    def h_max(self) -> float:
        """min over nonzero l of 2 Re l / |l|^2: gradient steps x - h v are locally stable iff 0 < h < h_max
        (Mescheder et al. 2017, inequality 5, in the sign of own losses). 0 where some Re l <= 0; infinite
        without nonzero l. From extremes alone it is an upper bound."""
        return largest_step(self.nonzero)

    @property
    def q(self) -> float:
        """max over nonzero l of |Im l / Re l|: how much rotation there is; infinite where Re l = 0. From
        extremes alone it is a lower bound."""
        l = self.nonzero  # noqa: E741
        with np.errstate(divide="ignore"):
            return float((np.abs(l.imag) / np.abs(l.real)).max()) if l.size else 0.0

    def radius(self, h: float) -> float:
        """max |1 - h l|: the factor by which a gradient step contracts, or expands, near the pair."""
        return float(np.abs(1 - h * self.values).max())

    def outside(self, h: float) -> int:
        """How many nonzero l lie outside of the open disc |1 - h l| < 1."""
        return int((np.abs(1 - h * self.nonzero) >= 1).sum())


def largest_step(values: Complex) -> float:
    """min 2 Re l / |l|^2 over nonzero values (Mescheder et al. 2017, inequality 5), at least 0."""
    if not values.size:
        return float("inf")
    return max(0.0, float((2 * values.real / np.abs(values) ** 2).min()))


def eigenvalues(matrix: torch.Tensor) -> Eigenvalues:
    """All eigenvalues of a dense matrix [n, n], in float64.

    Args:
        matrix: [n, n].

    Returns:
        All of them, with residuals and the departure from normality.

    Raises:
        GameError: the matrix is not finite.

    Examples:
        >>> import torch
        >>> from equilibrist import spectra
        >>> found = spectra.eigenvalues(torch.tensor([[1.0, 2.0], [-2.0, 1.0]]))
        >>> round(found.h_max, 6)  # 2 Re l / |l|^2 at l = 1 +- 2i: steps below it contract
        0.4
    """
    return eigenpairs(matrix)[0]


def eigenpairs(matrix: torch.Tensor) -> tuple[Eigenvalues, Complex, Complex]:
    """(eigenvalues, unit right eigenvectors, unit left ones), a column each, of a dense matrix [n, n].

    A left eigenvector y has y^H M = l y^H.
    """
    from scipy import linalg

    m = matrix.detach().double().cpu().numpy()
    if not np.isfinite(m).all():
        raise GameError(
            "the Jacobian is not finite at this pair: look at the run's losses and gradients"
        )
    values, left, right = linalg.eig(m, left=True, right=True)
    left, right = (v / np.linalg.norm(v, axis=0) for v in (left, right))
    residuals = np.linalg.norm(m @ right - right * values, axis=0)
    overlap = np.abs((left.conj() * right).sum(axis=0))
    order = np.lexsort((values.imag, values.real))
    with np.errstate(divide="ignore"):
        conditions = 1 / overlap[order]
    found = Eigenvalues(
        values[order].astype(np.complex128),
        residuals[order],
        True,
        float(np.linalg.norm(m)),
        henrici(m, values),
        conditions=conditions,
    )
    return found, right[:, order].astype(np.complex128), left[:, order].astype(np.complex128)
