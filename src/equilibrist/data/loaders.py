"""Data as other loops hold them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equilibrist._errors import DataError
from equilibrist.data._source import Source
from equilibrist.data.arrays import ArraySource


def source_of(data: Any, limit: int = 10_000, name: str = "") -> Source:
    """A source of real samples from what a training loop holds.

    Args:
        data: a `Source` (returned as it is); a tensor or array [N, ...]; or anything that one can
            iterate over to get batches [B, ...], or tuples of which the samples are the first entry
            and labels may be the second: a torch DataLoader.
        limit: at most this many samples are taken.
        name: for records.

    Samples with four dimensions [N, channels, height, width] are images, all others points (further
    dimensions are kept in order and flattened). The global random states are left as they were,
    although a shuffling loader draws from them, and so are the generators and counters of the loader
    and its samplers (Accelerate's too): the loop meets the same batches in the same order. What a
    dataset of its own keeps between passes cannot be put back.

    Raises:
        DataError: nothing to iterate over, an iterator (reading it would use it up), no samples, or
            samples that are not tensors.
    """
    if isinstance(data, Source):
        return data
    labels: Tensor | None = None
    if isinstance(data, Tensor | np.ndarray):
        samples = torch.as_tensor(data)[:limit]
        origin = "an array in memory"
    elif isinstance(data, Iterator):
        raise DataError(
            f"a {type(data).__name__} would be used up by reading it: pass the loader, not its iterator"
        )
    elif isinstance(data, Iterable):
        samples, labels = _gathered(data, limit)
        origin = f"the first {len(samples)} samples of a {type(data).__name__}"
    else:
        raise DataError(
            f"data of type {type(data).__name__} cannot be read: pass a tensor [N, ...], a DataLoader or a Source"
        )
    samples = samples.detach().cpu()
    if samples.ndim < 2 or len(samples) == 0:
        raise DataError(f"data of shape {list(samples.shape)} are no samples: give [N, ...]")
    kind = "images" if samples.ndim == 4 else "points"
    if kind == "points":
        samples = samples.flatten(1)
    if not samples.dtype.is_floating_point:
        samples = samples.float()
    span = None
    if kind == "images":
        low, high = (float(x) for x in torch.aminmax(samples))
        # Pixels are scaled to one of these; anything else is taken as it is.
        usual = [(0.0, 1.0), (-1.0, 1.0)]
        span = next((s for s in usual if s[0] <= low and high <= s[1]), (low, max(high, low + 1.0)))
    return ArraySource(
        samples,
        name=name or "data of the loop",
        origin=origin,
        kind="images" if kind == "images" else "points",
        value_range=span,
        labels=labels,
    )


def _gathered(batches: Iterable[Any], limit: int) -> tuple[Tensor, Tensor | None]:
    samples: list[Tensor] = []
    labels: list[Tensor] = []
    count = 0
    # A loader that Accelerate has prepared keeps track of its passes in a global state; the one
    # within does not.
    batches = getattr(batches, "base_dataloader", batches)
    with _unmoved(batches):
        for batch in batches:
            first, *others = batch if isinstance(batch, tuple | list) else (batch,)
            if not isinstance(first, Tensor) or first.ndim == 0:
                raise DataError(
                    f"a batch holds {type(first).__name__} where samples should be: its first "
                    "entry must be a tensor [B, ...]"
                )
            samples.append(first.detach().cpu())
            label = others[0] if others else None
            if isinstance(label, Tensor) and label.shape == first.shape[:1]:
                labels.append(label.detach().cpu())
            count += len(first)
            if count >= limit:
                break
    if not samples:
        raise DataError("the data hold no batch: give at least one")
    whole = bool(labels) and len(labels) == len(samples)
    if whole and any(part.is_floating_point() or bool((part < 0).any()) for part in labels):
        whole = False
    return torch.cat(samples)[:limit], torch.cat(labels)[:limit] if whole else None


@contextmanager
def _unmoved(loader: Any) -> Iterator[None]:
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


def _parts(loader: Any) -> list[Any]:
    """A loader and the samplers within it, each once."""
    found: list[Any] = []
    waiting = [loader]
    while waiting:
        part = waiting.pop()
        if part is not None and all(part is not other for other in found):
            found.append(part)
            waiting += [getattr(part, name, None) for name in ("sampler", "batch_sampler")]
    return found
