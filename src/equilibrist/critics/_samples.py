"""Real and generated samples as an audit of a critic holds them: rows in their own shape, split into parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist.core.draws import Use
from equilibrist.data import Source
from equilibrist.data.loaders import rows_of
from equilibrist.errors import DataError

LEAST = 40  # samples of each kind: fewer cannot be split into parts that say anything
FRACTIONS = (0.5, 0.2, 0.3)  # of the rows: on which critics are trained, chosen, scored
KINDS = ("real", "fake", "train_real", "train_fake")


class Inputs(NamedTuple):
    """Samples [n, ...] and what the critic is shown beside them [n, ...] or None."""

    x: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Tensor | slice) -> Inputs:
        """Some of the rows."""
        return Inputs(self.x[index], None if self.y is None else self.y[index])


def joined(*batches: Inputs) -> Inputs:
    """Batches one after another."""
    ys = [b.y for b in batches if b.y is not None]
    return Inputs(torch.cat([b.x for b in batches]), torch.cat(ys) if ys else None)


@dataclass(frozen=True)
class Samples:
    """One kind of samples.

    Attributes:
        batch: all of them.
        places: where each stood in what the user gave.
        names: the columns' names, where the data brought some along.
        origin: where they came from, in words.
    """

    batch: Inputs
    places: Tensor
    names: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class SampleSets:
    """All samples of an audit.

    Attributes:
        real, fake: held-out samples.
        train_real, train_fake: samples that the critic was trained on, or None.
        indices: rows of (real, fake) to train on ("optimise"), to choose by ("select"), to score on ("score").
        parts: these rows.
    """

    real: Samples
    fake: Samples
    train_real: Samples | None
    train_fake: Samples | None
    indices: dict[str, tuple[Tensor, Tensor]]
    parts: dict[str, tuple[Inputs, Inputs]]


def read_samples(
    kind: str,
    data: object,
    limit: int,
    least: int,
    like: torch.dtype,
    device: torch.device,
    whole: bool,
) -> Samples:
    """Samples of one kind, floats in the critic's precision.

    Args:
        kind: the argument's name, for messages.
        data: whatever `data.rows_of` reads, a `Source`, or a table with column names (a DataFrame).
        limit: at most this many are taken.
        least: fewer are refused.
        like: the critic's precision.
        device: where the critic lives.
        whole: whether whole numbers stay what they are (indices of an embedding).

    Raises:
        DataError: no samples, too few, or entries that are not finite.
    """
    names: tuple[str, ...] = ()
    if _is_table(data):
        names, data = tuple(map(str, data.columns)), _table_values(kind, data)
    try:
        if isinstance(data, Source):
            if data.size is None:
                raise DataError(f"{data.name} is a law without end: pass samples of it")
            data = data.all()
        rows = rows_of(data, limit)
    except DataError as error:
        raise DataError(f"{kind}: {error}") from None
    x, y = rows.samples.detach(), rows.second
    if x.ndim == 1:
        raise DataError(f"{kind}: shape {list(x.shape)} is one number a sample: give [N, 1]")
    if x.is_complex():
        raise DataError(f"{kind}: complex samples: pass torch.view_as_real of them")
    if len(x) < least:
        raise DataError(f"{kind}: {len(x)} samples are too few to judge by: give at least {least}")
    x = x.to(device, like if x.dtype.is_floating_point or not whole else None)
    if x.is_inference():  # made under inference_mode, where nothing can be differentiated
        x = x.clone()
    if x.dtype.is_floating_point and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x.flatten(1))).any(1).nonzero()[0])
        raise DataError(f"{kind}: sample {bad} holds a number that is not finite: leave it out")
    if y is not None:
        y = y.detach().to(device, like if y.dtype.is_floating_point else None)
    count = len(x)
    places = torch.arange(count) * rows.size // count if rows.size > count else torch.arange(count)
    return Samples(Inputs(x, y), places, names, rows.origin)


class NamedColumns(Protocol):
    """A table with named columns, as pandas' DataFrame."""

    @property
    def columns(self) -> Iterable[object]: ...

    def to_numpy(self) -> NDArray[np.generic]: ...


def _is_table(data: object) -> TypeGuard[NamedColumns]:
    return hasattr(data, "to_numpy") and hasattr(data, "columns")


def _table_values(kind: str, table: NamedColumns) -> NDArray[np.generic]:
    """The numbers of a table.

    Raises:
        DataError: columns that are no numbers.
    """
    values = table.to_numpy()
    if values.dtype == object:
        raise DataError(
            f"{kind}: the table holds columns that are no numbers: pass it as the critic sees it, encoded"
        )
    return values


def same_shape(real: Samples, other: Samples, kind: str) -> None:
    """DataError unless both have one shape a sample."""
    a, b = list(real.batch.x.shape[1:]), list(other.batch.x.shape[1:])
    if a != b:
        raise DataError(f"{kind}: samples have shape {b}, real ones {a}: give both one shape")


def packed(samples: Samples, pack: int) -> Samples:
    """Samples [n / pack, pack, ...]: what a critic that judges several rows at once calls one sample."""
    if pack == 1:
        return samples
    whole = len(samples) // pack * pack

    def fold(t: Tensor) -> Tensor:
        return t[:whole].reshape(whole // pack, pack, *t.shape[1:])

    x, y = samples.batch
    return Samples(
        Inputs(fold(x), None if y is None else fold(y)),
        fold(samples.places),
        samples.names,
        samples.origin,
    )


def parts(samples: Samples, kind: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of disjoint random parts: to train critics on, to choose among them, to score them."""
    rng = Use.CRITIC_SPLIT.at(kind=KINDS.index(kind)).generator(seed)
    order = torch.from_numpy(rng.permutation(len(samples)))
    first = round(FRACTIONS[0] * len(samples))
    second = round((FRACTIONS[0] + FRACTIONS[1]) * len(samples))
    return order[:first], order[first:second], order[second:]


def split_samples(held: Mapping[str, Samples], seed: int) -> SampleSets:
    """The samples of each kind, the held-out ones in disjoint random parts."""
    real, fake = held["real"], held["fake"]
    split = zip(*(parts(held[k], k, seed) for k in ("real", "fake")), strict=True)
    indices = dict(zip(("optimise", "select", "score"), split, strict=True))
    return SampleSets(
        real,
        fake,
        held.get("train_real"),
        held.get("train_fake"),
        indices,
        {name: (real.batch.rows(a), fake.batch.rows(b)) for name, (a, b) in indices.items()},
    )


def repeats(samples: Samples) -> float:
    """The share of rows that another row is equal to, as those of discrete data are."""
    _, counts = torch.unique(samples.batch.x.flatten(1), dim=0, return_counts=True)
    return float(counts[counts > 1].sum()) / len(samples)


def without(samples: Samples, known: Samples) -> tuple[Samples, int]:
    """The samples that are not among `known`, and how many were."""
    held = {row.tobytes() for row in known.batch.x.flatten(1).cpu().numpy()}
    rows = samples.batch.x.flatten(1).cpu().numpy()
    fresh = torch.tensor([row.tobytes() not in held for row in rows])
    left = Samples(samples.batch.rows(fresh), samples.places[fresh], samples.names, samples.origin)
    return left, int((~fresh).sum())
