"""The arrays of this package, and what an operator is that is only multiplied with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Vectors = NDArray[np.float64 | np.complex128]  # complex where any entry is
Mask = NDArray[np.bool_]
Product = Callable[[Array], Array]  # u -> M u on vectors [n]

MEMORY = 1.5e9  # bytes that the basis of a search may take


def columns(n: int, dtype: type = np.float64) -> int:
    """How many vectors [n] the memory of a basis holds."""
    return int(MEMORY / (np.dtype(dtype).itemsize * max(n, 1)))


def combined(basis: Array, Y: Complex) -> Vectors:
    """basis [n, m] times complex coordinates [m] or [m, k], without a complex copy of the basis."""
    real, imaginary = (np.ascontiguousarray(part, basis.dtype) for part in (Y.real, Y.imag))
    if not imaginary.any():
        return (basis @ real).astype(np.float64, copy=False)
    found = (basis @ real).astype(np.complex128)
    found.imag = basis @ imaginary
    return found
