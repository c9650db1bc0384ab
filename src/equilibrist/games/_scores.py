"""The critic at fixed parameters, as formulations and penalties see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from equilibrist.formulations import Critic
from equilibrist.games.inputs import HALF, full_precision
from equilibrist.nn import noise
from equilibrist.nn.pure import Output, PureModule

Path = tuple[object, ...]  # keys, outermost first
NAMES = ("score", "scores", "logit", "logits")  # of a dictionary's entry that is the score


class Reading(NamedTuple):
    """Where one score lies in what the critic returns.

    Attributes:
        head: which critic of several is called; None of one.
        path: the keys that lead to the score, outermost first; () where the score itself is returned.
    """

    head: int | None = None
    path: Path = ()


def readings(output: Output, count: int) -> list[Path]:
    """The paths to the scores of `count` samples in what a critic returned; empty where there are none.

    A tensor is a score: [count], [count, 1] or a map [count, 1, ...]. Of a tuple the first entry counts, of a
    dictionary that called `score` or `logits`, of a list of features the last. A list or dictionary of scores
    holds several.
    """
    if isinstance(output, Tensor):
        return [()] if _is_score(output, count) else []
    if isinstance(output, Mapping):
        name = next((name for name in NAMES if name in output), None)
        if name is not None:
            return _within(output, name, count)
        return _several(output, list(output), count)
    if isinstance(output, tuple) and output:
        return _within(output, 0, count)
    if isinstance(output, list) and output:
        # Lists within a list are what its critics saw on the way, the score last.
        if all(isinstance(part, list) for part in output):
            ends = [_last(part, count, row=True) for part in output]
            return [(k, *end) for k, end in enumerate(ends)] if all(ends) else []
        found = _several(output, range(len(output)), count)
        end = _last(output, count)
        return found or ([end] if end else [])
    return []


def _within(output: Output, key: object, count: int) -> list[Path]:
    return [(key, *path) for path in readings(output[key], count)]


def _several(output: Output, keys: Iterable[object], count: int) -> list[Path]:
    found = [_within(output, key, count) for key in keys]
    return [path for paths in found for path in paths] if all(found) else []


def _last(output: list[Output], count: int, row: bool = False) -> Path:
    """The way to the last of a list of features, where that is a score, or (`row`) a map laid out [count, patches]."""
    if not output or not all(isinstance(part, Tensor) for part in output):
        return ()
    last = output[-1]
    laid_out = row and last.ndim == 2 and len(last) == count
    return (-1,) if laid_out or _is_score(last, count) else ()


def _is_score(value: Tensor, count: int) -> bool:
    if value.numel() == count:
        return True
    return value.ndim > 2 and value.shape[:2] == (count, 1) and value.is_floating_point()


def shape_of_output(output: Output) -> str:
    """What a critic returned, in words."""
    if isinstance(output, Tensor):
        return f"shape {list(output.shape)}"
    if isinstance(output, Mapping):
        parts = [f"{key}: {shape_of_output(value)}" for key, value in output.items()]
    elif isinstance(output, list | tuple):
        parts = [shape_of_output(value) for value in output]
    else:
        return type(output).__name__
    return f"a {type(output).__name__} of {', '.join(parts) or 'nothing'}"


class CriticScores(Critic, Protocol):
    """A critic as games hand it out: a `formulations.Critic` that knows one score for each sample too."""

    def by_sample(self, x: Tensor) -> Tensor:
        """One score for each sample [B]."""
        ...


@dataclass(eq=False, slots=True)  # not frozen: one is made at every evaluation, and that is slow
class Scores:
    """Samples [B, ...] to scores [B], or [B, patches] of a critic that returns maps (see `formulations.Critic`).

    With conditions [B, ...] the samples may be n batches one after the other, each under these
    conditions: real and generated ones in one pass.

    Random numbers that the module draws are those of `seed`: the k-th call has the same ones whatever was called
    before the losses were.
    """

    module: PureModule
    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    samplewise: bool
    condition: Tensor | None = None
    head: int | None = None
    closed_transform: bool = False
    path: Path = ()
    seed: int | None = None
    calls: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.seed is None:
            scores: Tensor = self._scores(x)
        else:
            with noise.seeded(noise.derived(self.seed, self.calls), self.module.noise_sources):
                scores = self._scores(x)
            self.calls += 1
        if scores.dtype in HALF:  # under autocast: a loss is a mean of many small differences
            scores = scores.float()
        # A map keeps its samples apart: a formulation cuts real from generated ones along the first dimension.
        return scores.flatten() if scores.numel() == len(x) else scores.flatten(1)

    def by_sample(self, x: Tensor) -> Tensor:
        """One score for each sample [B]: of a map, the mean over its patches."""
        scores = self(x)
        return scores if scores.ndim == 1 else scores.mean(1)

    def _scores(self, x: Tensor) -> Tensor:
        found = self.module(self.params, self.buffers, x, *self._shown(x), **self._which())
        for key in self.path:
            found = found[key]
        scores: Tensor = found
        return scores

    def transform(self, x: Tensor, eta: float) -> Tensor:
        """D^c(x) = sup_x' D(x') - eta |x - x'|^2 [B], where the critic knows it (`closed_transform`)."""
        with full_precision(x.device.type):  # it solves a linear system
            value: Tensor = self.module(
                self.params, self.buffers, x, *self._shown(x), **self._which(), eta=eta
            )
        return value.flatten()

    def _shown(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.condition is None:
            return ()
        times = len(x) // len(self.condition)
        if times == 1:
            return (self.condition,)
        return (self.condition.repeat(times, *[1] * (self.condition.ndim - 1)),)

    def _which(self) -> dict[str, int]:
        return {} if self.head is None else {"head": self.head}
