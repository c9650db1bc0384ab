"""Line searches: the loss along the directions in which a deviation is likely, over four decades of distance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from equilibrist import tree
from equilibrist.checks._linear import PRODUCT, Hessian, lanczos_extremes
from equilibrist.checks._objective import FORWARD, Objective, Params
from equilibrist.checks._second_order import inexact
from equilibrist.checks.context import relative_noise
from equilibrist.core.draws import Batch

SIZES = tuple(10.0 ** (k / 2) for k in range(-6, 3))  # of moves, relative to the player's norm
GRADIENTS = 4  # minibatches of the mean gradient
PRODUCTS = 12  # with the player's own Hessian, at most
LARGEST_HESSIAN = 4_000_000  # parameters up to which Lanczos vectors are kept


@dataclass(frozen=True)
class ScanPoint:
    """A point that a line search looked at: the kind of its direction, the move's relative size, its gain there."""

    kind: str
    size: float
    gain: float
    params: Params


@dataclass
class Reach:
    """How far one kind of direction was searched: how many directions, and up to which relative distance."""

    directions: int = 0
    radius: float = 0.0


@dataclass
class Scan:
    """All line searches of one player: the points that gained most, by kind, and how far each kind was searched."""

    best: dict[str, ScanPoint] = field(default_factory=dict)
    reach: dict[str, Reach] = field(default_factory=dict)

    @property
    def points(self) -> list[ScanPoint]:
        """The best point of each kind that gained, best first."""
        return sorted(
            (p for p in self.best.values() if p.gain > 0), key=lambda p: p.gain, reverse=True
        )


def scan(objective: Objective, budget: float, rng: np.random.Generator) -> Scan:
    """Line searches within `budget` minibatch gradients, in this order: down the gradient, both ways along the
    most negative curvature, then in turn one tensor rescaled, all tensors in a random direction, and one
    tensor in a random direction.

    Args:
        objective: the player's loss.
        budget: minibatch gradients to spend at most; one direction takes `len(SIZES)` evaluations.
        rng: of the random directions.

    Returns:
        The best points and the reach of each kind of direction. A kind that the budget did not allow is absent.
    """
    found, end = Scan(), objective.spent + budget
    line = FORWARD * len(SIZES)
    for kind, direction in _directions(objective, budget, rng):
        if objective.spent + line > end:
            break
        if float(tree.norm(direction)) > 0:
            # Random directions at random sizes below the nominal ones: together they leave no gaps between two.
            shift = 10.0 ** (-0.5 * rng.random()) if kind == "random" else 1.0
            _line(objective, kind, direction, shift, found)
    return found


def _directions(
    objective: Objective, budget: float, rng: np.random.Generator
) -> Iterator[tuple[str, Params]]:
    line = FORWARD * len(SIZES)
    if budget < 1 + line:
        return
    count = GRADIENTS if budget > 4 * GRADIENTS else 1
    descent = _mean_gradient(objective, count)
    if descent is None:
        return
    yield "gradient", tree.scale(-1.0, descent)
    yield "gradient", {k: -(objective.scales[k] ** 2) * g for k, g in descent.items()}
    products = min(PRODUCTS, int(0.3 * budget / PRODUCT), tree.count(objective.start))
    if products >= 3 and (curving := _curving(objective, products, rng)) is not None:
        yield "curvature", curving
        yield "curvature", tree.scale(-1.0, curving)
    yield from _structured(objective, rng)


def _mean_gradient(objective: Objective, count: int) -> Params | None:
    players, constants = objective.at(objective.start)
    mean = tree.mean(
        objective.gradient(players, constants, k, Batch.MEAN_GRADIENT)
        for k in range(count if objective.context.sampled else 1)
    )
    return mean if bool(torch.isfinite(tree.norm(mean))) else None


def _curving(objective: Objective, products: int, rng: np.random.Generator) -> Params | None:
    """The direction of the most negative curvature of the player's own loss, by Lanczos' method in coordinates
    relative to each tensor's scale; None where the loss curves up as far as that many products can tell."""
    context, player = objective.context, objective.player
    n = tree.count(objective.start)
    if n > LARGEST_HESSIAN or inexact(context):
        return None
    draws = context.linear_draws()[:1]
    operator = Hessian(context, player, draws, objective.pay, whole=True)
    scales = torch.cat(
        [objective.scales[k].double().expand(x.numel()) for k, x in objective.start.items()]
    )
    scales = scales / scales.max()
    noise = torch.from_numpy(rng.standard_normal(n)).to(scales)
    ends = lanczos_extremes(lambda x: scales * operator(scales * x), noise, products)
    if not ends.finite or ends.smallest >= -ends.zero:
        return None
    direction = tree.unflatten(scales * ends.vector, objective.start)
    curving: Params = tree.map(lambda d, x: d.to(x.dtype), direction, objective.start)
    return curving


def _structured(objective: Objective, rng: np.random.Generator) -> Iterator[tuple[str, Params]]:
    """Without end: rescaled tensors first, each once; random directions in all tensors and in one."""
    start = objective.start
    resting = tree.zeros_like(start)
    names = sorted(start, key=lambda k: start[k].numel())
    rescaled = iter(
        [(sign, k) for k in names for sign in (1.0, -1.0) if bool(start[k].abs().max() > 0)]
    )
    for turn in itertools.count():
        if (pick := next(rescaled, None)) is not None:
            sign, name = pick
            yield "rescaling", {**resting, name: sign * start[name]}
        yield "random", relative_noise(start, 1.0, rng)
        if len(names) > 1:
            name = names[turn % len(names)]
            yield "random", {**resting, name: relative_noise(start, 1.0, rng)[name]}


def _line(objective: Objective, kind: str, direction: Params, shift: float, found: Scan) -> None:
    """Look along one direction at `shift` times the nominal sizes, outwards, until the loss is no longer finite."""
    furthest = 0.0
    for nominal in SIZES:
        size = shift * nominal
        params = objective.moved(direction, size)
        gain = objective.probe(params)
        if not math.isfinite(gain):
            break
        furthest = nominal
        if kind not in found.best or gain > found.best[kind].gain:
            found.best[kind] = ScanPoint(kind, size, gain, params)
    reach = found.reach.setdefault(kind, Reach())
    reach.radius = furthest if reach.directions == 0 else min(reach.radius, furthest)
    reach.directions += 1
