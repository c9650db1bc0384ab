"""Data that nobody has to read: what generates samples or writes weights needs their shape alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, Self, TypeVar, cast

import numpy as np
import torch

from equilibrist.data._source import Kind, ShownSource, Source
from equilibrist.errors import DataError

Description = Mapping[str, Any]  # as a run's record has it: JSON
P = ParamSpec("P")
S = TypeVar("S", bound=Source)

_described: ContextVar[Description | None] = ContextVar("described", default=None)


class Absent(ShownSource):
    """A source that is known by its description and was not read.

    Args:
        described: `name`, `kind`, `size`, `shape` and `source` of the data, as a run records them.

    Whatever would need a sample raises DataError.
    """

    value_range: tuple[float, float] | None = None
    classes: int | None = None

    def __init__(self, described: Description) -> None:
        try:
            self.name, self.origin = str(described["name"]), str(described["source"])
            named = described["kind"]
            self.kind: Kind = named if named in ("points", "arrays") else "images"
            self.size: int | None = None if described["size"] is None else int(described["size"])
            self.shape = tuple(int(n) for n in described["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the description of the data is damaged ({error})") from None

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        raise self._missing()

    def sample_pairs(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise self._missing()

    def all(self) -> torch.Tensor:
        raise self._missing()

    def split(self, fractions: Sequence[float], rng: np.random.Generator) -> tuple[Source, ...]:
        raise self._missing()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Itself: there is nothing to move."""
        return self

    def _missing(self) -> DataError:
        return DataError(f"{self.name}: the samples were not read, and are needed here")


def is_absent(source: object) -> bool:
    """Whether these data, or those that they are made of, were not read."""
    while not isinstance(source, Absent) and hasattr(source, "source"):
        source = source.source
    return isinstance(source, Absent)


@contextmanager
def unread(described: Description) -> Iterator[None]:
    """Within, every function that reads data gives an `Absent` source of this description instead."""
    token = _described.set(described)
    try:
        yield
    finally:
        _described.reset(token)


def reads(function: Callable[P, S]) -> Callable[P, S]:
    """Marks a function that reads data from files."""

    @functools.wraps(function)
    def read(*arguments: P.args, **settings: P.kwargs) -> S:
        described = _described.get()
        if described is None:
            return function(*arguments, **settings)
        return cast(S, Absent(described))

    return read
