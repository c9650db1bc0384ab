"""The arrays of this package, and what an operator is that is only multiplied with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]
Product = Callable[[Array], Array]  # u -> M u on vectors [n]
