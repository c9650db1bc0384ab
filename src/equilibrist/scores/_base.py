"""What runs ask of a score, what it answers, and the floor that every answer carries."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.data import Source
from equilibrist.data.arrays import Array
from equilibrist.errors import DataError, first_line
from equilibrist.files.atomic import json_ready
from equilibrist.scores._arrays import nonfinite_rows
from equilibrist.scores.network import FeatureNetwork, pixels

T = TypeVar("T")

Figures = Callable[[Tensor, Tensor, np.random.Generator], dict[str, float]]
"""From the representations of real and of fake samples to named figures."""


@dataclass(frozen=True)
class Result:
    """What a score says of one set of generated samples.

    Attributes:
        name: the score with the network that it depends on, as
            `"Frechet distance (pixels-8x8, 1a2b3c4d)"`.
        values: the figures, by name; all NaN where the score failed.
        floor: the same figures for real samples in place of the generated ones, compared with the
            same real samples, as many of each. A perfect generator gets about this, not zero.
        better: "lower" or "higher" for each value that has a good direction.
        samples: how many samples of each kind the figures come from.
        network: name, hash and preprocessing of the network; None where there is none.
        failed: one line that says why there are no values; None where there are.
    """

    name: str
    values: dict[str, float]
    floor: dict[str, float]
    better: dict[str, str]
    samples: int
    network: Json | None = None
    failed: str | None = None

    def to_json(self) -> Json:
        """Plain values for JSON; numbers that are not finite become None."""
        plain: Json = json_ready(dict(vars(self)))
        return plain

    def __str__(self) -> str:
        if self.failed is not None:
            return f"{self.name}: failed, {self.failed}"
        figures = [
            f"{key} {value:.4g} (floor {self.floor[key]:.4g})" for key, value in self.values.items()
        ]
        return f"{self.name}: {', '.join(figures)}; {self.samples} samples"


@runtime_checkable
class Score(Protocol):
    """A figure of merit of generated samples: an immutable value, a pure function of its arguments.

    Called with `fake` [m, *shape], the law of real samples and a generator, it compares as many of
    each as it can: n = `samples`, but at most m, and at most half of a finite source, for the floor
    takes another n real samples. Real samples are drawn first, so that generators in the same state
    give the same real samples; what was computed from them is kept for the next such call in the
    process with the same source, weakly referenced.

    Generated samples or features that are NaN or infinite give a `Result` that is marked `failed`:
    training goes on. What is wrong with the real samples, their network or the settings raises
    `DataError`, in the first call.
    """

    @property
    def name(self) -> str: ...

    @property
    def samples(self) -> int: ...

    def __call__(self, fake: Tensor, real: Source, rng: np.random.Generator) -> Result: ...


class Floored(NamedTuple, Generic[T]):
    """A figure, the same between two sets of real samples, and how many samples a set had."""

    value: T
    floor: T
    samples: int


def with_floor(
    figure: Callable[[Tensor, Tensor], T], real: Array, fake: Array, rng: np.random.Generator
) -> Floored[T]:
    """`figure(real, fake)` and its real-against-real floor, all from n samples a set.

    n is the number of fake samples, but at most half of the real ones. `rng` cuts two disjoint sets
    of n out of the real samples: the first is compared with the first n fake ones and, for the
    floor, with the second.

    Args:
        figure: compares two sets of samples or features.
        real, fake: samples or features [m, ...].
        rng: cuts the real samples in two.

    Returns:
        The figure, its floor, and the n of both.

    Raises:
        DataError: fewer than two real samples or no fake one.
    """
    x, y = torch.as_tensor(real), torch.as_tensor(fake)
    n = min(len(x) // 2, len(y))
    if n < 1:
        raise DataError(f"{len(x)} real and {len(y)} fake samples leave no floor; give more")
    first, second = _cut(x, n, rng)
    return Floored(figure(first, y[:n]), figure(first, second), n)


class FeatureCache:
    """What one score computed from the real samples of one source; copies and pickles are empty."""

    def __init__(self) -> None:
        self._source: weakref.ref[Source] | None = None
        self._key: object = None
        self._value: _Real | None = None

    def get(self, source: Source, key: object) -> _Real | None:
        """What was put under this source (the same object) and key, or None."""
        same = self._source is not None and self._source() is source and self._key == key
        return self._value if same else None

    def put(self, source: Source, key: object, value: _Real) -> None:
        """Keep `value` in place of the last one, for as long as the source lives."""
        try:
            self._source = weakref.ref(source, self._drop)
        except TypeError:  # a source of a class with slots: computed afresh each time
            return
        self._key, self._value = key, value

    def _drop(self, source: weakref.ref[Source]) -> None:
        if source is self._source:
            self._source = self._key = self._value = None

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[()]]:
        return FeatureCache, ()


class _Real(NamedTuple):
    features: Tensor
    floor: dict[str, float]
    state: Mapping[str, Any]


def evaluate(
    fake: Tensor,
    real: Source,
    rng: np.random.Generator,
    *,
    samples: int,
    represent: Callable[[Tensor], Tensor],
    figures: Figures,
    kept: FeatureCache,
) -> tuple[dict[str, float], dict[str, float], int, str | None]:
    """The steps that all scores share: (values, floor, samples, failed) as `Result` has them."""
    if tuple(fake.shape[1:]) != tuple(real.shape):
        raise DataError(
            f"{real.name}: generated samples have shape {list(fake.shape[1:])}, real ones "
            f"{list(real.shape)}; a score compares like with like"
        )
    n = min(samples, len(fake), samples if real.size is None else real.size // 2)
    if n < 2:
        raise DataError(
            f"{real.name}: {len(fake)} generated and {real.size or 'unlimited'} real samples leave "
            "less than two to compare; give more"
        )
    key = (n, repr(rng.bit_generator.state))
    known = kept.get(real, key)
    if known is None:
        first, second = (represent(part) for part in _halves(real, n, rng))
        known = _Real(first, figures(first, second, rng), rng.bit_generator.state)
        kept.put(real, key, known)
    rng.bit_generator.state = known.state
    undefined = dict.fromkeys(known.floor, float("nan"))
    fake = fake[:n].detach()
    if bad := nonfinite_rows(fake):
        return undefined, known.floor, n, f"{bad} of {n} generated samples are NaN or infinite"
    features = represent(fake)
    if bad := nonfinite_rows(features):
        return undefined, known.floor, n, f"the features of {bad} of {n} samples are not finite"
    try:
        values = figures(known.features, features, rng)
    except (DataError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        # The same figures of real samples were sound, so it is the generated ones that break them.
        return undefined, known.floor, n, first_line(error)
    if not np.isfinite(list(values.values())).all():
        return undefined, known.floor, n, "the generated samples are too large for the figures"
    return values, known.floor, n, None


def _halves(source: Source, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of n independent real samples (of a finite source, without replacement)."""
    if source.size is not None:
        return _cut(source.all(), n, rng)
    if getattr(source, "balanced", False):
        # Rows of one balanced draw vary less together than a generator's can: a floor made of them
        # would be out of reach.
        drawn = torch.cat([source.sample(rng, 1) for _ in range(2 * n)])
        return drawn[:n], drawn[n:]
    return source.sample(rng, n), source.sample(rng, n)


