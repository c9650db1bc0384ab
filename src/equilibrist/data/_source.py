"""What a law of real samples must offer."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch

from equilibrist.display import Rows, Shown
from equilibrist.errors import DataError

Kind = Literal["images", "points", "arrays"]


@runtime_checkable
class Source(Protocol):
    """A law of real samples, finite (an array) or infinite (a density that can be drawn from).

    Every draw is a deterministic function of the generator that is handed in; a source keeps no
    random state. Sources are values: `to` and `split` return new ones.
    """

    @property
    def name(self) -> str:
        """Short name, as `load` and recipes know it."""
        ...

    @property
    def kind(self) -> Kind:
        """`"images"` (samples [channels, height, width]), `"points"` (samples [d]) or `"arrays"` (signals,
        sequences, volumes: samples of any shape)."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        ...

    @property
    def size(self) -> int | None:
        """Number of samples; None for an infinite law."""
        ...

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Closed interval that holds every value; None where there is no such bound."""
        ...

    @property
    def origin(self) -> str:
        """Where the samples came from, in a sentence for a human reader."""
        ...

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw [n, *shape]; from a finite source independently and with replacement."""
        ...

    def all(self) -> torch.Tensor:
        """Every sample of a finite source, [size, *shape]. `DataError` for an infinite law."""
        ...

    def split(self, fractions: Sequence[float], rng: np.random.Generator) -> tuple["Source", ...]:
        """Cut into disjoint random parts; an infinite law returns itself once per fraction."""
        ...

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Source":
        """The same law on another device or in another floating dtype."""
        ...


@runtime_checkable
class Paired(Source, Protocol):
    """A source whose samples carry a condition: a class, or an image that belongs to each.

    What conditional players read. A source may have the methods and yet no conditions (an array
    without labels): then `sample_pairs` raises `DataError`.
    """

    @property
    def classes(self) -> int | None:
        """Number of classes, K; None where the conditions are no classes or there are none."""
        ...

    def sample_pairs(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw (x, y): x is what `sample` draws from the same generator, y the conditions of its
        rows: classes 0..K-1, int64 [n], or floats [n, ...]."""
        ...


class ShownSource(Shown):
    """How every source of this library shows itself."""

    def _facts(self: Source) -> tuple[str, Rows]:
        size = "drawn afresh" if self.size is None else f"{self.size:,}"
        rows = [("samples", f"{size} of shape {list(self.shape)}"), ("from", self.origin)]
        if self.value_range is not None:
            low, high = self.value_range
            rows.append(("values", f"{low:g} to {high:g}"))
        if classes := getattr(self, "classes", None):
            rows.append(("classes", str(classes)))
        return f"{type(self).__name__} {self.name}: {self.kind}", rows


def check_count(name: str, n: int) -> None:
    """Refuse to draw fewer than one sample."""
    if n < 1:
        raise DataError(f"{name}: cannot draw {n} samples; ask for at least 1")


def cumulated(name: str, fractions: Sequence[float]) -> list[float]:
    """Right ends of the parts, as fractions of the whole. `DataError` unless each fraction is
    positive and their sum is at most 1."""
    ends = [math.fsum(fractions[: i + 1]) for i in range(len(fractions))]
    # The slack forgives rounded fractions; a NaN fails the comparisons.
    if not ends or not all(f > 0 for f in fractions) or not ends[-1] <= 1 + 1e-9:
        raise DataError(
            f"{name}: cannot split into fractions {list(fractions)}; "
            "give positive numbers with a sum of at most 1"
        )
    return ends
