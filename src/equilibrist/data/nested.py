"""Batches of any structure, as loaders hold them: tensors in tuples, lists and dictionaries."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from equilibrist import tree
from equilibrist.data._source import Kind, ShownSource, Source, check_count, cumulated
from equilibrist.data.loaders import loader_of, unmoved
from equilibrist.data.structure import Structure
from equilibrist.errors import DataError, first_line

_WHEEL = 1000  # batches of a function are dealt to parts by their number modulo this


class NestedSource(ShownSource):
    """Rows of several tensors that belong together, [N, ...] each: what a loader's batches hold.

    Args:
        rows: by name.
        structure: how batches are nested.
        name, origin: as in `Source`.

    Attributes:
        kind, shape: of the first tensor; `size` rows.

    Raises:
        DataError: tensors of different lengths, or without rows.
    """

    value_range = None

    def __init__(
        self,
        rows: Mapping[str, Tensor],
        structure: Structure,
        name: str = "the data",
        origin: str = "tensors in memory",
    ) -> None:
        self._rows, self.structure = dict(rows), structure
        self.name, self.origin = name, origin
        sizes = {key: len(t) if t.ndim else None for key, t in rows.items()}
        if len(set(sizes.values())) > 1 or not next(iter(sizes.values())):
            listed = ", ".join(f"{key}: {size}" for key, size in sizes.items())
            raise DataError(f"{name}: tensors differ in their number of rows ({listed})")
        first = next(iter(rows.values()))
        self.kind: Kind = "images" if first.ndim == 4 else "points"
        self.size: int = len(first)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row of the first tensor."""
        return tuple(next(iter(self._rows.values())).shape[1:])

    def take_rows(self, index: Tensor) -> dict[str, Tensor]:
        """The rows at `index` (integers [n]) by name."""
        return {
            key: rows.index_select(0, index.to(rows.device)) for key, rows in self._rows.items()
        }

    def sample_rows(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """n rows, drawn independently and uniformly, with replacement."""
        check_count(self.name, n)
        return self.take_rows(torch.from_numpy(rng.integers(0, self.size, size=n)))

    def sample(self, rng: np.random.Generator, n: int) -> Tensor:
        """n rows of the first tensor [n, ...], those that `sample_rows` draws."""
        return next(iter(self.sample_rows(rng, n).values()))

    def all(self) -> Tensor:
        """Every row of the first tensor."""
        return next(iter(self._rows.values()))

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple[NestedSource, ...]:
        """Disjoint random parts of about `fraction * size` rows each.

        Raises:
            DataError: fractions that are not positive, sum to more than 1, or leave a part without rows.
        """
        ends = [0] + [round(end * self.size) for end in cumulated(self.name, fractions)]
        order = torch.from_numpy(rng.permutation(self.size))
        parts = []
        for i, (start, stop) in enumerate(itertools.pairwise(ends), 1):
            if start == stop:
                raise DataError(
                    f"{self.name}: part {i} of {len(fractions)} would be empty; give larger fractions of its "
                    f"{self.size} rows"
                )
            part = copy.copy(self)
            part._rows, part.size = self.take_rows(order[start:stop]), stop - start
            part.origin = f"{self.origin}; part {i} of {len(fractions)}, {stop - start} rows"
            parts.append(part)
        return tuple(parts)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> NestedSource:
        """The same rows elsewhere; integers and booleans keep their type."""
        moved = copy.copy(self)
        moved._rows = tree.to(self._rows, device=device, dtype=dtype)
        return moved


class FunctionSource(ShownSource):
    """An endless law: `function(i)` is batch number i, of whatever structure.

    Parts of it are disjoint sets of numbers, so that what one part shows no other does.

    Args:
        function: from a whole number to a batch; the same number gives the same batch. Random numbers that it draws
            (torch's, NumPy's or Python's global ones) are seeded by the number.
        name: for records.
    """

    value_range = None
    size = None

    def __init__(self, function: Callable[[int], object], name: str = "") -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", "a function")
        self.origin = f"batches of {self.name}(i)"
        batch = self._numbered(0)
        self.structure = Structure(batch)
        first = next(iter(self.structure.flat(batch).values()))
        self.kind: Kind = "images" if first.ndim == 4 else "points"
        self.shape = tuple(first.shape[1:])
        self._numbers: Sequence[int] = range(_WHEEL)
        self._to: tuple[tree.Device, torch.dtype | None] = (None, None)

    def sample_rows(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """The batch of a number drawn from this part's, with its own number of rows (`n` is not read)."""
        low = int(rng.integers(2**31 // _WHEEL))
        number = low * _WHEEL + self._numbers[int(rng.integers(len(self._numbers)))]
        batch = tree.detach(self.structure.flat(self._numbered(number)))
        device, dtype = self._to
        return tree.to(batch, device=device, dtype=dtype)

    def _numbered(self, number: int) -> object:
        """The batch of a number.

        Raises:
            DataError: the function fails.
        """
        try:
            with unmoved(None):
                _seed(number)
                batch = self.function(number)
        except Exception as error:
            raise DataError(
                f"{self.name} gives no batch number {number} ({_line(error)}): it is asked for any whole number below "
                "2**31; pass batches that end as a list"
            ) from error
        first = next(iter(Structure(batch).flat(batch).values()))
        if not first.ndim or not len(first):
            raise DataError(
                f"{self.name} gives a batch without rows for number {number}: it is asked for any whole number below "
                "2**31; pass batches that end as a list"
            )
        return batch

    def sample(self, rng: np.random.Generator, n: int) -> Tensor:
        """n rows of the batches' first tensor."""
        found: list[Tensor] = []
        while sum(map(len, found)) < n:
            found.append(next(iter(self.sample_rows(rng, n).values())))
        return torch.cat(found)[:n]

    def all(self) -> Tensor:
        """Not available: the batches have no end."""
        raise DataError(f"{self.name} gives batches without end: there is no tensor of all of them")

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple[FunctionSource, ...]:
        """Parts with numbers of their own, about that fraction of all."""
        count = len(self._numbers)
        ends = [0] + [round(end * count) for end in cumulated(self.name, fractions)]
        order = rng.permutation(count)
        parts = []
        for start, stop in itertools.pairwise(ends):
            part = copy.copy(self)
            part._numbers = [self._numbers[i] for i in order[start:stop]]
            parts.append(part)
        return tuple(parts)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> FunctionSource:
        """The same batches elsewhere; integers and booleans keep their type."""
        moved = copy.copy(self)
        moved._to = (device or self._to[0], dtype or self._to[1])
        return moved


Nested = NestedSource | FunctionSource


def nested_source(data: object, limit: int = 10_000, name: str = "") -> Nested | Source:
    """A source of batches from what a training loop holds.

    Args:
        data: a `Source` (returned as it is: its batches are its samples); tensors or arrays [N, ...], by themselves or
            in a tuple, list or dictionary; a torch Dataset; anything to iterate over that gives batches (a
            DataLoader); or a function from a whole number to a batch.
        limit: at most this many rows are read from a loader or dataset.
        name: for records.

    Returns: a `NestedSource`, a `FunctionSource`, or the `Source` itself.

    Raises:
        DataError: nothing to read, batches that differ in structure or shape, entries that are no tensors.
    """
    if isinstance(data, Source):
        return data
    kind = type(data).__name__
    if isinstance(data, Iterator):
        raise DataError(
            f"a {kind} would be used up by reading it: pass the loader, not its iterator"
        )
    if isinstance(data, Tensor | np.ndarray | Mapping | tuple) or _of_rows(data):
        structure = Structure(data)
        rows = {key: t.detach() for key, t in structure.flat(data).items()}
        return NestedSource(rows, structure, name or "the data")
    if isinstance(data, Iterable | Dataset) and not isinstance(data, str | bytes):
        rows, structure = _read(loader_of(data, limit), limit)
        count = len(next(iter(rows.values())))
        return NestedSource(rows, structure, name or "the data", f"{count} rows of a {kind}")
    if callable(data):
        return FunctionSource(data, name)
    raise DataError(
        f"data of type {kind} cannot be read: pass tensors [N, ...], a Dataset, a DataLoader, a function from a "
        "number to a batch, or a Source"
    )


def _of_rows(data: object) -> bool:
    """Whether a list is one batch (tensors with as many rows each) and not a list of batches."""
    if not isinstance(data, list) or not data:
        return False
    tensors = all(isinstance(part, Tensor | np.ndarray) and part.ndim for part in data)
    return (
        tensors
        and len({part.shape for part in data}) > 1
        and len({len(part) for part in data}) == 1
    )


def _read(batches: Iterable[object], limit: int) -> tuple[dict[str, Tensor], Structure]:
    """The rows of the first batches."""
    found: list[dict[str, Tensor]] = []
    structure: Structure | None = None
    count = 0
    batches = getattr(batches, "base_dataloader", batches)
    with unmoved(batches):
        for batch in _failing(batches):
            structure = structure or Structure(batch)
            rows = {key: t.detach().cpu() for key, t in structure.flat(batch).items()}
            for key, t in rows.items():
                if t.ndim == 0 or (found and t.shape[1:] != found[0][key].shape[1:]):
                    first = list(found[0][key].shape[1:]) if found else []
                    raise DataError(
                        f"batch entry {key} has rows of shape {list(t.shape[1:])} in one batch and {first} in "
                        "another: pad them to one shape, or leave the entry out"
                        if t.ndim
                        else f"batch entry {key} is a single number: a batch holds tensors [B, ...]"
                    )
            found.append(rows)
            count += len(next(iter(rows.values())))
            if count >= limit:
                break
    if structure is None:
        raise DataError("the data hold no batch: give at least one")
    names = structure.names
    return {key: torch.cat([rows[key] for rows in found])[:limit] for key in names}, structure


def _seed(number: int) -> None:
    """The global random states begin at a number."""
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    np.random.seed(number)
    random.seed(number)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _failing(batches: Iterable[object]) -> Iterator[object]:
    """The batches; DataError where the loader fails."""
    try:
        yield from batches
    except Exception as error:
        raise DataError(
            f"reading the data fails ({_line(error)}): look at what a batch of the loader holds"
        ) from error
