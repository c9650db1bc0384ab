"""Training a critic against fixed samples: from its own weights on, or from new ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist.core.draws import Use
from equilibrist.nn.noise import GLOBAL, seeded
from equilibrist.nn.wrapped import copied

if TYPE_CHECKING:
    from equilibrist.critics._case import CriticCase

RATES = (1e-3, 1e-2)  # step sizes of Adam, each tried for its share of the steps
LOOKS = 10  # at the loss on the rows that choose, for each step size
COOLING = 0.3  # of the steps, over which the step size falls to zero
# Of all that was gained: a search that gained more in its last third had not ended.
UNFINISHED = 0.05


@dataclass
class Trained:
    """A critic that was trained, and how.

    Attributes:
        module: with the weights of its best look; None where every run failed.
        curves: (step, loss on the rows that choose) of each run.
        steps: in all.
        failed: runs that met numbers that are not finite.
        finished: whether the best run had stopped gaining.
        chosen: the best look's loss.
    """

    module: nn.Module | None = None
    curves: list[list[tuple[int, float]]] = field(default_factory=list)
    steps: int = 0
    failed: int = 0
    finished: bool = True
    chosen: float = math.inf
    rate: float = 0.0

    def better(self, other: Trained) -> Trained:
        """The one with the lower loss on the rows that choose, with both records."""
        best, rest = (self, other) if self.chosen <= other.chosen else (other, self)
        return Trained(
            best.module,
            [*best.curves, *rest.curves],
            self.steps + other.steps,
            self.failed + other.failed,
            best.finished,
            best.chosen,
            best.rate,
        )


def train_critic(
    case: CriticCase, start: nn.Module, penalised: bool, steps: int, run: int
) -> Trained:
    """Train copies of `start` with each step size; the rows that choose tell which weights are best.

    Args:
        case: the critic's losses and samples.
        start: where training begins.
        penalised: whether the penalties are paid.
        steps: minibatch gradients in all.
        run: tells the draws of this training from others.
    """
    found = Trained()
    each = max(steps // len(RATES), 1)
    for k, rate in enumerate(RATES):
        found = found.better(_descend(case, start, penalised, each, rate, len(RATES) * run + k))
    return found


def _descend(
    case: CriticCase, start: nn.Module, penalised: bool, steps: int, rate: float, run: int
) -> Trained:
    module = copied(start, "critic")
    params = [p.requires_grad_() for p in module.parameters() if p.is_floating_point()]
    rule = torch.optim.Adam(params, lr=rate, betas=(0.9, 0.99), fused=True)
    rng = Use.CRITIC_BATCH.at(run=run).generator(case.seed)
    real, fake = case.samples.parts["optimise"]
    drawn = _drawn_steps(
        rng, len(real), len(fake), case.settings.batch, steps, case.dtype, case.device
    )
    found = Trained(rate=rate)
    found.chosen = first = case.choose(module, penalised)
    best, curve = copy.deepcopy(module.state_dict()), [(0, first)]
    looks = {round((i + 1) * steps / LOOKS) for i in range(LOOKS)} | {steps}
    with seeded(int(rng.integers(2**31)), GLOBAL):
        for step in range(1, steps + 1):
            rows, others, mix = (t[step - 1] for t in drawn)
            for group in rule.param_groups:
                group["lr"] = rate * min(1.0, (steps + 1 - step) / (COOLING * steps))
            loss = case.objective(module, real.rows(rows), fake.rows(others), mix, penalised)
            grads = torch.autograd.grad(loss, params, allow_unused=True)
            if not math.isfinite(float(loss.detach())):
                found.failed, found.steps = 1, step
                break
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            rule.step()
            case.project(module)
            if step in looks:
                value = case.choose(module, penalised)
                curve.append((step, value))
                if value < found.chosen:
                    found.chosen, best = value, copy.deepcopy(module.state_dict())
        else:
            found.steps = steps
    case.meter(found.steps)
    module.load_state_dict(best)
    found.module, found.curves = module, [curve]
    found.finished = not found.failed and _ended(curve, first)
    return found


def _ended(curve: Sequence[tuple[int, float]], first: float) -> bool:
    """Whether the last third of a run gained little of what the run gained."""
    values = [value for _, value in curve]
    third = max(1, len(values) // 3)
    before, after = min(values[:-third]), min(values)
    return before - after <= UNFINISHED * max(first - after, 0.0) + 1e-12


def _drawn_steps(
    rng: np.random.Generator,
    real: int,
    fake: int,
    batch: int,
    steps: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and mixing weights of every step."""
    rows = torch.from_numpy(rng.integers(0, real, (steps, batch))).to(device)
    others = torch.from_numpy(rng.integers(0, fake, (steps, batch))).to(device)
    mix = torch.from_numpy(rng.random((steps, batch))).to(device, dtype)
    return rows, others, mix