def _cut(everything: Tensor, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    order = torch.from_numpy(rng.permutation(len(everything))[: 2 * n]).to(everything.device)
    return everything[order[:n]], everything[order[n:]]


@dataclass(frozen=True)
class FeatureScore:
    """Base of the scores that compare features. A subclass states `title`, `better` and `figures`.

    Args:
        network: where features come from; `pixels()` where none is given.
        samples: how many samples of each kind to compare (see `Score`).
    """

    title: ClassVar[str]
    better: ClassVar[dict[str, str]]

    network: FeatureNetwork = field(default_factory=pixels)
    samples: int = 2048
    _kept: FeatureCache = field(default_factory=FeatureCache, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(
                f"{type(self).__name__}.samples must be at least 2, not {self.samples}"
            )

    @property
    def name(self) -> str:
        """The score with its network: `"Frechet distance (pixels-8x8, 1a2b3c4d)"`."""
        return f"{self.title} ({self.network.describe()})"

    def figures(self, real: Tensor, fake: Tensor, rng: np.random.Generator) -> dict[str, float]:
        """The named figures from features [n, d] of each kind."""
        raise NotImplementedError

    def __call__(self, fake: Tensor, real: Source, rng: np.random.Generator) -> Result:
        """The figures of `fake` [m, *shape] against `real`, with their floor; see `Score`."""
        values, floor, n, failed = evaluate(
            fake,
            real,
            rng,
            samples=self.samples,
            represent=lambda x: self.network(x, real.value_range),
            figures=self.figures,
            kept=self._kept,
        )
        return Result(
            self.name, values, floor, dict(self.better), n, self.network.to_json(), failed
        )
