"""The critic at fixed parameters, as formulations and penalties see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equilibrist.games.inputs import full_precision
from equilibrist.nn import noise
from equilibrist.nn.pure import PureModule

_HALF = (torch.bfloat16, torch.float16)


@dataclass(eq=False, slots=True)  # not frozen: one is made at every evaluation, and that is slow
class Scores:
    """Samples [B, ...] to scores [B] (see `formulations.Critic`).

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
    seed: int | None = None
    calls: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.seed is None:
            scores: Tensor = self._scores(x)
        else:
            with noise.seeded(noise.derived(self.seed, self.calls), self.module.noise_sources):
                scores = self._scores(x)
            self.calls += 1
        if scores.dtype in _HALF:  # under autocast: a loss is a mean of many small differences
            scores = scores.float()
        return scores.flatten()

    def _scores(self, x: Tensor) -> Tensor:
        found: Tensor = self.module(self.params, self.buffers, x, *self._shown(x), **self._which())
        return found

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

    def _which(self) -> dict[str, Any]:
        return {} if self.head is None else {"head": self.head}
