"""Samples that fit into memory as one tensor."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist.data._rows import Rows
from equilibrist.data._source import Kind, ShownSource, check_count, cumulated
from equilibrist.errors import DataError

Array = torch.Tensor | NDArray[np.generic]


def check_range(name: str, value_range: Sequence[float]) -> tuple[float, float]:
    """`value_range` as two floats. `DataError` unless it is finite (low, high) with low < high."""
    ends = tuple(value_range)
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
        raise DataError(
            f"{name}: value range {ends} is not (low, high) with low < high; try (0, 1)"
        )
    return float(ends[0]), float(ends[1])


class ArraySource(ShownSource):
    """The empirical law of N samples: each draw picks a row uniformly, with replacement.

    Args:
        data: tensor or array, [N, channels, height, width] for images, [N, d] for points, [N, ...] for arrays.
            Floats must lie in `value_range`; uint8 is mapped linearly onto it, 0 to its low end
            and 255 to its high end. Many bytes (above 256 MiB as floats)
            are stored as bytes and converted when they are drawn: the same numbers.
        name, origin: as in `Source`.
        kind: `"images"`, `"points"`, or `"arrays"`: signals, sequences and volumes, of any shape.
        value_range: (low, high). None means (0, 1) for images and no bound for others.
        labels: optional integers [N], the class of each sample, counted from 0.
        classes: number of classes, K; None takes the largest label plus one.
        class_names: optional, what each class is called, K texts.
        conditions: instead of labels, floats [N, ...] that belong to the samples, such as the
            images [N, C, H, W] of image-to-image pairs; uint8 is mapped as in `data`.
        dtype: floating dtype of the draws.
        copy: whether the values are copied; if not, leave `data` unchanged from now on.

    Labels and conditions follow their samples through `split` and `to`; `sample` never reads them.

    Attributes besides those of `Source`: `labels` (int64 [N] or None), `classes` (K or None),
    `class_names` (or None).

    Raises:
        DataError: an empty array, a wrong number of dimensions, another dtype, values that are not finite
            or out of range, and labels or conditions that do not fit.

    Examples:
        >>> import numpy as np
        >>> from equilibrist import ArraySource
        >>> points = np.random.default_rng(0).normal(size=(100, 2))
        >>> source = ArraySource(points, kind="points", name="cloud")
        >>> source.sample(np.random.default_rng(1), 3).shape
        torch.Size([3, 2])
        >>> [part.size for part in source.split([0.5, 0.25, 0.25], np.random.default_rng(2))]
        [50, 25, 25]
    """

    # The shape that samples had before they became points.
    unflattened: tuple[int, ...] | None = None
    # Why what came beside the samples was not taken for labels, and what to do.
    why_unlabelled: str = ""

    # Many parameters: each is one fact about the samples, and most arrays need two or three of them.
    def __init__(
        self,
        data: Array,
        *,
        name: str = "array",
        origin: str = "an array in memory",
        kind: Kind = "images",
        value_range: tuple[float, float] | None = None,
        labels: Array | None = None,
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        conditions: Array | None = None,
        dtype: torch.dtype = torch.float32,
        copy: bool = True,
    ) -> None:
        if kind not in ("images", "points", "arrays"):
            raise DataError(f'{name}: unknown kind {kind!r}; use "images", "points" or "arrays"')
        if value_range is None and kind == "images":
            value_range = (0.0, 1.0)
        self.name = name
        self.origin = origin
        self.kind: Kind = kind
        self.value_range = None if value_range is None else check_range(name, value_range)
        _check_dtype(name, dtype)
        tensor = _tensor(name, data, copy)
        _check_shape(name, tensor, kind)
        self._rows = _rows(name, tensor, self.value_range, dtype, copy)
        if labels is not None and conditions is not None:
            raise DataError(f"{name}: has labels and conditions; give one of them")
        if labels is None and (classes is not None or class_names is not None):
            raise DataError(f"{name}: classes without labels; give the labels too")
        self.labels: torch.Tensor | None = None
        self.classes: int | None = None
        self.class_names = None if class_names is None else tuple(class_names)
        if labels is not None:
            self.labels = _labels(name, labels, len(self._rows))
            self.classes = _classes(name, self.labels, classes, self.class_names)
        self._conditions: Rows | None = None
        if conditions is not None:
            self._conditions = _paired(name, conditions, len(self._rows), self.value_range, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._rows.shape

    @property
    def size(self) -> int:
        """Number of samples, N."""
        return len(self._rows)

    @property
    def conditions(self) -> torch.Tensor | None:
        """The conditions that are no classes, [N, ...], or None."""
        return None if self._conditions is None else self._conditions.all()

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw n rows independently and uniformly, with replacement: [n, *shape]."""
        return self._rows.take(self._draw(rng, n))

    def sample_pairs(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw (x, y): the rows that `sample` draws, with their labels [n] or conditions [n, ...].

        Raises:
            DataError: the samples have neither.
        """
        return self.take_pairs(self._draw(rng, n))

    def take_pairs(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(x, y) at `index` (integers [n] on their device), as `sample_pairs` draws them."""
        if self.labels is not None:
            return self._rows.take(index), self.labels.index_select(0, index)
        if self._conditions is None:
            instead = self.why_unlabelled or (
                "give ArraySource labels=... or conditions=..., or train without conditions"
            )
            raise DataError(f"{self.name}: the samples have no labels or conditions; {instead}")
        return self._rows.take(index), self._conditions.take(index)

    def _draw(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        check_count(self.name, n)
        index = torch.from_numpy(rng.integers(0, len(self._rows), size=n))
        if self._rows.device.type != "cpu":
            # A blocking copy would stall the queue of kernels at every step.
            index = index.to(self._rows.device, non_blocking=True)
        return index

    @property
    def sha256(self) -> str:
        """Checksum of the samples (as float32): what tells a run's data from others of their shape."""
        return self._rows.sha256()

    def all(self) -> torch.Tensor:
        """Every sample, [size, *shape].

        Floats that are stored are returned as they lie: read them, do not write to them. Bytes
        that are stored are converted, all at once; `take` converts some.
        """
        return self._rows.all()

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """The samples at `index` (integers [n] on their device): [n, *shape]."""
        return self._rows.take(index)

    def shaped(self, shape: tuple[int, ...]) -> ArraySource:
        """The same samples as arrays of this shape."""
        made = copy.copy(self)
        made._rows, made.kind = self._rows.shaped(shape), "arrays"
        return made

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple[ArraySource, ...]:
        """Disjoint random parts of about `fraction * size` samples each.

        A sum below 1 leaves samples out.

        Raises:
            DataError: fractions that are not positive, sum to more than 1, or leave a part without samples.
        """
        ends = [0] + [round(end * self.size) for end in cumulated(self.name, fractions)]
        order = torch.from_numpy(rng.permutation(self.size)).to(self._rows.device)
        parts = []
        for i, (start, stop) in enumerate(itertools.pairwise(ends), 1):
            if start == stop:
                raise DataError(
                    f"{self.name}: part {i} of {len(fractions)} would be empty; "
                    f"give larger fractions of its {self.size} samples"
                )
            part = copy.copy(self)
            part._rows = self._rows.part(order[start:stop])
            if self.labels is not None:
                part.labels = self.labels.index_select(0, order[start:stop])
            if self._conditions is not None:
                part._conditions = self._conditions.part(order[start:stop])
            part.origin = f"{self.origin}; part {i} of {len(fractions)}, {stop - start} samples"
            parts.append(part)
        return tuple(parts)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ArraySource:
        """The same samples elsewhere; memory is shared where nothing changes.

        Raises:
            DataError: a dtype that is not floating.
        """
        _check_dtype(self.name, dtype)
        moved = copy.copy(self)
        moved._rows = self._rows.to(device, dtype)
        if self.labels is not None:
            moved.labels = self.labels.to(device=device)
        if self._conditions is not None:
            moved._conditions = self._conditions.to(device, dtype)
        return moved


def _check_dtype(name: str, dtype: torch.dtype | None) -> None:
    if dtype is not None and not dtype.is_floating_point:
        raise DataError(f"{name}: draws cannot be {dtype}; choose torch.float32 or torch.float64")


def _tensor(name: str, values: Array, copied: bool = True) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        values = values.detach()
        # Floats are copied when they are checked; bytes may be kept as they are.
        return values.clone() if copied and values.dtype == torch.uint8 else values
    try:
        # The copy makes read-only, reversed and foreign-endian arrays digestible.
        array = np.array(values, order="C") if copied else np.require(values, requirements="W")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError):
        raise DataError(
            f"{name}: cannot make a tensor of {type(values).__name__}; pass an array of float32"
        ) from None


def _check_shape(name: str, data: torch.Tensor, kind: Kind) -> None:
    shape = list(data.shape)
    wanted = {"images": "[N, channels, height, width]", "points": "[N, d]"}.get(kind, "[N, ...]")
    if data.ndim < 2 if kind == "arrays" else data.ndim != wanted.count(",") + 1:
        raise DataError(f"{name}: shape {shape} does not fit {kind}; reshape it to {wanted}")
    if data.numel() == 0:
        raise DataError(f"{name}: the array is empty (shape {shape}); give at least one sample")


def _rows(
    name: str,
    data: torch.Tensor,
    value_range: tuple[float, float] | None,
    dtype: torch.dtype,
    copied: bool = True,
) -> Rows:
    if data.dtype == torch.uint8:
        if value_range is None:
            raise DataError(f"{name}: uint8 has no scale here; give a value_range or pass floats")
        return Rows(data, value_range, dtype)
    if not data.dtype.is_floating_point:
        raise DataError(f"{name}: {data.dtype} is neither floating nor uint8; convert it first")
    converted = data.to(dtype, copy=copied).contiguous()
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
    return Rows(converted, value_range or (0.0, 1.0), dtype)


def _paired(
    name: str,
    conditions: Array,
    size: int,
    value_range: tuple[float, float] | None,
    dtype: torch.dtype,
) -> Rows:
    tensor = _tensor(f"{name}: conditions", conditions)
    if tensor.ndim < 2 or len(tensor) != size or tensor.numel() == 0:
        raise DataError(
            f"{name}: conditions of shape {list(tensor.shape)} do not fit {size} samples; "
            f"give [{size}, ...], or classes as labels"
        )
    # Floats may have a range of their own: heights, or maps of segments.
    bound = value_range if tensor.dtype == torch.uint8 else None
    return _rows(f"{name}: conditions", tensor, bound, dtype)


def _labels(name: str, labels: Array, size: int) -> torch.Tensor:
    tensor = _tensor(name, labels)
    whole = not tensor.dtype.is_floating_point and not tensor.dtype.is_complex
    if tuple(tensor.shape) != (size,) or not whole:
        raise DataError(
            f"{name}: labels of shape {list(tensor.shape)} and {tensor.dtype} do not fit "
            f"{size} samples; give {size} integers"
        )
    return tensor.to(torch.int64, copy=True)


def _classes(
    name: str, labels: torch.Tensor, classes: int | None, class_names: tuple[str, ...] | None
) -> int:
    """The number of classes, after every label was found to be one of them."""
    least, most = (int(end) for end in torch.aminmax(labels))
    if classes is None:
        classes = most + 1 if class_names is None else len(class_names)
    if class_names is not None and len(class_names) != classes:
        raise DataError(
            f"{name}: {len(class_names)} class names for {classes} classes; name each class once"
        )
    if least < 0 or most >= classes:
        bad = least if least < 0 else most
        raise DataError(
            f"{name}: a label of {bad} is none of {max(classes, 0)} classes; count classes from 0"
        )
    return classes
