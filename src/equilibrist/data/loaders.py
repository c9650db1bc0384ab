"""Data as other loops hold them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from equilibrist.data._source import Source
from equilibrist.data.arrays import Array, ArraySource, _tensor
from equilibrist.errors import DataError

_ARRAYS = (Tensor, np.ndarray)


def source_of(
    data: object, limit: int = 10_000, name: str = "", conditions: bool = False
) -> Source:
    """A source of real samples from what a training loop holds.

    Args:
        data: a `Source` (returned as it is); a tensor or array [N, ...]; a tuple (samples, labels) of
            them; a torch Dataset; or anything that one can iterate over to get batches [B, ...], or
            tuples of which the samples are the first entry and labels may be the second: a torch
            DataLoader.
        limit: at most this many samples are taken, of arrays and datasets at equal distances.
        name: for records.
        conditions: take second entries [B, ...] as conditions that are no labels (images, say).

    Returns:
        An `ArraySource`. Samples with four dimensions [N, channels, height, width] are images, all
        others points (further dimensions are kept in order and flattened; an audit of two modules gives them their
        shape back where the generator makes samples of it).

    The global random states are left as they were, although a shuffling loader draws from them, and so
    are the generators and counters of the loader and its samplers (Accelerate's too): the loop meets the
    same batches in the same order. What a dataset of its own keeps between passes cannot be put back.

    Raises:
        DataError: nothing to iterate over, an iterator (reading it would use it up), no samples, or
            samples that are not real numbers.
    """
    if isinstance(data, Source):
        return data
    rows = rows_of(data, limit)
    shape, second, origin = tuple(rows.samples.shape[1:]), rows.second, rows.origin
    samples = _real(rows.samples)
    beside = _Beside() if second is None else _beside(second, len(samples), conditions)
    source = ArraySource(
        samples,
        name=name or "the data",
        origin=origin,
        kind="images" if samples.ndim == 4 else "points",
        value_range=_usual_range(samples) if samples.ndim == 4 else None,
        labels=beside.labels,
        conditions=beside.conditions,
    )
    source.why_unlabelled = beside.why_neither
    source.unflattened = shape if samples.ndim == 2 < len(shape) + 1 else None
    return source


@dataclass(frozen=True)
class Rows:
    """What was read of some data, as it lay there.

    Attributes:
        samples: [n, ...], in their own shape and precision.
        second: what came beside each of them (labels, conditions) [n, ...]; None where nothing did.
        origin: where they came from, in words.
        size: how many there were, of which `samples` may be a part; n where that is not known.
    """

    samples: Tensor
    second: Tensor | None
    origin: str
    size: int


def rows_of(data: object, limit: int = 10_000) -> Rows:
    """Samples, and what comes beside them, from what a training loop holds.

    Args:
        data: as `source_of` takes them, apart from a `Source`.
        limit: at most this many samples are taken, of arrays and datasets at equal distances.

    Returns:
        The samples in their own shape.

    Raises:
        DataError: nothing to iterate over, an iterator, or no samples.
    """
    kind = type(data).__name__
    if isinstance(data, Iterator):
        raise DataError(
            f"a {kind} would be used up by reading it: pass the loader, not its iterator"
        )
    if isinstance(data, TensorDataset):
        data = tuple(data.tensors[:2]) if len(data.tensors) > 1 else data.tensors[0]
    if isinstance(data, tuple | list) and not _is_pair(data):
        data = _stacked(data)
    if isinstance(data, _ARRAYS) or _is_pair(data):
        pair = (data,) if isinstance(data, _ARRAYS) else data
        samples, *rest = (_spread(_tensor("the data", part), limit) for part in pair)
        second, origin = rest[0] if rest else None, "an array in memory"
        size = len(pair[0]) if pair[0].ndim else 0
        if size > limit:
            origin = f"{limit} of {size} samples in memory"
    elif isinstance(data, Iterable | Dataset) and not isinstance(data, str | bytes | Mapping):
        samples, second = _gathered(loader_of(data, limit), limit)
        origin, size = f"{len(samples)} samples of a {kind}", len(samples)
    else:
        raise DataError(
            f"data of type {kind} cannot be read: pass a tensor [N, ...], a tuple (samples, labels), a "
            "Dataset, a DataLoader or a Source (equilibrist.data reads files)"
        )
    return Rows(samples, second, origin, size)


def as_made(source: Source, shape: tuple[int, ...]) -> Source:
    """`source`, its samples in the shape of generated ones where they had it before `source_of` flattened them."""
    if isinstance(source, ArraySource) and source.unflattened == shape:
        return source.shaped(shape)
    return source


def _is_pair(data: object) -> TypeGuard[Sequence[Array]]:
    """Whether these are (samples, labels) or (samples, conditions), not two batches of samples."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    if not all(isinstance(part, _ARRAYS) and part.ndim for part in data):
        return False
    first, second = data
    batches = isinstance(data, list) and first.shape[1:] == second.shape[1:]
    return len(first) == len(second) and not batches


def _stacked(data: Sequence[object]) -> object:
    """Single samples in a list as one tensor; batches, and anything else, as they are."""
    arrays = [part for part in data if isinstance(part, _ARRAYS)]
    if not data or len(arrays) < len(data):
        return data
    shapes = {tuple(part.shape) for part in arrays}
    shape = next(iter(shapes))
    if len(shape) < 2 and len(shapes) > 1:
        raise DataError(
            f"a {type(data).__name__} of {len(data)} vectors of several lengths is no batch of samples: give all "
            "one length"
        )
    if len(shape) == 3 and len(shapes) == 1 and shape[0] in (1, 3, 4):
        raise DataError(
            f"a {type(data).__name__} of {len(data)} arrays {list(shape)} may hold images or batches: give one "
            "array (torch.stack makes one of images, torch.cat of batches)"
        )
    if len(shape) == 1 and len(shapes) == 1:
        return torch.stack([_tensor("the data", part) for part in arrays])
    return data


def _spread(values: Tensor, limit: int) -> Tensor:
    """At most `limit` rows at equal distances: what is sorted by class keeps all its classes."""
    if values.ndim == 0 or len(values) <= limit:
        return values
    return values[torch.arange(limit) * len(values) // limit]


def loader_of(data: Iterable[object] | Dataset[object], limit: int) -> Iterable[object]:
    """Batches of a torch Dataset, whose own items are single samples; anything else as it is."""
    if not isinstance(data, Dataset):
        return data
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=256)
    count = len(data)  # type: ignore[arg-type]
    if count > limit:
        data = Subset(data, [i * count // limit for i in range(limit)])
    return DataLoader(data, batch_size=256)


def _real(samples: Tensor) -> Tensor:
    """Samples as floats, images or points."""
    samples = samples.detach().cpu()
    if samples.ndim < 2 or samples.numel() == 0:
        raise DataError(f"data of shape {list(samples.shape)} are no samples: give [N, ...]")
    if samples.is_complex():
        raise DataError(
            f"data of {samples.dtype} have an imaginary part, which no critic sees: pass "
            "torch.view_as_real(data)"
        )
    if samples.ndim != 4:
        samples = samples.flatten(1)
    return samples if samples.dtype.is_floating_point else samples.float()


def _usual_range(samples: Tensor) -> tuple[float, float] | None:
    """Pixels are scaled to one of these; anything else is taken as it is (and NaN refused later)."""
    low, high = (float(x) for x in torch.aminmax(samples))
    if not low - low == high - high == 0:
        return None
    usual = [(0.0, 1.0), (-1.0, 1.0)]
    return next((s for s in usual if s[0] <= low and high <= s[1]), (low, max(high, low + 1.0)))


class _Beside(NamedTuple):
    """What came beside the samples, as `ArraySource` takes it; why it is neither where it is not."""

    labels: Tensor | None = None
    conditions: Tensor | None = None
    why_neither: str = ""


def _beside(values: Tensor, size: int, conditions: bool) -> _Beside:
    """The second entry as labels or (where asked for) as conditions of `size` samples."""
    values = values.detach().cpu()
    shape = list(values.shape)
    if conditions:
        if values.ndim > 1 and len(values) == size:
            return _Beside(conditions=values)
        why = f"what comes beside them has shape {shape}, and conditions are [N, ...]"
        return _Beside(why_neither=why)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and len(values) == size and bool((values.sum(1) == 1).all()):
        return _Beside(why_neither=f"labels of shape {shape} look one-hot: pass labels.argmax(1)")
    if tuple(values.shape) != (size,) or values.is_complex():
        why = f"labels of shape {shape} are not one whole number for each of {size} samples"
        return _Beside(why_neither=why)
    whole = values.to(torch.int64)
    # Negative numbers and fractions are something else than classes.
    if not bool((whole == values).all()):
        return _Beside(why_neither="labels that are no whole numbers are no classes")
    if int(whole.min()) < 0:
        why = f"labels run from {int(whole.min())} to {int(whole.max())}: count classes from 0"
        return _Beside(why_neither=why)
    return _Beside(labels=whole)


def _gathered(batches: Iterable[object], limit: int) -> tuple[Tensor, Tensor | None]:
    """The samples of the first batches, and their second entries where all have one."""
    samples: list[Tensor] = []
    others: list[Tensor] = []
    count = 0
    # A loader that Accelerate has prepared keeps track of its passes in a global state; the one
    # within does not.
    batches = getattr(batches, "base_dataloader", batches)
    with unmoved(batches):
        for batch in batches:
            first, *rest = batch if isinstance(batch, tuple | list) else (batch,)
            if not isinstance(first, Tensor) or first.ndim == 0:
                raise DataError(
                    f"a batch holds {type(first).__name__} where samples should be: its first "
                    "entry must be a tensor [B, ...]"
                )
            if samples and first.shape[1:] != samples[0].shape[1:]:
                raise DataError(
                    f"batches hold samples of shape {list(samples[0].shape[1:])} and of shape "
                    f"{list(first.shape[1:])}: give all samples one shape, or pass (samples, labels)"
                )
            samples.append(first.detach().cpu())
            second = rest[0] if rest else None
            if (
                isinstance(second, Tensor)
                and second.ndim
                and len(second) == len(first)
                and (not others or second.shape[1:] == others[0].shape[1:])
            ):
                others.append(second.detach().cpu())
            count += len(first)
            if count >= limit:
                break
    if not samples:
        raise DataError("the data hold no batch: give at least one")
    whole = len(others) == len(samples)
    return torch.cat(samples)[:limit], torch.cat(others)[:limit] if whole else None


@contextmanager
def unmoved(loader: object) -> Iterator[None]:
    """The global random states, and the generators and counters of a loader and its samplers, put back
    afterwards."""
    parts = [part for part in _parts(loader) if hasattr(part, "__dict__")]
    counters = [
        (part, {k: v for k, v in vars(part).items() if v is None or isinstance(v, int | float)})
        for part in parts
    ]
    own = [getattr(part, "generator", None) for part in parts]
    generators = [(g, g.get_state()) for g in own if isinstance(g, torch.Generator)]
    # A loader that keeps its workers has one iterator for all passes: one that is under way must
    # not start again.
    running = getattr(loader, "_iterator", None)
    if running is not None:
        vars(loader)["_iterator"] = None
    state, numpy_state = random.getstate(), np.random.get_state()
    ready = torch.cuda.is_available() and torch.cuda.is_initialized()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if ready else []):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
        for generator, at in generators:
            generator.set_state(at)
        for part, values in counters:
            vars(part).update(values)
        if running is not None:
            vars(loader)["_iterator"] = running


def _parts(loader: object) -> list[object]:
    """A loader and the samplers within it, each once."""
    found: list[object] = []
    waiting = [loader]
    while waiting:
        part = waiting.pop()
        if part is not None and all(part is not other for other in found):
            found.append(part)
            waiting += [getattr(part, name, None) for name in ("sampler", "batch_sampler")]
    return found
