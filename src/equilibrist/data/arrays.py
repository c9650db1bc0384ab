"""Samples that fit into memory as one tensor."""

import copy
import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from equilibrist._errors import DataError
from equilibrist.data._source import Kind, check_count, cumulated


def check_range(name: str, value_range: Sequence[float]) -> tuple[float, float]:
    """`value_range` as two floats. `DataError` unless it is finite (low, high) with low < high."""
    ends = tuple(value_range)
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
        raise DataError(
            f"{name}: value range {ends} is not (low, high) with low < high; try (0, 1)"
        )
    return float(ends[0]), float(ends[1])


class ArraySource:
    """The empirical law of N samples: each draw picks a row uniformly, with replacement.

    Arguments:
        data: tensor or array, [N, channels, height, width] for images, [N, d] for points.
            Floats must lie in `value_range`; uint8 is mapped linearly onto it, 0 to its low end
            and 255 to its high end. The values are copied.
        name, origin: as in `Source`.
        kind: `"images"` or `"points"`.
        value_range: (low, high). None means (0, 1) for images and no bound for points.
        labels: optional integers [N], one class per sample. Training never reads them; they
            follow their samples through `split` and `to`.
        dtype: floating dtype of the draws.

    Raises `DataError` for an empty array, a wrong number of dimensions, another dtype, values that
    are not finite or out of range, and labels that do not fit.
    """

    def __init__(
        self,
        data: torch.Tensor | np.ndarray[Any, Any],
        *,
        name: str = "array",
        origin: str = "an array in memory",
        kind: Kind = "images",
        value_range: tuple[float, float] | None = None,
        labels: torch.Tensor | np.ndarray[Any, Any] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if kind not in ("images", "points"):
            raise DataError(f'{name}: unknown kind {kind!r}; use "images" or "points"')
        if value_range is None and kind == "images":
            value_range = (0.0, 1.0)
        self.name = name
        self.origin = origin
        self.kind: Kind = kind
        self.value_range = None if value_range is None else check_range(name, value_range)
        self._data = _floats(name, _tensor(name, data), kind, self.value_range, dtype)
        self.labels = None if labels is None else _labels(name, labels, len(self._data))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._data.shape[1:])

    @property
    def size(self) -> int:
        """Number of samples, N."""
        return len(self._data)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw n rows independently and uniformly, with replacement: [n, *shape]."""
        check_count(self.name, n)
        data = self._data
        rows = torch.from_numpy(rng.integers(0, data.shape[0], size=n))
        if data.device.type != "cpu":
            # A blocking copy would stall the queue of kernels at every step.
            rows = rows.to(data.device, non_blocking=True)
        return data.index_select(0, rows)

    @property
    def sha256(self) -> str:
        """Checksum of the samples (as float32): what tells a run's data from others of their shape."""
        values = self._data.detach().float().cpu().contiguous()
        return hashlib.sha256(values.numpy().tobytes()).hexdigest()

    def all(self) -> torch.Tensor:
        """Every sample, [size, *shape]. This is the stored tensor: read it, do not write to it."""
        return self._data

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple["ArraySource", ...]:
        """Disjoint random parts of about `fraction * size` samples each.

        A sum below 1 leaves samples out. Raises `DataError` for fractions that are not positive,
        sum to more than 1, or leave a part without samples.
        """
        ends = [0] + [round(end * self.size) for end in cumulated(self.name, fractions)]
        order = torch.from_numpy(rng.permutation(self.size)).to(self._data.device)
        parts = []
        for i, (start, stop) in enumerate(itertools.pairwise(ends), 1):
            if start == stop:
                raise DataError(
                    f"{self.name}: part {i} of {len(fractions)} would be empty; "
                    f"give larger fractions of its {self.size} samples"
                )
            part = copy.copy(self)
            part._data = self._data.index_select(0, order[start:stop])
            if self.labels is not None:
                part.labels = self.labels.index_select(0, order[start:stop])
            part.origin = f"{self.origin}; part {i} of {len(fractions)}, {stop - start} samples"
            parts.append(part)
        return tuple(parts)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "ArraySource":
        """The same samples elsewhere; memory is shared where nothing changes.

        Raises `DataError` for a dtype that is not floating.
        """
        _check_dtype(self.name, dtype)
        moved = copy.copy(self)
        moved._data = self._data.to(device=device, dtype=dtype)
        if self.labels is not None:
            moved.labels = self.labels.to(device=device)
        return moved


def _check_dtype(name: str, dtype: torch.dtype | None) -> None:
    if dtype is not None and not dtype.is_floating_point:
        raise DataError(f"{name}: draws cannot be {dtype}; choose torch.float32 or torch.float64")


def _tensor(name: str, values: torch.Tensor | np.ndarray[Any, Any]) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.detach()
    try:
        # The copy makes read-only, reversed and foreign-endian arrays digestible.
        array = np.array(values, order="C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError):
        raise DataError(
            f"{name}: cannot make a tensor of {type(values).__name__}; pass an array of float32"
        ) from None


def _floats(
    name: str,
    data: torch.Tensor,
    kind: Kind,
    value_range: tuple[float, float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    _check_dtype(name, dtype)
    shape = list(data.shape)
    wanted = "[N, channels, height, width]" if kind == "images" else "[N, d]"
    if data.ndim != wanted.count(",") + 1:
        raise DataError(f"{name}: shape {shape} does not fit {kind}; reshape it to {wanted}")
    if data.numel() == 0:
        raise DataError(f"{name}: the array is empty (shape {shape}); give at least one sample")
    if data.dtype == torch.uint8:
        if value_range is None:
            raise DataError(f"{name}: uint8 has no scale here; give a value_range or pass floats")
        low, high = value_range
        # Dividing first keeps 0 and 255 exactly on the ends of (0, 1) and (-1, 1); the clamp
        # catches the rounding of other ranges.
        scaled = data.to(dtype).div_(255).mul_(high - low).add_(low)
        return scaled.clamp_(low, high).contiguous()
    if not data.dtype.is_floating_point:
        raise DataError(f"{name}: {data.dtype} is neither floating nor uint8; convert it first")
    converted = data.to(dtype, copy=True, memory_format=torch.contiguous_format)
    least, most = torch.aminmax(converted)
    if not bool(torch.isfinite(least) & torch.isfinite(most)):
        bad = int((~torch.isfinite(converted)).sum())
        raise DataError(f"{name}: {bad} values are NaN or infinite in {dtype}; remove them first")
    if value_range is not None:
        # The ends are rounded as the values were.
        ends = torch.tensor(value_range, dtype=dtype, device=converted.device)
        if bool(least < ends[0]) or bool(most > ends[1]):
            raise DataError(
                f"{name}: values run from {least.item():.6g} to {most.item():.6g}, outside of "
                f"{value_range}; pass the value_range that they have"
            )
    return converted


def _labels(name: str, labels: torch.Tensor | np.ndarray[Any, Any], size: int) -> torch.Tensor:
    tensor = _tensor(name, labels)
    whole = not tensor.dtype.is_floating_point and not tensor.dtype.is_complex
    if tuple(tensor.shape) != (size,) or not whole:
        raise DataError(
            f"{name}: labels of shape {list(tensor.shape)} and {tensor.dtype} do not fit "
            f"{size} samples; give {size} integers"
        )
    return tensor.to(torch.int64, copy=True)
