"""What the closed forms accept: numbers in their range, arrays of the right shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equilibrist.errors import GameError

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Numbers: TypeAlias = "ArrayLike | Tensor"  # what the closed forms take


def weight(lam: float) -> float:
    """lambda of equation 11: in [0, inf], infinity included."""
    lam = float(lam)
    if not lam >= 0:
        raise ValueError(f"lam must not be negative (0 and inf are allowed), not {lam!r}")
    return lam


def finite_array(name: str, value: Numbers, *shape: int) -> Array:
    """`value` (an array, a tensor or nested lists) as float64 of that shape."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    found = np.asarray(value, dtype=np.float64)
    if found.shape != shape:
        raise GameError(f"{name} must have shape {list(shape)}, not {list(found.shape)}")
    if not np.isfinite(found).all():
        raise GameError(f"{name} must be finite: it holds infinite or undefined entries")
    return found
