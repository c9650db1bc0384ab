"""How far a matrix is from normal: eigenvalues alone then say little of what a few steps do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCES = (
    "Henrici 1962 (departure from normality)",
    "Trefethen and Embree 2005, section 17 (numerical abscissa)",
)


def henrici(matrix: NDArray[np.float64], values: NDArray[Any]) -> float:
    """sqrt(|M|_F^2 - sum |l|^2) / |M|_F for a matrix [n, n] and its eigenvalues [n]: 0 iff M is normal,
    below 1 (Henrici 1962)."""
    size = float(np.linalg.norm(matrix))
    lost = max(size**2 - float((np.abs(values) ** 2).sum()), 0.0) ** 0.5
    return lost / size if size > 0 else 0.0


def abscissa(matrix: NDArray[np.float64]) -> float:
    """The smallest eigenvalue of (M + M^T) / 2 for a matrix [n, n].

    In the sign of own losses: |x| grows at first under x' = -M x from some start iff this is negative,
    at the rate of minus this number, whatever the eigenvalues are. At most the smallest real part of
    an eigenvalue, and equal to it for a normal matrix.
    """
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])
