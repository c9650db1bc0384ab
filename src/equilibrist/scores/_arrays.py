"""Arrays in, float64 rows out, and how much memory a block of pairs may take."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from equilibrist.data.arrays import Array
from equilibrist.errors import DataError

BLOCK = 1 << 20
"""Numbers in one block of pairs: 8 MiB of float64. A few of them live at a time."""


def rows(what: str, values: Array, least: int = 1) -> Tensor:
    """`values` as a float64 tensor [n, d] without a graph.

    Raises:
        DataError: another shape, fewer than `least` rows, and values that are not finite.
    """
    tensor = torch.as_tensor(values).detach()
    if tensor.ndim != 2 or tensor.shape[1] == 0 or tensor.is_complex():
        raise DataError(
            f"{what}: {tensor.dtype} of shape {list(tensor.shape)} is no table; give reals [n, d]"
        )
    if len(tensor) < least:
        raise DataError(f"{what}: {len(tensor)} rows are too few; give at least {least}")
    if bad := nonfinite_rows(tensor):
        raise DataError(f"{what}: {bad} of {len(tensor)} rows are NaN or infinite; remove them")
    return tensor.double()


def pair(real: Array, fake: Array, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both sets as `rows`, of the same width and on the same device (that of `real`)."""
    x, y = rows("real", real, least), rows("fake", fake, least)
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"real has {x.shape[1]} columns and fake {y.shape[1]}; take both from one network"
        )
    return x, y.to(x.device)


def nonfinite_rows(samples: Tensor) -> int:
    """How many of the samples [n, ...] hold a value that is NaN or infinite."""
    return int((~torch.isfinite(samples.flatten(1))).any(dim=1).sum())


def row_blocks(x: Tensor, columns: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows of x, each so short that `columns` numbers a row make at most one block."""
    size = max(1, BLOCK // columns)
    for start in range(0, len(x), size):
        where = slice(start, start + size)
        yield where, x[where]
