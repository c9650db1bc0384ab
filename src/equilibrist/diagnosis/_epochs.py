"""Whether a loop goes through its data in order: rows do not come again before all have been there."""

from __future__ import annotations

import gc
from collections import deque

from torch import Tensor
from torch.utils.data import DataLoader

from equilibrist.diagnosis._seen import fingerprints

MOST_ROWS, MOST = 100_000, 2**24  # rows and entries of data that are told apart
EXPECTED = 7.0  # rows that independent draws would repeat: none comes again by chance once in a thousand times
RECENT = 8  # batches that a round may show again
DISTINCT = 0.99  # of the rows, or their order is unknown


class Epochs:
    """Rows of the data that the critic is shown, batch by batch.

    Args:
        train: the data that training sees; None where they are not known.
    """

    def __init__(self, train: Tensor | None) -> None:
        self.rows = 0 if train is None else len(train)
        usable = train is not None and train.ndim > 0 and 0 < self.rows <= MOST_ROWS
        self._train = train if train is not None and usable and train.numel() <= MOST else None
        self._known: set[int] | None = None
        self._seen: set[int] = set()
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._expected, self._repeated, self._count = 0.0, 0, 0
        self._sizes: set[int] = set()

    def meet(self, samples: Tensor) -> None:
        """The critic is given these samples."""
        if self._train is None or samples.ndim == 0 or len(samples) == 0 or self._repeated:
            return
        if self._known is None:
            self._known = set(fingerprints(self._train, self.rows))
            if len(self._known) < DISTINCT * self.rows:
                self._train = None
                return
        (first,) = fingerprints(samples[:1])
        if first not in self._known or first in self._recent:
            return
        if self._expected < EXPECTED:
            met = fingerprints(samples, len(samples))
            if not self._known.issuperset(met):
                return  # a batch of both kinds
            self._repeated += len(self._seen.intersection(met)) if self._count < self.rows else 0
            self._expected += len(met) * len(self._seen) / self.rows
            self._seen.update(met)
        self._recent.append(first)
        self._count += len(samples)
        self._sizes.add(len(samples))

    @property
    def batch(self) -> int | None:
        """The size of batches, where rows come in order and the first pass through them is not over; else None."""
        over = self._count > self.rows or len(self._sizes) != 1
        if self._expected < EXPECTED or self._repeated or over:
            return None
        return next(iter(self._sizes))

    def loader(self) -> DataLoader[object] | None:
        """The loader of torch that may make these batches: of several, one that leaves the last batch out."""
        every = (t for t in gc.get_objects() if issubclass(type(t), DataLoader))
        fitting = [t for t in every if t.batch_size == self.batch and _length(t) == self.rows]
        return next((t for t in fitting if t.drop_last), fitting[0] if fitting else None)


def _length(loader: DataLoader[object]) -> int:
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return -1
