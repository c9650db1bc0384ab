"""Parts of the input by name, and tests of whether a part tells real from generated samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from equilibrist.errors import DataError, did_you_mean
from equilibrist.statistics import holm

Array = NDArray[np.float64]
Entries = int | str | slice | Iterable[int | str]  # numbers or names of columns
Columns = Sequence[str] | Mapping[str, Entries]  # a name for each column, or groups of columns
MOST = 128  # columns that are tested one by one; more are taken in blocks
BLOCKS = 64
SIDE = 8  # patches along a side of an image, at most
ENTRIES = 8  # of a group that are tested one by one; of larger groups mean and spread are


@dataclass(frozen=True)
class Group:
    """A part of a sample: its name, and its entries in the flattened sample."""

    name: str
    entries: NDArray[np.int64]


@dataclass(frozen=True)
class GroupTest:
    """How well one group by itself tells real from generated samples.

    Attributes:
        effect: the share of pairs that its best feature orders, above one half.
        p: of no difference, corrected for the number of groups and features.
    """

    effect: float
    p: float


def groups_of(
    shape: Sequence[int],
    columns: Columns | None,
    names: Sequence[str],
) -> list[Group]:
    """The parts of a sample of this shape.

    Args:
        shape: of one sample.
        columns: names of the entries, in order; or a mapping from a group's name to its entries (numbers, or names
            that the data brought along); or None.
        names: names that the data brought along.

    Raises:
        DataError: names that do not fit the samples.
    """
    size = math.prod(shape)
    if isinstance(columns, Mapping):
        return [
            Group(str(name), _entries(name, part, size, names)) for name, part in columns.items()
        ]
    if columns is not None or names:
        given = list(map(str, names if columns is None else columns))
        if len(given) != size:
            raise DataError(
                f"columns: {len(given)} names for samples of {size} numbers: give one for each, or a mapping from "
                "a group's name to its columns"
            )
        if size <= MOST:
            return [Group(name, np.array([k])) for k, name in enumerate(given)]
    if len(shape) == 3:
        return _patches(shape)
    if len(shape) == 2 and shape[1] <= MOST:
        every = np.arange(size).reshape(tuple(shape))
        return [Group(f"feature {k}", every[:, k]) for k in range(shape[1])]
    if size <= MOST:
        return [Group(f"column {k}", np.array([k])) for k in range(size)]
    blocks = np.array_split(np.arange(size), BLOCKS)
    return [Group(f"columns {b[0]} to {b[-1]}", b) for b in blocks]


def _entries(name: str, part: Entries, size: int, names: Sequence[str]) -> NDArray[np.int64]:
    if isinstance(part, slice):
        return np.arange(size)[part]
    listed = [part] if isinstance(part, str | int) else list(part)
    found = []
    for entry in listed:
        if isinstance(entry, str):
            if entry not in names:
                raise DataError(
                    f"columns[{name!r}] names {entry!r}, which no column has{did_you_mean(entry, names)}"
                )
            entry = list(names).index(entry)
        if not 0 <= int(entry) < size:
            raise DataError(f"columns[{name!r}] names column {entry}: samples have {size}")
        found.append(int(entry))
    if not found:
        raise DataError(f"columns[{name!r}] holds no column: leave it out")
    return np.array(found)


def _patches(shape: Sequence[int]) -> list[Group]:
    every = np.arange(math.prod(shape)).reshape(tuple(shape))
    rows, columns = (np.array_split(np.arange(n), min(n, SIDE)) for n in shape[1:])
    return [
        Group(f"{_span('row', r)}, {_span('column', c)}", every[:, r][:, :, c].reshape(-1))
        for r in rows
        for c in columns
    ]


def _span(name: str, places: NDArray[np.int64]) -> str:
    one = len(places) == 1
    return f"{name} {places[0]}" if one else f"{name}s {places[0]}-{places[-1]}"


def tested(
    rows: Array, real: NDArray[np.bool_], strata: NDArray[np.int64], groups: list[Group]
) -> list[GroupTest]:
    """Whether each group tells real from generated samples that lie in one stratum.

    Van Elteren's (1960) rank test, the weighted sum of Wilcoxon's over strata, of each entry of a group (of mean
    and spread of a large one) and of its distance from the median, which sees differences of spread. P-values are
    corrected after Holm (1979) for all of them together.

    Args:
        rows: samples, flattened [n, size].
        real: which are real [n].
        strata: the stratum of each [n]; all 0 for no strata.
        groups: the parts.
    """
    features, owner = [], []
    for k, group in enumerate(groups):
        part = rows[:, group.entries]
        if part.shape[1] > ENTRIES:
            part = np.stack([part.mean(1), part.std(1)], axis=1)
        features.append(part)
        owner += [k] * part.shape[1]
    values = np.concatenate(features, axis=1)
    effect, z = _van_elteren(values, real, strata, folded=False)
    folded, z2 = _van_elteren(values, real, strata, folded=True)
    p = np.array(holm(list(2 * stats.norm.sf(np.abs(np.concatenate([z, z2]))))))
    effects, owners = np.concatenate([effect, folded]), np.array(owner * 2)
    found = []
    for k in range(len(groups)):
        own = np.flatnonzero(owners == k)
        best = own[np.lexsort((-np.abs(effects[own]), p[own]))[0]]
        found.append(GroupTest(float(abs(effects[best])), float(p[best])))
    return found


def _van_elteren(
    values: Array, real: NDArray[np.bool_], strata: NDArray[np.int64], folded: bool
) -> tuple[Array, Array]:
    """(share of pairs above one half, z) of each feature."""
    count = values.shape[1]
    total, variance = np.zeros(count), np.zeros(count)
    above, pairs = np.zeros(count), 0.0
    for stratum in np.unique(strata):
        inside = strata == stratum
        v, r = values[inside], real[inside]
        m, n = int(r.sum()), int((~r).sum())
        if m < 2 or n < 2:
            continue
        if folded:
            v = np.abs(v - np.median(v, axis=0))
        ranks = stats.rankdata(v, axis=0)
        excess = ranks[r].sum(0) - m * (m + n + 1) / 2
        spread = m * n / ((m + n) * (m + n - 1)) * np.square(ranks - (m + n + 1) / 2).sum(0)
        weight = 1 / (m + n + 1)
        total += weight * excess
        variance += weight**2 * spread
        above, pairs = above + excess, pairs + m * n
    z = np.divide(total, np.sqrt(variance), out=np.zeros(count), where=variance > 0)
    return above / max(pairs, 1.0), z


def strata_of(scores: Array, count: int) -> NDArray[np.int64]:
    """Bins of about equally many samples, by rank of their score."""
    ranks = stats.rankdata(scores, method="average") - 0.5
    return np.asarray(np.minimum(ranks / len(scores) * count, count - 1), dtype=np.int64)
