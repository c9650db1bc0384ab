"""What laws with a density share: no list of samples, nothing to cut, draws in a chosen dtype."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch

from equilibrist.data._source import Kind, ShownSource, cumulated
from equilibrist.errors import DataError

_NUMPY: dict[torch.dtype, type[np.float32] | type[np.float64]] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
}


class Law(ShownSource):
    """A law of points that draws afresh: the parts of `Source` that do not depend on which law.

    Subclasses set `name`, `origin` and `shape`, and call `_place` once.
    """

    name: str
    origin: str
    shape: tuple[int, ...]
    kind: Kind = "points"
    size: int | None = None
    value_range: tuple[float, float] | None = None
    classes: int | None = None

    def _place(self, device: torch.device, dtype: torch.dtype) -> None:
        if dtype not in _NUMPY:
            raise DataError(
                f"{self.name}: points cannot be drawn in {dtype}; "
                "choose torch.float32 or torch.float64"
            )
        self._device, self._dtype, self._draw_dtype = device, dtype, _NUMPY[dtype]

    def _normal(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Standard normal points [n, *shape] on the CPU, in the dtype of the draws."""
        drawn = torch.empty(n, *self.shape, dtype=self._dtype)  # torch's memory is aligned
        rng.standard_normal(dtype=self._draw_dtype, out=drawn.numpy())
        return drawn

    def _delivered(self, drawn: torch.Tensor) -> torch.Tensor:
        device = self._device
        return drawn if device.type == "cpu" else drawn.to(device, non_blocking=True)

    def _check_points(self, x: torch.Tensor) -> None:
        if x.shape[-1:] != self.shape or not x.dtype.is_floating_point:
            raise DataError(
                f"{self.name}: no density at {x.dtype} {list(x.shape)}; "
                f"give floats [..., {self.shape[0]}]"
            )

    def all(self) -> torch.Tensor:
        """Always raises `DataError`: the law has no list of samples."""
        raise DataError(f"{self.name}: an infinite law has no list of samples; use sample(rng, n)")

    def split(self, fractions: Sequence[float], rng: np.random.Generator) -> tuple[Self, ...]:
        """This law once per fraction: fresh draws share no sample, so nothing need be cut."""
        return (self,) * len(cumulated(self.name, fractions))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The same law, drawn in `dtype` (float32 or float64, else `DataError`) onto `device`."""
        moved = copy.copy(self)
        place = self._device if device is None else torch.device(device)
        moved._place(place, self._dtype if dtype is None else dtype)
        return moved
