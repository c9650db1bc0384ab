"""Products with a game's Jacobian as functions of NumPy vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from equilibrist.core.jacobian import JacobianOperator
from equilibrist.spectra.arrays import Array, Mask, Product

if TYPE_CHECKING:
    pass


Tick = Callable[[float], object]  # called with the products that were made


def dense_matrix(operator: JacobianOperator, tick: Tick) -> torch.Tensor:
    """The whole matrix, 64 rows at a time."""
    flipped = operator.T
    parts = []
    for rows in torch.eye(operator.shape[0], dtype=operator.dtype, device=operator.device).split(
        64
    ):
        parts.append((flipped @ rows.T).T)
        tick(len(rows))
    return torch.cat(parts)


def counted(product: Product, tick: Tick) -> Product:
    """The same product, which calls `tick` each time."""

    def counted(u: Array) -> Array:
        tick(1.0)
        return product(u)

    return counted


def symmetric_part(operator: JacobianOperator, mask: Mask | None = None) -> Product:
    """u -> (J + J^T) u / 2 on float64 vectors [n] (over the coordinates of a mask)."""
    forward, backward = (product_with(op, mask=mask) for op in (operator, operator.T))
    return lambda u: (forward(u) + backward(u)) / 2


def product_with(operator: Any, mask: Mask | None = None) -> Product:
    """operator @ u on float64 vectors [n], computed where and as the operator is; with a mask, on vectors over its
    coordinates, the others zero."""
    if mask is not None and mask.all():
        mask = None

    def product(u: Array) -> Array:
        if mask is not None:
            whole = np.zeros(len(mask))
            whole[mask] = u
            u = whole
        found: Array = (
            (operator @ torch.from_numpy(u).to(operator.device, operator.dtype))
            .double()
            .cpu()
            .numpy()
        )
        return found if mask is None else found[mask]

    return product
