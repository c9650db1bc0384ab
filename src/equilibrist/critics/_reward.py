"""What a generator is paid at a sample, and how steeply it changes there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equilibrist.critics._case import CriticCase
from equilibrist.critics._rates import pairs_apart
from equilibrist.critics._samples import Inputs
from equilibrist.critics.judge import required_arguments
from equilibrist.errors import GameError, first_line

FLAT = 0.1  # of a straight line's slope: less is called none
# Step of finite differences, relative to the spread of scores or the distance between samples.
STEP = 1e-3


@dataclass(frozen=True)
class RewardSlopes:
    """How steep a reward is at generated samples.

    Attributes:
        slopes: relative to a straight line between the rewards of generated and real samples.
        share: of samples without slope.
        median: the median slope.
        none: the share of samples at the reward's lowest value.
        count: samples.
        varies: squared distances of their rewards from the mean, relative to the square of what the reward differs
            between real and generated samples.
    """

    slopes: NDArray[np.float64]
    share: float
    median: float
    none: float
    count: int
    varies: NDArray[np.float64]


class Reward:
    """The reward that a generator gets, or what stands for it.

    A user's own, from scores or from the critic and samples; else minus the generator's loss of the formulation;
    else the score itself.
    """

    def __init__(self, case: CriticCase) -> None:
        self.case, self.given = case, case.reward
        self.of_samples = self.given is not None and required_arguments(self.given) >= 2
        formulation = case.objective.formulation
        loss = getattr(formulation, "generator_loss", None)
        self._loss: Callable[[Tensor], Tensor] | None = loss if self.given is None else None
        if self.given is not None:
            self.name, self.words = "the reward", "the callable that was given"
        elif self._loss is not None:
            self.name, self.words = "the generator's loss", "minus the generator's loss at a sample"
        else:
            self.name, self.words = "the score", "the critic's score"

    def at(self, module: nn.Module, batch: Inputs) -> NDArray[np.float64]:
        """The reward of samples [n]."""
        case = self.case
        if self.of_samples:
            found = []
            for rows in torch.arange(len(batch)).split(1024):
                part = batch.rows(rows)
                found.append(self._called(len(part), module, case.judge.as_given(part)))
            return np.concatenate(found)
        return self.of_scores(case.scores(module, batch))

    def of_scores(self, scores: Tensor) -> NDArray[np.float64]:
        """The reward of scores [n]."""
        if self.given is not None:
            return self._called(len(scores), scores.to(self.case.dtype))
        if self._loss is None:
            return np.asarray(self.case.sign * scores.cpu().numpy())
        loss = self._loss
        return np.array(-torch.vmap(lambda s: loss(s[None]))(scores).cpu().numpy(), dtype=float)

    def _called(self, count: int, *arguments: object) -> NDArray[np.float64]:
        assert self.given is not None
        try:
            with torch.no_grad():
                value = self.given(*arguments)
            found = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, float)
        except Exception as error:
            takes = "critic, samples" if self.of_samples else "scores"
            raise GameError(
                f"reward({takes}) fails: {type(error).__name__}: {first_line(error)[:200]}"
            ) from error
        if found.size != count:
            raise GameError(
                f"reward returns {list(found.shape)} for {count} samples: it must return one number a sample"
            )
        return found.reshape(-1)

    def without_slope(self, who: str, whose: str) -> RewardSlopes | None:
        """RewardSlopes at the generated samples.

        Args:
            who: the critic that pays, by its name in the case.
            whose: the critic whose rewards, real against generated, say what a straight line would be.

        Returns:
            None where samples are whole numbers, along which nothing has a slope.
        """
        case = self.case
        real, fake = case.held_out
        if not fake.x.is_floating_point():
            return None
        module = case.module(who)
        apart = pairs_apart(real.x, fake.x)
        rewards = {name: self.at(case.module(whose), b) for name, b in (("r", real), ("f", fake))}
        rise = abs(float(rewards["r"].mean() - rewards["f"].mean()))
        spread = float(np.concatenate(list(rewards.values())).std())
        line = max(rise, 0.1 * spread) / apart if apart > 0 else math.nan
        slope = np.abs(self._slope(module, fake, apart))
        own = self.at(module, fake)
        lowest = min(float(own.min()), float(self.at(module, real).min()))
        at_floor = own <= lowest + 1e-9 * max(spread, abs(lowest), 1e-30)
        relative = slope / line if line > 0 else np.zeros_like(slope)
        # One sample is the lowest always: only a floor that several share is one.
        none = float(at_floor.mean()) if at_floor.sum() > 1 else 0.0
        whole = max(rise, 0.1 * spread)
        varies = np.square((own - own.mean()) / whole) if whole > 0 else np.zeros_like(own)
        return RewardSlopes(
            relative,
            float((relative < FLAT).mean()),
            float(np.median(relative)),
            none,
            len(own),
            varies,
        )

    def _slope(self, module: nn.Module, batch: Inputs, apart: float) -> NDArray[np.float64]:
        """|d reward / d x| at samples [n], along the gradient of the score."""
        case = self.case
        gradients = []
        for rows in torch.arange(len(batch)).split(512):
            x, y = batch.rows(rows)
            x = x.clone().requires_grad_()
            with torch.enable_grad(), case.noise():
                total = case.judge.scores(module, Inputs(x, y)).sum()
                g = (
                    torch.autograd.grad(total, x, allow_unused=True)[0]
                    if total.requires_grad
                    else None
                )
            gradients.append(torch.zeros_like(x) if g is None else g.detach())
        gradient = torch.cat(gradients)
        length = gradient.flatten(1).double().norm(dim=1)
        if self.of_samples:
            unit = gradient / length.clamp_min(1e-300).to(gradient).reshape(
                -1, *[1] * (gradient.ndim - 1)
            )
            h = STEP * apart
            ahead, behind = (
                self.at(module, Inputs(batch.x + s * h * unit, batch.y)) for s in (1, -1)
            )
            return np.asarray((ahead - behind) / (2 * h))
        scores = case.scores(module, batch)
        h = STEP * max(float(scores.std()), 1e-6 * float(scores.abs().mean()), 1e-30)
        rate = (self.of_scores(scores + h) - self.of_scores(scores - h)) / (2 * h)
        return np.asarray(rate * length.cpu().numpy())
