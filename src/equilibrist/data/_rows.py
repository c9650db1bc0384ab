"""Rows of one tensor: stored as floats, or as bytes that become floats when they are read."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator

import torch

LARGE = 2**28
"""Bytes of floats above which bytes are stored as bytes.

Reading floats is faster (one core, batch 50 of MNIST: 54 against 82 microseconds; batch 64 of
CIFAR-10: 164 against 221), bytes need a quarter of the memory: 60,000 images of 3x32x32 take 184 MB
instead of 737.
"""

_CHUNK = 2**24  # values that `chunks` converts at once


class Rows:
    """N rows, read in a floating dtype.

    A byte b stands for low + (high - low) b / 255. The numbers do not depend on how the rows are
    stored, nor on the device.

    Args:
        values: floats, or uint8 of which 0 and 255 stand for the ends of `value_range`. Not copied.
        value_range: (low, high); read for uint8 only.
        dtype: floating dtype of what is read; floats must have it already.
    """

    def __init__(
        self, values: torch.Tensor, value_range: tuple[float, float], dtype: torch.dtype
    ) -> None:
        self.values = values
        self._ends = value_range
        # Every dtype on the way, for a number that was rounded once stays rounded.
        self._through: tuple[torch.dtype, ...] = (dtype,)
        self._table: torch.Tensor | None = None
        if values.dtype == torch.uint8:
            if values.nbytes * dtype.itemsize <= LARGE:
                self.values = scaled(values, value_range, dtype)
            else:
                self._table = self._tabulated(values.device)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.values.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.values.device

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """The rows at `index` (integers [n] on the device of the rows): floats [n, ...]."""
        return self._floats(self.values.index_select(0, index))

    def all(self) -> torch.Tensor:
        """Every row. Where floats of this dtype are stored, this is the stored tensor, not a copy of it."""
        return self._floats(self.values)

    def chunks(self) -> Iterator[torch.Tensor]:
        """Every row, some at a time."""
        for part in self.values.split(max(1, _CHUNK // max(1, self.values[0].numel()))):
            yield self._floats(part)

    def part(self, index: torch.Tensor) -> Rows:
        """The rows at `index` alone, stored as these are."""
        held = copy.copy(self)
        held.values = self.values.index_select(0, index)
        return held

    def shaped(self, shape: tuple[int, ...]) -> Rows:
        """The same rows, each of another shape."""
        held = copy.copy(self)
        held.values = self.values.reshape(-1, *shape)
        return held

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Rows:
        """The same rows elsewhere; memory is shared where the device stays and no number gets shorter.

        Wider numbers are made when rows are read: an audit that scores in float64 needs no second copy of the data.
        """
        moved = copy.copy(self)
        moved.values = self.values.to(device=device)
        if dtype is not None and dtype != self._through[-1]:
            moved._through = (*self._through, dtype)
            if self._table is None and dtype.itemsize <= self._through[-1].itemsize:
                moved.values, moved._through = moved.values.to(dtype), (dtype,)
        if self._table is not None:
            moved._table = moved._tabulated(moved.device)
        return moved

    def sha256(self) -> str:
        """Checksum of the rows as float32, in order."""
        total = hashlib.sha256()
        for part in self.chunks():
            total.update(part.detach().float().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()

    def _tabulated(self, device: torch.device) -> torch.Tensor:
        """The float that each of the 256 bytes stands for."""
        table = scaled(torch.arange(256, dtype=torch.uint8), self._ends, self._through[0])
        for dtype in self._through[1:]:
            table = table.to(dtype)
        return table.to(device)

    def _floats(self, values: torch.Tensor) -> torch.Tensor:
        if self._table is None:
            read = values
        elif values.device.type != "cpu":
            # Not arithmetic: an accelerator may divide by multiplying with a rounded reciprocal.
            return self._table.index_select(0, values.flatten().int()).view(values.shape)
        else:
            read = scaled(values, self._ends, self._through[0])  # twice as fast as the table
        for dtype in self._through[1:]:
            read = read.to(dtype)
        return read


def scaled(
    values: torch.Tensor, value_range: tuple[float, float], dtype: torch.dtype
) -> torch.Tensor:
    """Bytes as floats: 0 at the low end of the range, 255 at the high end."""
    low, high = value_range
    # Dividing first keeps 0 and 255 exactly on the ends of (0, 1) and (-1, 1); the clamp
    # catches the rounding of other ranges.
    read = values.to(dtype).div_(255).mul_(high - low).add_(low)
    return read.clamp_(low, high).contiguous()
